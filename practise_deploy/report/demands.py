"""The gate in words: what was demanded, what was found, and what would pass."""

from __future__ import annotations

from collections.abc import Callable

from practise_backends.terms import Interval
from practise_deploy.report.tables import Table
from practise_deploy.report.words import interval, listed, missing, times
from practise_deploy.terms import Constraint, FrontierPoint, Gate

Asked = Callable[[float], str]
Said = Callable[[Interval], str]

_KINDS: dict[str, tuple[str, Asked, Said]] = {  # by the constraint's name: its title, the demand, the figure
    "min_speedup": ("Speed-up", lambda asked: f"at least {asked:g}×", times),
    "max_drop": (
        "Accuracy lost",
        lambda asked: f"at most {asked:g} {'point' if asked == 1 else 'points'}",
        lambda found: interval(found, " points"),
    ),
}


def demands(gate: Gate) -> Table:
    """Each demand, what was found, and whether the bad end of it passes."""
    return Table(
        title="Demands",
        head=("Demand", "Asked", "Found", "Passed", "Why"),
        rows=tuple(_row(one) for one in gate.constraints),
        left=(0, 1, 2, 3, 4),
        note="Judged at the bad end of the interval.",
    )


def outcome(gate: Gate) -> str:
    """Passed, or which demands failed."""
    failed = [_kind(one.name)[0].lower() for one in gate.constraints if not one.passed]
    return "All demands passed." if gate.passed else f"Failed: {listed(failed, none='no demand was judged')}."


def way_out(gate: Gate) -> tuple[str, ...]:
    """The nearest set that passes, and the advice."""
    nearest = (f"The nearest set that passes: {_point(gate.nearest)}.",) if gate.nearest else ()
    return (*nearest, gate.advice) if gate.advice else nearest


def _row(one: Constraint) -> tuple[str, ...]:
    title, asked, said = _kind(one.name)
    found = said(one.found) if one.found else missing("unknown, which fails")
    return (title, asked(one.asked), found, "yes" if one.passed else "no", one.reason)


def _kind(name: str) -> tuple[str, Asked, Said]:
    return _KINDS.get(name, (name.replace("_", " "), lambda asked: f"{asked:g}", interval))


def _point(point: FrontierPoint) -> str:
    saved = interval(point.reduction_percent, "%")
    lost = f", {interval(point.drop_points, ' points')} lost" if point.drop_points else ""
    return f"without {listed(point.dropped)} ({point.recovery}), a reduction of {saved}{lost}"
