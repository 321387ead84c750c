"""All figures of one network, alone or against another: latency, throughput, cold start, memory, scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from practise_backends.errors import MeasureError
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.options import BenchOptions
from practise_backends.results.compare import NEW, measure_engines, verdict_of
from practise_backends.results.throughput import measure_throughput
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.runtimes.catalog import artifact_of
from practise_backends.terms import EngineFigures, Interval, Measurement, Scenario, Throughput

ALONE = "network"

_POINT_SHARE = 1 / 3
_POINT_SESSIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Measurement):
    """A `Comparison` with throughput and scenarios; speedup and verdict are None where a network was alone.

    engines: the other network first. aa_ratio: of the first network's sessions.
    """

    speedup: Interval | None
    verdict: str | None
    sessions: int
    engines: tuple[EngineFigures, ...]
    throughput: tuple[Throughput, ...] = ()
    scenarios: tuple[Scenario, ...] = ()


def bench(
    file: Path, setup: MeasurementSetup, extras: BenchOptions | None = None, progress: Progress | None = None
) -> Benchmark:
    """Measure one network, on request against another in the same rounds.

    extras: what to measure besides latency; how to measure is the setup's.
    Each point of the throughput takes a third of the budget of the latency, on top of it.
    Raises: CompileError, MeasureError; BackendMissing where scenarios are asked without LoadGen.
    """
    extras = extras or BenchOptions()
    files = {ALONE: file} if extras.against is None else {ORIGINAL: extras.against, NEW: file}
    _check(extras)
    engines, estimates = measure_engines(files, setup, progress, footprint=extras.footprint)
    speedup = None if extras.against is None else estimates.speedup(NEW)
    throughput = _throughput(files, setup, extras, progress)
    scenarios, failed = _scenarios(files, setup, extras, progress)
    return Benchmark(
        **engines | {"notes": (*engines["notes"], *failed)},
        speedup=speedup,
        verdict=None if speedup is None else verdict_of(speedup),
        throughput=throughput,
        scenarios=scenarios,
    )


def _check(extras: BenchOptions) -> None:
    """Refuse at once what would fail after minutes."""
    if extras.scenarios:
        from practise_backends.loadgen.run import import_loadgen

        import_loadgen()


def _throughput(
    files: Mapping[str, Path], setup: MeasurementSetup, extras: BenchOptions, progress: Progress | None
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
    files: Mapping[str, Path], setup: MeasurementSetup, extras: BenchOptions, progress: Progress | None
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
