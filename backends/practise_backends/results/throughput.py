"""Images a second over batches and numbers of threads, all networks of a point in the same paired rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from practise_backends.errors import CompileError, MeasureError
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.catalog import artifact_of
from practise_backends.runtimes.onnx_file import fixed_batch
from practise_backends.terms import Conditions, Interval, Throughput, Timings

_FIXED = "the network was exported with a fixed batch of {}; export it with a dynamic batch"

Files = Mapping[str, Path | bytes]


def measure_throughput(
    files: Files,
    setup: MeasurementSetup,
    batches: Sequence[int],
    threads: Sequence[int],
    progress: Progress | None = None,
) -> tuple[Throughput, ...]:
    """Measure every network at every batch and number of threads, by threads, then batch, then network.

    setup: its conditions but for batch and threads; its stopping rule applies to each point, with its `sessions` of each
    network. The first dimension of every shape that it names is the batch.
    A batch that a network cannot take is refused with the reason, and so is a point that cannot be measured: the
    others are not lost for it. Engines of one point are closed before the next is opened.
    Raises: MeasureError where a batch or a number of threads is not positive; CompileError where a network
    does not load.
    """
    _check(batches, threads)
    fixed = {
        name: fixed_batch(artifact_of(setup.backend, file, setup.conditions, shapes=setup.shapes).inputs)
        for name, file in files.items()
    }
    points = [
        replace(setup.conditions, batch=batch, threads=count) for count, batch in product(threads, batches)
    ]
    throughputs: list[Throughput] = []
    for at, conditions in enumerate(points):
        fitting = {name: file for name, file in files.items() if fixed[name] in (None, conditions.batch)}
        point_progress = (
            None
            if progress is None
            else _PointProgress(progress=progress, at=at, of=len(points), conditions=conditions)
        )
        shapes = {name: (conditions.batch, *shape[1:]) for name, shape in setup.shapes.items()}
        point_setup = replace(setup, conditions=conditions, shapes=shapes)
        refused = {name: _FIXED.format(fixed[name]) for name in files if name not in fitting}
        measured: dict[str, Throughput] = {}
        try:
            measured = _measure_point(fitting, point_setup, point_progress) if fitting else {}
        except (CompileError, MeasureError) as error:
            refused |= dict.fromkeys(fitting, error.message)
        throughputs += [measured.get(name) or _refused(name, refused[name], conditions) for name in files]
    return tuple(throughputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PointProgress:
    """The progress of one point among all."""

    progress: Progress
    at: int
    of: int
    conditions: Conditions

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Say how far all points are."""
        share = min(1.0, done / total) if total > 0 else 0.0
        point = f"batch {self.conditions.batch}, {self.conditions.threads} thread(s)"
        self.progress.advance(self.at + share, self.of, f"{point}: {note}" if note else point)


def _check(batches: Sequence[int], threads: Sequence[int]) -> None:
    """Refuse what no engine could run."""
    for label, counts in (("batch", batches), ("number of threads", threads)):
        if not counts or min(counts) < 1:
            raise MeasureError(
                f"the {label} to measure is {list(counts)}", remedy="name at least one, each 1 or more"
            )


def _measure_point(files: Files, setup: MeasurementSetup, progress: Progress | None) -> dict[str, Throughput]:
    """Open the networks, measure them in paired rounds, and close them again; the throughput of each."""
    sessions = max(1, setup.stopping_rule.sessions)
    candidates = {name: Candidate(model=file, sessions=sessions) for name, file in files.items()}
    with opened(candidates, setup, progress) as networks:
        timings = measure(networks, setup, progress)
    estimates = estimate_latencies(timings, setup.stopping_rule.confidence)
    return {name: _measured(timings, name, estimates.typical_ms(name)) for name in files}


def _measured(timings: Timings, name: str, latency: Interval) -> Throughput:
    """The throughput whose interval follows from the latency's."""
    images_ms = 1e3 * timings.conditions.batch
    rate = Interval(
        estimate=images_ms / latency.estimate,
        low=images_ms / latency.high,
        high=images_ms / latency.low,
        confidence=latency.confidence,
    )
    return Throughput(
        engine=name,
        batch=timings.conditions.batch,
        threads=timings.conditions.threads,
        latency_ms=latency,
        images_per_s=rate,
        timed_by=timings.timed_by,
    )


def _refused(name: str, why: str, conditions: Conditions) -> Throughput:
    """A point that this network was not measured at."""
    return Throughput(
        engine=name,
        batch=conditions.batch,
        threads=conditions.threads,
        latency_ms=None,
        images_per_s=None,
        refused=why,
    )
