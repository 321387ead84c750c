"""The latency that dropping a block saves: the whole network with it minus without it, in paired rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx

from practise_backends.files import temporary_folder
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.results.table import measure_sets, measure_table, measure_without
from practise_backends.results.table_design import Cut
from practise_backends.terms import Interval, LatencyTable
from practise_deploy.network.graph.onnx_graph import externalise_weights, without_blocks
from practise_deploy.terms import Block


class Variants:
    """The network without some of its blocks, as files that share one file of weights."""

    def __init__(self, model: onnx.ModelProto, blocks: Sequence[Block], folder: Path) -> None:
        """model: from `with_splices`; its weights are moved to a file in `folder`."""
        self._model = externalise_weights(model, folder)
        self._blocks = {block.name: block for block in blocks}
        self._folder = folder
        self._files: dict[tuple[str, ...], Path] = {}

    def without(self, dropped: tuple[str, ...]) -> Path:
        """The file of the network without these blocks; milliseconds, since no weight is copied."""
        if dropped not in self._files:
            path = self._folder / f"variant{len(self._files)}.onnx"
            made = without_blocks(self._model, [self._blocks[name] for name in dropped])
            path.write_bytes(made.SerializeToString(deterministic=True))
            self._files[dropped] = path
        return self._files[dropped]


@contextmanager
def variants_of(model: onnx.ModelProto, blocks: Sequence[Block]) -> Iterator[Variants]:
    """Variants in a temporary folder."""
    with temporary_folder() as folder:
        yield Variants(model, blocks, folder)


def measure_block_latency(
    model: onnx.ModelProto, network: str, blocks: Sequence[Block], bench: MeasurementSetup, progress: Progress
) -> LatencyTable:
    """Every block's saving; blocks of one latency class share theirs.

    model: from `with_splices`.
    """
    cuts = [Cut(block=block.name, latency_class=block.latency_class) for block in blocks]
    with variants_of(model, blocks) as variants:
        return measure_table(network, cuts, variants.without, bench, progress)


def measure_reduction(
    model: onnx.ModelProto, dropped: Sequence[Block], bench: MeasurementSetup, progress: Progress
) -> Interval:
    """The measured reduction of latency, in percent, when these blocks are dropped together."""
    with variants_of(model, dropped) as variants:
        return measure_without(tuple(block.name for block in dropped), variants.without, bench, progress)


def measure_reductions(
    model: onnx.ModelProto, sets: Sequence[Sequence[Block]], bench: MeasurementSetup, progress: Progress
) -> list[Interval]:
    """The same for several sets, all in the same rounds."""
    blocks = {block.name: block for chosen in sets for block in chosen}
    names = [tuple(block.name for block in chosen) for chosen in sets]
    with variants_of(model, list(blocks.values())) as variants:
        return measure_sets(names, variants.without, bench, progress)
