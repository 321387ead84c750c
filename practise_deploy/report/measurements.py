"""The tables of what was measured beside the blocks: engines, throughput, predictions, the machine itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from practise_backends.results.render import milliseconds
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
from practise_deploy.report.tables import ELSEWHERE, Table
from practise_deploy.report.words import (
    ABSENT,
    duration,
    interval,
    listed,
    missing,
    number,
    plural,
    quantity,
)

_NOT_TOLD = "not measured here"
_NOT_READ = "this platform does not tell"
_UNTOLD = "not told by these samples"


def bench(found: Comparison) -> Table:
    """The engines' figures side by side, one engine a column."""
    figures, unit = found.engines, milliseconds(found.timed_by)
    rows = (
        (f"p50, {unit}", *(interval(one.p50_ms, absent=_UNTOLD) for one in figures)),
        (f"p90, {unit}", *(interval(one.p90_ms, absent=_UNTOLD) for one in figures)),
        (f"p99, {unit}", *(interval(one.p99_ms, absent=_UNTOLD) for one in figures)),
        ("Throughput, images/s", *(number(one.throughput_per_s) for one in figures)),
        ("Load, ms", *(quantity(one.load_ms, "", absent=_NOT_TOLD) for one in figures)),
        ("First run, ms", *(quantity(one.first_run_ms, "", absent=_NOT_TOLD) for one in figures)),
        ("Peak memory, MB", *(quantity(one.peak_memory_mb, "", absent=_NOT_TOLD) for one in figures)),
        *_parts(figures),
        ("File, MB", *(number(one.file_mb) for one in figures)),
        ("Precision", *(_precision(one) for one in figures)),
    )
    head = ("Figure", *(one.name for one in figures))
    note = (
        "All figures are of the rounds that count: discarded ones are not among them. p50 is the latency in the median round, the same "
        "for both, so that the two differ by the speed-up; the other percentiles are of one run. Brackets hold the interval. "
        "All sessions of both networks were loaded and took turns; alone an engine may be a little faster."
    )
    return Table(title="Engines in paired rounds", head=head, rows=rows, note=note)


def _parts(figures: Sequence[EngineFigures]) -> Iterator[tuple[str, ...]]:
    """A row for every part of a run that an engine tells."""
    for name in dict.fromkeys(part for one in figures for part in one.parts_ms):
        said = name.removesuffix("_ms").replace("_", " ").capitalize()
        yield (f"{said}, ms", *(interval(one.parts_ms.get(name), absent=_NOT_TOLD) for one in figures))


def before_and_after(found: Comparison) -> tuple[EngineFigures, EngineFigures] | None:
    """The original's figures and the release's."""
    return (found.engines[0], found.engines[-1]) if len(found.engines) > 1 else None


def throughput(found: Sequence[Throughput]) -> Table:
    """Images a second by batch and threads."""
    return Table(
        title="Throughput by batch and threads",
        head=("Batch", "Threads", "Engine", "Images/s", "Latency of one run, ms"),
        rows=tuple(
            (
                f"{one.batch:,}",
                f"{one.threads:,}",
                one.engine,
                interval(one.images_per_s, absent=one.refused or _NOT_TOLD),
                interval(one.latency_ms, absent="" if one.refused else _NOT_TOLD)
                + ("" if one.timed_by == WALL else f", {one.timed_by}"),
            )
            for one in sorted(found, key=lambda one: (one.batch, one.threads))
        ),
        left=(0, 2),
        note="Requests follow one another; latency is that of one run of the whole batch in the median round.",
    )


def scenarios(found: Sequence[Scenario]) -> Table:
    """What MLPerf LoadGen says, in its own words."""
    return Table(
        title="MLPerf LoadGen",
        head=("Scenario", "Engine", "Figure", "Queries", "Latencies, ms", "Valid", "Settings"),
        rows=tuple(
            (
                one.scenario,
                one.engine,
                f"{number(one.metric)} {one.unit}",
                f"{one.queries:,}",
                "; ".join(f"{name} {number(value)}" for name, value in one.latency_ms.items()) or ABSENT,
                "yes" if one.valid else f"no: {'; '.join(one.problems) or 'no reason given'}",
                "; ".join(f"{name} {value}" for name, value in one.settings.items()) or ABSENT,
            )
            for one in found
        ),
        left=(0, 1, 4, 5, 6),
        note="Valid is LoadGen's own word under these settings; its durations are shorter than a submission's.",
    )


