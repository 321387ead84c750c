"""What the grid takes from the instrument: latency tables, and what networks and sets of blocks save.

All are measured once, on one device, and kept beside the units; the units are computed anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import fx

from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, Interval, LatencyTable, StoppingRule
from practise_deploy.deployment.block_latency import measure_block_latency, measure_reductions
from practise_deploy.deployment.export import write_onnx
from practise_deploy.deployment.latency_table import read_table
from practise_deploy.network.graph.onnx_graph import to_onnx, with_splices
from practise_deploy.run import Silent, digest, to_json, write_atomically

from .grid import MET_AT
from .subjects import Subject


def table_path(results: Path, network: str) -> Path:
    """Where a network's latency table is kept."""
    return results / f"latency_{network.replace(':', '-')}.json"


def filters_path(results: Path, network: str, reduction: int) -> Path:
    """Where the filters that match a reduction are kept."""
    return results / f"filters_{network.replace(':', '-')}_{reduction}{MET_AT}.json"


def table_of(results: Path, network: str) -> LatencyTable:
    """A network's kept latency table."""
    return read_table(table_path(results, network))


def stand(stopping_rule: StoppingRule | None = None) -> MeasurementSetup:
    """ONNX Runtime, batch 1, one thread."""
    return MeasurementSetup(
        backend=OrtBackend(), conditions=Conditions(), stopping_rule=stopping_rule or StoppingRule()
    )


def measure_table(subject: Subject, results: Path) -> LatencyTable:
    """Measure a network's latency table, as `practise-deploy latency` does, and keep it."""
    blocks = subject.candidates
    model = with_splices(subject.teacher, blocks, subject.network.input_shape)
    ranking = stand(StoppingRule(relative_half_width=0.05))
    table = measure_block_latency(model, _portable(subject), blocks, ranking, Silent())
    shapes = [(block.name, block.kind, block.shape, block.parameters) for block in subject.blocks]
    table = replace(table, structure_sha256=digest(shapes))
    write_atomically(table_path(results, subject.name), to_json(table))
    return table


def _portable(subject: Subject) -> str:
    return subject.settings.network.rpartition("/")[2]


def reductions_of(
    subject: Subject, networks: dict[str, fx.GraphModule], stopping_rule: StoppingRule
) -> dict[str, Interval]:
    """By how many percent each network is faster than the original, all in the same paired rounds."""
    bench = stand(stopping_rule)
    with TemporaryDirectory(prefix="practise-") as folder:
        files = {}
        for name, network in {ORIGINAL: subject.teacher.cpu(), **networks}.items():
            files[name] = Path(folder) / f"{len(files)}.onnx"
            write_onnx(to_onnx(network, subject.network.input_shape), files[name], dynamic_batch=False)
        candidates = {name: Candidate(model=path, sessions=stopping_rule.sessions) for name, path in files.items()}
        with opened(candidates, bench) as found:
            levels = estimate_latencies(measure(found, bench, Silent()), stopping_rule.confidence)
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
    model = with_splices(subject.teacher, subject.candidates, subject.network.input_shape)
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
