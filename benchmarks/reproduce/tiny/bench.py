"""What the grid takes from the instrument: a latency table a network, and filters as fast as the blocks' network.

Both are measured once, on one device, and kept beside the units; the units are computed anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import fx

from practise_backends.intervals import ORIGINAL
from practise_backends.levels import levels_of
from practise_backends.ort import OrtBackend
from practise_backends.sessions import Candidate, measure, opened
from practise_backends.terms import Bench, Conditions, Interval, LatencyTable, Patience
from practise_deploy.latency_table import read_table
from practise_deploy.model.onnx_graph import with_cuts
from practise_deploy.model.surgery import drop_blocks
from practise_deploy.planning.latency import measure_block_latency, measure_reductions
from practise_deploy.progress import Silent
from practise_deploy.shipping.export import export_onnx
from practise_deploy.store import digest, to_json, write_atomically

from .choice import by_error, first_that_meet, plain_errors
from .filters import inner_convolutions, prune_filters, structures
from .grid import MET_AT
from .subjects import INNER, Subject

REFERENCE_IMAGES = 500
TOLERANCE_POINTS = 0.5
_MOST_STRUCTURES = 60
_BEFORE, _AT_ONCE = 2, 8
_ROUGH = Patience(budget_s=90.0, enough_percent=0.25, sessions=2)


def table_path(results: Path, network: str) -> Path:
    """Where a network's latency table is kept."""
    return results / f"latency_{network.replace(':', '-')}.json"


def filters_path(results: Path, network: str, reduction: int) -> Path:
    """Where the filters that match a reduction are kept."""
    return results / f"filters_{network.replace(':', '-')}_{reduction}{MET_AT}.json"


def table_of(results: Path, network: str) -> LatencyTable:
    """A network's kept latency table."""
    return read_table(table_path(results, network))


def stand(patience: Patience | None = None) -> Bench:
    """ONNX Runtime, batch 1, one thread."""
    return Bench(backend=OrtBackend(), conditions=Conditions(), patience=patience or Patience())


def measure_table(subject: Subject, results: Path) -> LatencyTable:
    """Measure a network's latency table, as `practise-deploy latency` does, and keep it."""
    blocks = subject.candidates
    model = with_cuts(subject.teacher, blocks, subject.network.input_shape)
    ranking = stand(Patience(enough_share=0.05))
    table = measure_block_latency(model, _portable(subject), blocks, ranking, Silent())
    shapes = [(block.name, block.kind, block.shape, block.parameters) for block in subject.blocks]
    table = replace(table, structure_sha256=digest(shapes))
    write_atomically(table_path(results, subject.name), to_json(table))
    return table


def _portable(subject: Subject) -> str:
    return subject.settings.network.rpartition("/")[2]


def match_filters(subject: Subject, table: LatencyTable, reduction: int) -> dict[str, Any]:
    """Inner widths whose network is as fast as the one without blocks, both measured; the widest there are.

    The blocks' network is that of the least plain-drop error on images of seed 0: any set of the budget would do, as sets
    of equal predicted latency have equal latency.
    """
    images = subject.tiny_set(min(REFERENCE_IMAGES, len(subject.pool)), 0)
    dropped = first_that_meet(by_error(plain_errors(subject, images), table), table, reduction)
    blocks = drop_blocks(subject.teacher, subject.named(dropped))
    inner = inner_convolutions(subject.teacher, INNER[subject.name])
    chain = structures([subject.teacher.get_submodule(name).out_channels for name in inner])
    shape = subject.network.input_shape
    chain = thinned(chain, _MOST_STRUCTURES)
    narrow = [prune_filters(subject.teacher, inner, widths, shape) for widths in chain]
    place, found = _as_fast(subject, blocks, narrow)
    return {
        "schema": 1,
        "network": subject.name,
        "asked_percent": reduction,
        "budget_met_at": MET_AT,
        "reference_dropped": list(dropped),
        "reference_percent": asdict(found["blocks"]),
        "widths": dict(zip(inner, chain[place], strict=True)),
        "full_widths": {name: subject.teacher.get_submodule(name).out_channels for name in inner},
        "reduction_percent": asdict(found[str(place)]),
        "structures": len(chain),
        "device": OrtBackend().device().name,
    }


