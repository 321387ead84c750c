"""All figures of one network, alone or against another: latency, throughput, cold start, memory, scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from practise_backends.errors import MeasureError
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.results.breakdown import launch_notes, parts_of
from practise_backends.results.compare import NEW, cold_starts, compare, figures_of
from practise_backends.results.throughput import measure_throughput
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL, raw_samples
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.catalog import artifact_of
from practise_backends.terms import (
    SCHEMA,
    WALL,
    Arrays,
    Comparison,
    Conditions,
    Device,
    EngineFigures,
    Environment,
    Interval,
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
        return Comparison(**{f.name: getattr(self, f.name) for f in fields(Comparison)})


def bench(
    file: Path, setup: MeasurementSetup, extras: Extras | None = None, progress: Progress | None = None
) -> Benchmark:
    """Measure one network, on request against another in the same rounds.

    Each point of the throughput takes a third of the budget of the latency, on top of it.
    Raises: CompileError, MeasureError; BackendMissing where scenarios are asked without LoadGen.
    """
    extras = extras or Extras()
    files = {ALONE: file} if extras.against is None else {ORIGINAL: extras.against, NEW: file}
    _check(extras)
    if extras.against is None:
        benchmark = _alone(file, setup, extras, progress)
    else:
        comparison = compare(extras.against, file, setup, progress, footprint=extras.footprint)
        benchmark = Benchmark(**{f.name: getattr(comparison, f.name) for f in fields(comparison)})
    throughput = _throughput(files, setup, extras, progress)
    scenarios, failed = _scenarios(files, setup, extras, progress)
    return replace(benchmark, throughput=throughput, scenarios=scenarios, notes=(*benchmark.notes, *failed))


def _check(extras: Extras) -> None:
    """Refuse at once what would fail after minutes."""
    if extras.scenarios:
        from practise_backends.loadgen.run import import_loadgen

        import_loadgen()


def _alone(file: Path, setup: MeasurementSetup, extras: Extras, progress: Progress | None) -> Benchmark:
    """One network against itself."""
    with opened(
        {ORIGINAL: Candidate(model=file, sessions=setup.stopping_rule.sessions)}, setup, progress
    ) as networks:
        timings = measure(networks, setup, progress)
        parts = parts_of(networks.engines[ORIGINAL], networks.feeds, setup.stopping_rule.confidence)
    estimates = estimate_latencies(timings, setup.stopping_rule.confidence)
    starts, failed = cold_starts({ORIGINAL: file}, setup) if extras.footprint else ({}, ())
    figures = figures_of(
        ORIGINAL,
        networks.artifacts[ORIGINAL],
        timings,
        estimates,
        file=file,
        cold=starts.get(ORIGINAL),
    )
    names = np.array([ALONE] * len(timings.engines))
    return Benchmark(
        backend=setup.backend.name,
        speedup=None,
        verdict=None,
        aa_ratio=estimates.noise_floor(),
        sessions=len(networks.engines[ORIGINAL]),
        session_percent=estimates.session_percent,
        estimator=estimates.estimator,
        estimator_errors_percent=estimates.errors_percent,
        engines=(replace(figures, name=ALONE, parts_ms=parts),),
        device=setup.backend.device(),
        conditions=setup.conditions,
        rounds=len(timings.rounds_ms),
        discarded=timings.discarded,
        warmup_s=timings.warmup_s,
        stopped_because=timings.stopped_because,
        environment=timings.environment,
        notes=(*networks.notes, *timings.notes, *launch_notes({ALONE: parts}), *failed),
        timed_by=timings.timed_by,
        samples={**raw_samples(timings), "engines": names},
    )


def _throughput(
    files: Mapping[str, Path], setup: MeasurementSetup, extras: Extras, progress: Progress | None
) -> tuple[Throughput, ...]:
    """Images a second at every batch and number of threads that was asked."""
    if not extras.batches and not extras.thread_counts:
        return ()
    rule = replace(
        setup.stopping_rule, budget_s=_POINT_SHARE * setup.stopping_rule.budget_s, sessions=_POINT_SESSIONS
    )
    batches = extras.batches or (setup.conditions.batch,)
    threads = extras.thread_counts or (setup.conditions.threads,)
    return measure_throughput(files, replace(setup, stopping_rule=rule), batches, threads, progress)


def _scenarios(
    files: Mapping[str, Path], setup: MeasurementSetup, extras: Extras, progress: Progress | None
) -> tuple[tuple[Scenario, ...], list[str]]:
    """LoadGen's scenarios, network after network, and why a network's are missing: nothing else is lost for it."""
    if not extras.scenarios:
        return (), []
    from practise_backends.loadgen.run import ScenarioOptions, run_scenarios

    batch_options: dict[str, Any] = {"offline_batch": setup.conditions.batch} if setup.shapes else {}
    options = ScenarioOptions(
        duration_s=extras.scenario_s, seed=setup.conditions.seed, shapes=setup.shapes, **batch_options
    )
    scenarios: list[Scenario] = []
    failed: list[str] = []
    for name, path in files.items():
        open_engine = partial(
            setup.backend.open,
            artifact_of(setup.backend, path, setup.conditions, shapes=setup.shapes),
            setup.conditions,
        )
        try:
            scenarios += run_scenarios(open_engine, name, extras.scenarios, options, progress)
        except MeasureError as error:
            failed.append(f"scenarios of {name}: {error.message}")
    return tuple(scenarios), failed
