"""Variants of a network as files, their times on a scripted device, and tables that come from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from networks import tiny_resnet
from practise_backends.fake import FakeBackend, steady
from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Artifact, Conditions, StoppingRule, Tensors
from practise_deploy.deployment.block_latency import (
    Variants,
    measure_block_latency,
    measure_reduction,
    measure_reductions,
    variants_of,
)
from practise_deploy.network.graph.onnx_graph import with_splices, without_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.terms import Block

SHAPE = (1, 3, 16, 16)
BASELINE_MS = 10.0
PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=20, max_rounds=20, half_width_percent=0.0, keep_throttled=True
)


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


@pytest.fixture(scope="module")
def cuttable() -> tuple[onnx.ModelProto, dict[str, Block]]:
    traced, _ = trace(tiny_resnet(), SHAPE)
    blocks = droppable(find_blocks(traced, SHAPE))
    return with_splices(traced, blocks, SHAPE), {block.name: block for block in blocks}


# The files.


@pytest.fixture(scope="module")
def variants(cuttable: Any, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    model, blocks = cuttable
    return Variants(model, list(blocks.values()), tmp_path_factory.mktemp("variants"))


@pytest.mark.parametrize("dropped", [(), ("layer1.1",), ("layer1.0", "layer2.1", "layer3.2")])
def test_variant_is_the_network_without_the_blocks(cuttable: Any, variants: Variants, dropped: tuple[str, ...]):
    model, blocks = cuttable
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    plain = without_blocks(model, [blocks[name] for name in dropped])
    assert np.array_equal(run(variants.without(dropped), x), run(plain.SerializeToString(), x))


def run(network: Path | bytes, x: np.ndarray) -> np.ndarray:
    backend, conditions = OrtBackend(), Conditions()
    feeds: Tensors = {"input": x}
    return backend.open(backend.compile(network, conditions), conditions).run(feeds)["logits"]


def test_variants_share_their_weights_and_are_made_once(variants: Variants):
    paths = [variants.without(names) for names in ((), ("layer1.0",), ("layer1.0",))]
    assert paths[1] == paths[2] != paths[0]
    weights = paths[0].parent / "weights.bin"
    assert weights.stat().st_size > 5 * sum(path.stat().st_size for path in paths[:2])


def test_variants_are_gone_afterwards(cuttable: Any):
    model, blocks = cuttable
    with variants_of(model, list(blocks.values())) as found:
        path = found.without(("layer1.0",))
        assert path.is_file()
    assert not path.parent.exists()


# Their times.


@pytest.fixture
def bench(variants: Variants) -> Callable[..., MeasurementSetup]:
    """A bench where the network without a set of blocks takes so many milliseconds; every set must be scripted."""

    def make(ms: dict[tuple[str, ...], float]) -> MeasurementSetup:
        known = {hashlib.sha256(variants.without(names).read_bytes()).hexdigest(): names for names in ((), *ms)}
        times = {(): BASELINE_MS, **ms}
        backend = FakeBackend(script=lambda artifact: steady(times[known[artifact.sha256]]))
        return MeasurementSetup(backend=backend, conditions=Conditions(), stopping_rule=PATIENCE)

    return make


def test_every_block_has_the_saving_of_its_class(cuttable: Any):
    """A convolution takes half a millisecond; the two blocks of stage 2 are of one class, layer1.0 of another."""
    model, blocks = cuttable

    def script(artifact: Artifact):
        content = onnx.load(artifact.content, load_external_data=False)
        return steady(0.5 * sum(node.op_type == "Conv" for node in content.graph.node))

    asked = MeasurementSetup(backend=FakeBackend(script=script), conditions=Conditions(), stopping_rule=PATIENCE)
    chosen = [blocks[name] for name in ("layer1.0", "layer2.1", "layer2.2")]
    table = measure_block_latency(model, "tiny", chosen, asked, Silent())
    assert (table.network, table.input_shape, table.baseline_ms.estimate) == ("tiny", SHAPE, pytest.approx(10.5))
    assert [(s.block, s.saving_ms.estimate, s.pooled_with) for s in table.savings] == [
        ("layer1.0", pytest.approx(1.0), ()),
        ("layer2.1", pytest.approx(1.0), ("layer2.2",)),
        ("layer2.2", pytest.approx(1.0), ("layer2.1",)),
    ]
    assert [s.latency_class for s in table.savings] == [block.latency_class for block in chosen]
    assert list(table.samples["engines"]).count(ORIGINAL) == 4


def test_reduction_of_a_set_is_measured_with_all_of_it_gone(cuttable: Any, bench: Callable[..., MeasurementSetup]):
    model, blocks = cuttable
    names = ("layer1.0", "layer2.1", "layer2.2")
    found = measure_reduction(model, [blocks[name] for name in names], bench({names: 7.0}), Silent())
    assert found.estimate == pytest.approx(30.0)


def test_reductions_of_several_sets_are_told_in_their_order(cuttable: Any, bench: Callable[..., MeasurementSetup]):
    model, blocks = cuttable
    sets = [("layer1.0", "layer3.1"), ("layer2.1",)]
    chosen = [[blocks[name] for name in names] for names in sets]
    found = measure_reductions(model, chosen, bench({sets[0]: 8.0, sets[1]: 9.5}), Silent())
    assert [one.estimate for one in found] == pytest.approx([20.0, 5.0])