def _as_fast(
    subject: Subject, blocks: fx.GraphModule, narrow: Sequence[fx.GraphModule]
) -> tuple[int, dict[str, Interval]]:
    """The place of the widest network that is as fast as the blocks', and what was measured to say so.

    A rough measurement of all finds the neighbourhood, a fine one decides in it; it moves on while that was too wide.
    """
    rough = reductions_of(subject, {"blocks": blocks, **_numbered(narrow, range(len(narrow)))}, _ROUGH)
    begin = max(0, widest(rough["blocks"].estimate, [rough[str(n)].estimate for n in range(len(narrow))]) - _BEFORE)
    while True:
        places = range(begin, min(begin + _AT_ONCE, len(narrow)))
        found = reductions_of(subject, {"blocks": blocks, **_numbered(narrow, places)}, Patience(budget_s=120.0))
        goal, saved = found["blocks"].estimate, [found[str(n)].estimate for n in places]
        if max(saved) >= goal - TOLERANCE_POINTS or places.stop == len(narrow):
            return places[widest(goal, saved)], found
        begin = places.stop


def _numbered(networks: Sequence[fx.GraphModule], places: range) -> dict[str, fx.GraphModule]:
    return {str(n): networks[n] for n in places}


def thinned(chain: Sequence[tuple[int, ...]], most: int) -> list[tuple[int, ...]]:
    """At most so many of the structures, evenly spread, the narrowest among them; the full network is left out."""
    rest = chain[1:]
    step = -(-len(rest) // most)
    return list(rest[::-1][::step][::-1])


def widest(goal: float, saved: Sequence[float]) -> int:
    """The first place in a chain of narrower and narrower networks that saves as much as the goal; else the one that saves most.

    Savings do not rise at every step (see `filters`), so a bisection could end at a network needlessly narrow.
    """
    enough = [place for place, percent in enumerate(saved) if percent >= goal - TOLERANCE_POINTS]
    return enough[0] if enough else max(range(len(saved)), key=saved.__getitem__)


def reductions_of(subject: Subject, networks: dict[str, fx.GraphModule], patience: Patience) -> dict[str, Interval]:
    """By how many percent each network is faster than the original, all in the same paired rounds."""
    bench = stand(patience)
    with TemporaryDirectory(prefix="practise-") as folder:
        files = {}
        for name, network in {ORIGINAL: subject.teacher.cpu(), **networks}.items():
            files[name] = Path(folder) / f"{len(files)}.onnx"
            export_onnx(network, subject.network.input_shape, files[name], dynamic_batch=False)
        candidates = {name: Candidate(model=path, sessions=patience.sessions) for name, path in files.items()}
        with opened(candidates, bench) as found:
            levels = levels_of(measure(found, bench, Silent()), patience.confidence)
    return {name: _less(levels.ratio(name)) for name in networks}


def _less(ratio: Interval) -> Interval:
    """A ratio of latencies as a reduction in percent."""
    return Interval(
        estimate=100 * (1 - ratio.estimate), low=100 * (1 - ratio.high), high=100 * (1 - ratio.low),
        confidence=ratio.confidence,
    )  # fmt: skip


def read_filters(results: Path, network: str, reduction: int) -> dict[str, Any]:
    """The kept widths for a reduction, with what was measured of them."""
    return json.loads(filters_path(results, network, reduction).read_text(encoding="utf-8"))


def write_filters(results: Path, found: dict[str, Any]) -> None:
    """Keep widths and what was measured of them."""
    path = filters_path(results, found["network"], found["asked_percent"])
    write_atomically(path, json.dumps(found, indent=1) + "\n")


def sets_path(results: Path, network: str) -> Path:
    """Where the measured reductions of a network's sets of blocks are kept."""
    return results / f"sets_{network.replace(':', '-')}_{MET_AT}.json"


def sets_of(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The distinct sets of blocks that units dropped."""
    return sorted({tuple(sorted(record["dropped"])) for record in records if record.get("dropped")})


def measure_sets(subject: Subject, sets: Sequence[tuple[str, ...]], results: Path) -> None:
    """Measure by how much each of these sets shortens the latency, all in the same rounds, and keep that."""
    model = with_cuts(subject.teacher, subject.candidates, subject.network.input_shape)
    found = measure_reductions(model, [subject.named(names) for names in sets], stand(), Silent())
    record = {
        "schema": 1,
        "network": subject.name,
        "budget_met_at": MET_AT,
        "device": OrtBackend().device().name,
        "sets": [
            {"dropped": list(names), "reduction_percent": asdict(each)} for names, each in zip(sets, found, strict=True)
        ],
    }
    write_atomically(sets_path(results, subject.name), json.dumps(record, indent=1) + "\n")
