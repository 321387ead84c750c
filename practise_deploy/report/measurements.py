"""The tables of measurements besides the blocks: engines, throughput, predictions, the machine."""

from __future__ import annotations

from practise_backends.results.formatting import ABSENT, interval, listed, missing, number, plural, quantity
from practise_backends.results.tables import Table
from practise_backends.terminal import duration
from practise_backends.terms import (
    Environment,
    Interval,
    LatencyTable,
)
from practise_deploy.outcome import Release
from practise_deploy.report.tables import ELSEWHERE

_NOT_READ = "this platform does not tell"


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
        note=(
            "Predictions are sums of the savings in the table; those of the plan are multiplied by the measured "
            "additivity"
        )
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
    return Table(title="Checks of the table", head=("Claim", "Measured", "Holds"), rows=(adds, *twins), left=(0, 1, 2))


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
    return Table(title="The machine during the measurement", head=head, rows=tuple(rows), left=(0, 3))


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
    ("Time", lambda environment: duration(environment.seconds), "duration of the readings below"),
    (
        "Load",
        _load,
        "programs competing for a core, ours included; with more than there are cores, they wait for each other",
    ),
    (
        "Steal",
        lambda environment: quantity(environment.steal_percent, "%", absent=_NOT_READ),
        ("time that the hypervisor gave to other guests; above 1%, latencies here say little about an idle machine"),
    ),
    (
        "Quota",
        lambda environment: _stops(environment.quota_stops),
        "how often a container quota stopped this process; these rounds are discarded",
    ),
    (
        "Heat",
        lambda environment: _stops(environment.heat_stops),
        "how often heat slowed the processor; these rounds are discarded",
    ),
    (
        "Clock",
        lambda environment: _ends(environment.clock_mhz, " MHz"),
        "a wide range is drift, which paired rounds cancel",
    ),
    ("Temperature", lambda environment: _ends(environment.temperature_c, " °C"), "lowest and highest reading"),
)
