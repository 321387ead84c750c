"""The gate as a table and sentences: the requirements, the figures, and what would pass."""

from __future__ import annotations

from collections.abc import Callable

from practise_backends.results.formatting import interval, listed, missing
from practise_backends.results.tables import Table
from practise_backends.terms import Interval
from practise_deploy.outcome import Answer, Criterion, FrontierPoint, GateResult
from practise_deploy.planning.measures import loss_title
from practise_deploy.report.formatting import count_of_points, lost_or_gained, times

FormatRequirement = Callable[[float], str]
FormatFigure = Callable[[Interval], str]

_FORMATS: dict[str, tuple[str, FormatRequirement, FormatFigure]] = {  # constraint -> title, requirement, figure
    "min_speedup": ("Speed-up", lambda ratio: f"at least {ratio:g}×", times),
    "max_drop": (
        "Accuracy lost",
        lambda points: f"at most {count_of_points(points)}",
        lambda loss: interval(loss, " points"),
    ),
}


def demands(gate: GateResult) -> Table:
    """Each requirement, its figure, and the answer."""
    return Table(
        title="Requirements",
        head=("Requirement", "Required", "Measured", "Answer", "Reason"),
        rows=tuple(_row(constraint) for constraint in gate.constraints),
        left=(0, 1, 2, 3, 4),
        note="A limit on the loss is kept if the upper end of the interval is within it, broken if the estimate is above it, and otherwise not "
        "proven. A required speed-up is kept if the lower end of the interval reaches it, broken if the upper end does not, and otherwise not "
        "proven.",
    )


def outcome(gate: GateResult) -> str:
    """A sentence: all requirements kept, or which are broken or not proven."""
    answers = {
        answer: [
            _format_of(constraint.name)[0].lower() for constraint in gate.constraints if constraint.answer is answer
        ]
        for answer in (Answer.BROKEN, Answer.NOT_PROVEN)
    }
    sentences = [f"{answer.value.capitalize()}: {listed(names)}." for answer, names in answers.items() if names]
    return " ".join(sentences) or "All requirements are met."


def alternatives(gate: GateResult) -> tuple[str, ...]:
    """The nearest set that passes, and the advice."""
    nearest = (f"The nearest set that passes: {_point(gate.nearest)}.",) if gate.nearest else ()
    return (*nearest, gate.advice) if gate.advice else nearest


def _row(constraint: Criterion) -> tuple[str, ...]:
    title, format_requirement, format_figure = _format_of(constraint.name)
    title = title if constraint.name != "max_drop" else loss_title(of_accuracy=constraint.of_accuracy)
    figure = format_figure(constraint.measured) if constraint.measured else missing("unknown")
    figure += ", estimated" if constraint.estimated else ""
    by_default = ", the default" if constraint.by_default else ""
    return (
        title,
        f"{format_requirement(constraint.required)}{by_default}",
        figure,
        constraint.answer.value,
        constraint.reason,
    )


def _format_of(name: str) -> tuple[str, FormatRequirement, FormatFigure]:
    return _FORMATS.get(name, (name.replace("_", " "), lambda required: f"{required:g}", interval))


def _point(point: FrontierPoint) -> str:
    saved = interval(point.reduction_percent, "%")
    lost = f", {lost_or_gained(point.loss)}" if point.loss else ""
    return f"without {listed(point.dropped)} ({point.recovery}), a reduction of {saved}{lost}"
