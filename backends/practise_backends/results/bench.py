"""All figures of one network, alone or against another: latency, throughput, cold start, memory, scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from practise_backends.errors import MeasureError
from practise_backends.results.breakdown import launch_notes, parts_of
from practise_backends.results.compare import NEW, cold_starts, compare, figures_of
from practise_backends.results.throughput import measure_throughput
from practise_backends.rounds.estimates import levels_of
from practise_backends.rounds.intervals import ORIGINAL, raw_samples
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.terms import (
    SCHEMA,
    WALL,
    Arrays,
    Bench,
    Comparison,
    Conditions,
    Device,
    EngineFigures,
    Environment,
    Interval,
    Progress,
    Scenario,
    Throughput,
)

ALONE = "network"

_POINT_SHARE = 1 / 3
_POINT_SESSIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What to measure besides latency. batches, thread_counts: where one is empty, that of the conditions.

    against: another network, measured in the same rounds. footprint: cold start and memory, in fresh processes.
    """

    against: Path | None = None
    batches: tuple[int, ...] = ()
    thread_counts: tuple[int, ...] = ()
    scenarios: tuple[str, ...] = ()
    scenario_s: float = 10.0
    footprint: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A `Comparison` with throughput and scenarios; speedup and verdict are None where a network was alone.

    engines: the other network first. aa_ratio: of the first network's sessions.
    """

    schema: int = SCHEMA
    backend: str
    speedup: Interval | None
    verdict: str | None
    aa_ratio: Interval
    sessions: int
    session_percent: float
    estimator: str
    estimator_errors_percent: dict[str, float]
    engines: tuple[EngineFigures, ...]
    device: Device
    conditions: Conditions
    rounds: int
    discarded: tuple[str, ...]
    warmup_s: float
    stopped_because: str
    environment: Environment | None
    notes: tuple[str, ...] = ()
    timed_by: str = WALL
    throughput: tuple[Throughput, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    samples: Arrays = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison | None:
        """The two networks against each other; None where there was one alone."""
        if self.speedup is None:
            return None
        return Comparison(**{one.name: getattr(self, one.name) for one in fields(Comparison)})


def bench(file: Path, at: Bench, extras: Extras | None = None, progress: Progress | None = None) -> Benchmark:
    """Measure one network, and another beside it where that is asked.

    Each point of the throughput takes a third of the budget of the latency, on top of it.
    Raises: CompileError, MeasureError; BackendMissing where scenarios are asked without LoadGen.
    """
    extras = extras or Extras()
    files = {ALONE: file} if extras.against is None else {ORIGINAL: extras.against, NEW: file}
    _check(extras)
    if extras.against is None:
        found = _alone(file, at, extras, progress)
    else:
        pair = compare(extras.against, file, at, progress, footprint=extras.footprint)
        found = Benchmark(**{one.name: getattr(pair, one.name) for one in fields(pair)})
    throughput = _throughput(files, at, extras, progress)
    scenarios, failed = _scenarios(files, at, extras, progress)
    return replace(found, throughput=throughput, scenarios=scenarios, notes=(*found.notes, *failed))


def _check(extras: Extras) -> None:
    """Refuse at once what would fail after minutes."""
    if extras.scenarios:
        from practise_backends.loadgen.run import import_loadgen

        import_loadgen()


def _alone(file: Path, at: Bench, extras: Extras, progress: Progress | None) -> Benchmark:
    """One network against itself."""
    with opened({ORIGINAL: Candidate(model=file, sessions=at.patience.sessions)}, at, progress) as found:
        timings = measure(found, at, progress)
        parts = parts_of(found.engines[ORIGINAL], found.feeds, at.patience.confidence)
    levels = levels_of(timings, at.patience.confidence)
    starts, failed = cold_starts({ORIGINAL: file}, at) if extras.footprint else ({}, ())
    figures = figures_of(
        ORIGINAL,
        found.artifacts[ORIGINAL],
        timings,
        levels,
        file=file,
        cold=starts.get(ORIGINAL),
    )
    names = np.array([ALONE] * len(timings.engines))
    return Benchmark(
        backend=at.backend.name,
        speedup=None,
        verdict=None,
        aa_ratio=levels.noise_floor(),
        sessions=len(found.engines[ORIGINAL]),
        session_percent=levels.session_percent,
        estimator=levels.estimator,
        estimator_errors_percent=levels.errors_percent,
        engines=(replace(figures, name=ALONE, parts_ms=parts),),
        device=at.backend.device(),
        conditions=at.conditions,
        rounds=len(timings.rounds_ms),
        discarded=timings.discarded,
        warmup_s=timings.warmup_s,
        stopped_because=timings.stopped_because,
        environment=timings.environment,
        notes=(*found.notes, *timings.notes, *launch_notes({ALONE: parts}), *failed),
        timed_by=timings.timed_by,
        samples={**raw_samples(timings), "engines": names},
    )


def _throughput(
    files: Mapping[str, Path], at: Bench, extras: Extras, progress: Progress | None
) -> tuple[Throughput, ...]:
    """Images a second at every batch and number of threads that was asked."""
    if not extras.batches and not extras.thread_counts:
        return ()
    patience = replace(at.patience, budget_s=_POINT_SHARE * at.patience.budget_s, sessions=_POINT_SESSIONS)
    batches = extras.batches or (at.conditions.batch,)
    threads = extras.thread_counts or (at.conditions.threads,)
    return measure_throughput(files, replace(at, patience=patience), batches, threads, progress)


def _scenarios(
    files: Mapping[str, Path], at: Bench, extras: Extras, progress: Progress | None
) -> tuple[tuple[Scenario, ...], list[str]]:
    """LoadGen's scenarios, network after network, and why a network's are missing: nothing else is lost for it."""
    if not extras.scenarios:
        return (), []
    from practise_backends.loadgen.run import ScenarioOptions, run_scenarios

    given: dict[str, Any] = {"offline_batch": at.conditions.batch} if at.shapes else {}
    options = ScenarioOptions(
        duration_s=extras.scenario_s, seed=at.conditions.seed, shapes=at.shapes, **given
    )
    found: list[Scenario] = []
    failed: list[str] = []
    for name, path in files.items():
        open_engine = partial(at.backend.open, at.backend.compile(path, at.conditions), at.conditions)
        try:
            found += run_scenarios(open_engine, name, extras.scenarios, options, progress)
        except MeasureError as error:
            failed.append(f"scenarios of {name}: {error.message}")
    return tuple(found), failed
