"""The tables of measurements besides the blocks: engines, throughput, predictions, the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from practise_backends.results.render import milliseconds
from practise_backends.terminal import duration
from practise_backends.terms import (
    WALL,
    Comparison,
    EngineFigures,
    Environment,
    Interval,
    LatencyTable,
    Scenario,
    Throughput,
)
from practise_deploy.outcome import Release
from practise_deploy.report.formatting import (
    ABSENT,
    interval,
    listed,
    missing,
    number,
    plural,
    quantity,
)
from practise_deploy.report.tables import ELSEWHERE, Table

_NOT_MEASURED = "not measured here"
_NOT_READ = "this platform does not tell"
_UNSUPPORTED = "not determined by these samples"


def bench(comparison: Comparison) -> Table:
    """The figures of the engines, one column each."""
    figures, unit = comparison.engines, milliseconds(comparison.timed_by)
    rows = (
        (f"p50, {unit}", *(interval(engine.p50_ms, absent=_UNSUPPORTED) for engine in figures)),
        (f"p90, {unit}", *(interval(engine.p90_ms, absent=_UNSUPPORTED) for engine in figures)),
        (f"p99, {unit}", *(interval(engine.p99_ms, absent=_UNSUPPORTED) for engine in figures)),
        ("Throughput, images/s", *(number(engine.throughput_per_s) for engine in figures)),
        ("Load, ms", *(quantity(engine.load_ms, "", absent=_NOT_MEASURED) for engine in figures)),
        ("First run, ms", *(quantity(engine.first_run_ms, "", absent=_NOT_MEASURED) for engine in figures)),
        ("Peak memory, MB", *(quantity(engine.peak_memory_mb, "", absent=_NOT_MEASURED) for engine in figures)),
        *_parts(figures),
        ("File, MB", *(number(engine.file_mb) for engine in figures)),
        ("Precision", *(_precision(engine) for engine in figures)),
    )
    head = ("Figure", *(engine.name for engine in figures))
    note = (
        "All figures are of the rounds that count: discarded ones are not among them. p50 is the latency in the median round, the same "
        "for both, so that the two differ by the speed-up; the other percentiles are of one run. Brackets hold the interval. "
        "All sessions of both networks were loaded and took turns; alone an engine may be a little faster."
    )
    return Table(title="Engines in paired rounds", head=head, rows=rows, note=note)


def _parts(figures: Sequence[EngineFigures]) -> Iterator[tuple[str, ...]]:
    """A row for every part of a run that an engine reports."""
    for name in dict.fromkeys(part for engine in figures for part in engine.parts_ms):
        title = name.removesuffix("_ms").replace("_", " ").capitalize()
        yield (f"{title}, ms", *(interval(engine.parts_ms.get(name), absent=_NOT_MEASURED) for engine in figures))


def before_and_after(comparison: Comparison) -> tuple[EngineFigures, EngineFigures] | None:
    """The original's figures and the release's."""
    return (comparison.engines[0], comparison.engines[-1]) if len(comparison.engines) > 1 else None


def throughput(throughputs: Sequence[Throughput]) -> Table:
    """Images a second by batch and threads."""
    return Table(
        title="Throughput by batch and threads",
        head=("Batch", "Threads", "Engine", "Images/s", "Latency of one run, ms"),
        rows=tuple(
            (
                f"{point.batch:,}",
                f"{point.threads:,}",
                point.engine,
                interval(point.images_per_s, absent=point.refused or _NOT_MEASURED),
                interval(point.latency_ms, absent="" if point.refused else _NOT_MEASURED)
                + ("" if point.timed_by == WALL else f", {point.timed_by}"),
            )
            for point in sorted(throughputs, key=lambda point: (point.batch, point.threads))
        ),
        left=(0, 2),
        note="Requests follow one another; latency is that of one run of the whole batch in the median round.",
    )


def scenarios(results: Sequence[Scenario]) -> Table:
    """The results of MLPerf LoadGen."""
    return Table(
        title="MLPerf LoadGen",
        head=("Scenario", "Engine", "Figure", "Queries", "Latencies, ms", "Valid", "Settings"),
        rows=tuple(
            (
                scenario.scenario,
                scenario.engine,
                f"{number(scenario.metric)} {scenario.unit}",
                f"{scenario.queries:,}",
                "; ".join(f"{name} {number(value)}" for name, value in scenario.latency_ms.items()) or ABSENT,
                "yes" if scenario.valid else f"no: {'; '.join(scenario.problems) or 'no reason given'}",
                "; ".join(f"{name} {value}" for name, value in scenario.settings.items()) or ABSENT,
            )
            for scenario in results
        ),
        left=(0, 1, 4, 5, 6),
        note="Valid is LoadGen's own word under these settings; its durations are shorter than a submission's.",
    )


def reduction(speedup: Interval | None) -> Interval | None:
    """The reduction of latency in percent; None if the speed-up is unknown or not positive."""
    if speedup is None:
        return None
    ends = (speedup.estimate, speedup.low, speedup.high)
    if not all(end > 0 for end in ends):
        return None
    estimate, low, high = (100 * (1 - 1 / end) for end in ends)
    return Interval(estimate=estimate, low=low, high=high, confidence=speedup.confidence)


def predictions(release: Release) -> Table:
    """Predicted and measured reduction of every set of blocks."""
    plan = release.plan
    sets = [
        (
            listed(check.dropped),
            "a set to check the table",
            f"{number(check.predicted_percent)}%",
            check.measured_percent,
        )
        for check in release.latency.sets
    ]
    attempts = [
        (
            listed(attempt.dropped),
            "an attempt of the plan",
            interval(attempt.predicted_percent, "%"),
            attempt.measured_percent,
        )
        for attempt in plan.attempts
    ]
    final = (listed(plan.dropped), "the release", interval(plan.predicted_percent, "%"), reduction(release.speedup))
    return Table(
        title="Predicted and measured",
        head=("Dropped together", "What it was", "Predicted reduction", "Measured reduction"),
        rows=tuple(
            (*labels, interval(measured, "%", absent=ELSEWHERE)) for *labels, measured in (*sets, *attempts, final)
        ),
        left=(0, 1),
        strong=(len(sets) + len(attempts),),
        note="Predictions add up the single savings of the table, those of the plan times how far savings add up"
        + ("." if release.bench is None else "; the release was measured against the original."),
    )


def checks(table: LatencyTable) -> Table:
    """Whether savings add up, and whether structurally equal blocks cost the same."""
    twins = [
        (
            f"{listed(twin.blocks)} cost the same (latency class {twin.latency_class})",
            f"differ by {interval(twin.difference_percent, '% of the whole')}",
            "yes" if twin.same else "no",
        )
        for twin in table.twins
    ]
    total = interval(table.additivity, absent="no set was measured")
    adds = ("Savings add up", f"measured over predicted: {total}", _adds_up(table.additivity))
    return Table(title="Checks of the table", head=("Claim", "Found", "Holds"), rows=(adds, *twins), left=(0, 1, 2))


def environments(release: Release) -> Table:
    """The state of the machine during the measurements, and what it means."""
    pair = (release.latency.environment, None if release.bench is None else release.bench.environment)
    rows = [
        (
            title,
            *(missing("not recorded") if environment is None else read(environment) for environment in pair),
            meaning,
        )
        for title, read, meaning in _READINGS
    ]
    names = dict.fromkeys(name for environment in pair if environment for name in environment.gpu)
    rows += [
        (
            name,
            *(environment.gpu.get(name, ABSENT) if environment else ABSENT for environment in pair),
            "read from the GPU",
        )
        for name in names
    ]
    head = ("Reading", "While blocks were measured", "In the bench", "What it means")
    return Table(title="The machine while it was measured", head=head, rows=tuple(rows), left=(0, 3))


def _precision(engine: EngineFigures) -> str:
    if engine.precision_share is None:
        return engine.precision
    return f"{engine.precision} in {number(100 * engine.precision_share)}% of the layers"


def _adds_up(additivity: Interval | None) -> str:
    if additivity is None:
        return ABSENT
    if additivity.low <= 1 <= additivity.high:
        return "yes"
    return "no: together they save less" if additivity.high < 1 else "no: together they save more"


def _ends(bounds: tuple[float, float] | None, unit: str) -> str:
    return missing(_NOT_READ) if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}{unit}"


def _load(environment: Environment) -> str:
    if environment.load is None:
        return missing(_NOT_READ)
    return f"{number(environment.load[0])} before, {number(environment.load[1])} after"


def _stops(stops: int | None) -> str:
    return missing(_NOT_READ) if stops is None else plural(stops, "stop")


_READINGS = (
    ("Time", lambda environment: duration(environment.seconds), "how long the readings below were taken"),
    (
        "Load",
        _load,
        "programs competing for a core, ours included; with more than there are cores, they wait for each other",
    ),
    (
        "Steal",
        lambda environment: quantity(environment.steal_percent, "%", absent=_NOT_READ),
        "time that a hypervisor gave to others; above 1% a latency here says little of an idle machine",
    ),
    (
        "Quota",
        lambda environment: _stops(environment.quota_stops),
        "how often a container's quota stopped us; such rounds are discarded",
    ),
    (
        "Heat",
        lambda environment: _stops(environment.heat_stops),
        "how often heat slowed the processor; such rounds are discarded",
    ),
    (
        "Clock",
        lambda environment: _ends(environment.clock_mhz, " MHz"),
        "a wide range is drift, which paired rounds cancel",
    ),
    ("Temperature", lambda environment: _ends(environment.temperature_c, " °C"), "lowest and highest reading"),
)