def reduction(speedup: Interval | None) -> Interval | None:
    """The part of the latency that is gone, in percent; None where the ratio is not known or no positive number."""
    if speedup is None:
        return None
    ends = (speedup.estimate, speedup.low, speedup.high)
    if not all(end > 0 for end in ends):
        return None
    estimate, low, high = (100 * (1 - 1 / end) for end in ends)
    return Interval(estimate=estimate, low=low, high=high, confidence=speedup.confidence)


def predictions(release: Release) -> Table:
    """Every set of blocks whose saving was predicted from the table, and what was measured."""
    plan = release.plan
    sets = [
        (listed(one.dropped), "a set to check the table", f"{number(one.predicted_percent)}%", one.measured_percent)
        for one in release.latency.sets
    ]
    tried = [
        (listed(one.dropped), "an attempt of the plan", interval(one.predicted_percent, "%"), one.measured_percent)
        for one in plan.attempts
    ]
    final = (listed(plan.dropped), "the release", interval(plan.predicted_percent, "%"), reduction(release.speedup))
    return Table(
        title="Predicted and measured",
        head=("Dropped together", "What it was", "Predicted reduction", "Measured reduction"),
        rows=tuple((*told, interval(measured, "%", absent=ELSEWHERE)) for *told, measured in (*sets, *tried, final)),
        left=(0, 1),
        strong=(len(sets) + len(tried),),
        note="Predictions add up the single savings of the table, those of the plan times how far savings add up"
        + ("." if release.bench is None else "; the release was measured against the original."),
    )


def checks(found: LatencyTable) -> Table:
    """Do savings add up, and do alike blocks cost the same?"""
    twins = [
        (
            f"{listed(one.blocks)} cost the same (latency class {one.latency_class})",
            f"differ by {interval(one.difference_percent, '% of the whole')}",
            "yes" if one.same else "no",
        )
        for one in found.twins
    ]
    total = interval(found.additivity, absent="no set was measured")
    adds = ("Savings add up", f"measured over predicted: {total}", _adds_up(found.additivity))
    return Table(title="Checks of the table", head=("Claim", "Found", "Holds"), rows=(adds, *twins), left=(0, 1, 2))


def environments(release: Release) -> Table:
    """What else the machine did while it was measured, and what that means."""
    pair = (release.latency.environment, None if release.bench is None else release.bench.environment)
    rows = [
        (title, *(missing("not recorded") if one is None else read(one) for one in pair), meaning)
        for title, read, meaning in _READINGS
    ]
    names = dict.fromkeys(name for one in pair if one for name in one.gpu)
    rows += [
        (name, *(one.gpu.get(name, ABSENT) if one else ABSENT for one in pair), "read from the GPU") for name in names
    ]
    head = ("Reading", "While blocks were measured", "In the bench", "What it means")
    return Table(title="The machine while it was measured", head=head, rows=tuple(rows), left=(0, 3))


def _precision(one: EngineFigures) -> str:
    if one.precision_share is None:
        return one.precision
    return f"{one.precision} in {number(100 * one.precision_share)}% of the layers"


def _adds_up(additivity: Interval | None) -> str:
    if additivity is None:
        return ABSENT
    if additivity.low <= 1 <= additivity.high:
        return "yes"
    return "no: together they save less" if additivity.high < 1 else "no: together they save more"


def _ends(found: tuple[float, float] | None, unit: str) -> str:
    return missing(_NOT_READ) if found is None else f"{number(found[0])} to {number(found[1])}{unit}"


def _load(one: Environment) -> str:
    if one.load is None:
        return missing(_NOT_READ)
    return f"{number(one.load[0])} before, {number(one.load[1])} after"


def _stops(found: int | None) -> str:
    return missing(_NOT_READ) if found is None else plural(found, "stop")


_READINGS = (
    ("Time", lambda one: duration(one.seconds), "how long the readings below were taken"),
    ("Load", _load, "programs that wanted a core, ours included; more than the cores: they waited for each other"),
    (
        "Steal",
        lambda one: quantity(one.steal_percent, "%", absent=_NOT_READ),
        "time that a hypervisor gave to others; above 1% a latency here says little of an idle machine",
    ),
    (
        "Quota",
        lambda one: _stops(one.quota_stops),
        "how often a container's quota stopped us; such rounds are discarded",
    ),
    ("Heat", lambda one: _stops(one.heat_stops), "how often heat slowed the processor; such rounds are discarded"),
    ("Clock", lambda one: _ends(one.clock_mhz, " MHz"), "a wide range is drift, which paired rounds cancel"),
    ("Temperature", lambda one: _ends(one.temperature_c, " °C"), "lowest and highest reading"),
)
