"""The gate in words: what was demanded, what was found, and what would pass."""

from __future__ import annotations

from collections.abc import Callable

from practise_backends.terms import Interval
from practise_deploy.outcome import Answer, Constraint, FrontierPoint, Gate
from practise_deploy.report.tables import Table
from practise_deploy.report.words import interval, listed, missing, points_lost, times

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
    """Each demand, what was found, and the answer."""
    return Table(
        title="Demands",
        head=("Demand", "Asked", "Found", "Answer", "Why"),
        rows=tuple(_row(one) for one in gate.constraints),
        left=(0, 1, 2, 3, 4),
        note="A loss is kept within the demand where the upper end of its interval is, broken where the estimate is above it, and not "
        "proven between the two. A speed-up is kept where the lower end of its interval reaches the demand, broken where the upper end does not, "
        "and not proven between the two.",
    )


def outcome(gate: Gate) -> str:
    """Kept, or which demands are broken or not proven."""
    answers = {
        answer: [_kind(one.name)[0].lower() for one in gate.constraints if one.answer is answer]
        for answer in (Answer.BROKEN, Answer.NOT_PROVEN)
    }
    told = [f"{answer.value.capitalize()}: {listed(names)}." for answer, names in answers.items() if names]
    return " ".join(told) or "All demands are kept."


def way_out(gate: Gate) -> tuple[str, ...]:
    """The nearest set that passes, and the advice."""
    nearest = (f"The nearest set that passes: {_point(gate.nearest)}.",) if gate.nearest else ()
    return (*nearest, gate.advice) if gate.advice else nearest


def _row(one: Constraint) -> tuple[str, ...]:
    title, asked, said = _kind(one.name)
    found = said(one.found) if one.found else missing("unknown")
    found += ", estimated" if one.estimated else ""
    by_default = ", the default" if one.by_default else ""
    return (title, f"{asked(one.asked)}{by_default}", found, one.answer.value, one.reason)


def _kind(name: str) -> tuple[str, Asked, Said]:
    return _KINDS.get(name, (name.replace("_", " "), lambda asked: f"{asked:g}", interval))


def _point(point: FrontierPoint) -> str:
    saved = interval(point.reduction_percent, "%")
    lost = f", lost {points_lost(point.loss)}" if point.loss else ""
    return f"without {listed(point.dropped)} ({point.recovery}), a reduction of {saved}{lost}"
