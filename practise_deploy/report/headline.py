"""The headline figures: speed-up, latency, accuracy and dropped blocks."""

from __future__ import annotations

from dataclasses import dataclass

from practise_backends.choices import Precision
from practise_backends.results.formatting import conditions, interval, listed, missing, number, plural, rounds
from practise_backends.terms import WALL
from practise_deploy.outcome import Release
from practise_deploy.planning.measures import accuracy_title, agreement_text, loss_title
from practise_deploy.report import tables
from practise_deploy.report.formatting import NOT_RUN, lost_or_gained, times


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A headline figure."""

    title: str
    text: str
    detail: str = ""


def headline(release: Release) -> tuple[Figure, ...]:
    """Speed-up, latency, accuracy and blocks."""
    return (speed(release), _latency(release), quality(release), _dropped(release))


def quality(release: Release) -> Figure:
    """Accuracy before and after, or the estimated loss without labels."""
    verification = release.verification
    change = tables.accuracy_change(verification)
    if change:
        before, after = (interval(accuracy.percent, "%") for accuracy in change)
        return Figure(
            title=accuracy_title(release.network.task.kind),
            text=f"{before} → {after}",
            detail=f"{_images(release)}; {_lost(release)}",
        )
    if verification.loss is None:
        text = missing("no answers to the task")
        return Figure(title="Accuracy lost", text=text, detail=_images(release))
    loss = verification.loss
    agreement = agreement_text(loss.kind, interval(loss.agreement_percent, "%"))
    title, unlabelled = loss_title(of_accuracy=loss.of_accuracy), ", no labels" if loss.estimated else ""
    text = interval(loss.points, " points")
    return Figure(
        title=f"{title}, estimated" if loss.estimated else title,
        text=text,
        detail=f"{_images(release)}{unlabelled}; {agreement}",
    )


def latency_change(release: Release) -> str:
    """Latency before and after, in the median round of the bench."""
    if release.bench is None:
        return missing(NOT_RUN)
    figures, fp32 = release.bench.engines, release.bench.fp32
    if release.plan.over_fp32 and fp32 is not None:
        figures = (fp32.engine, *figures[1:])
    if len(figures) < 2:
        return missing("the bench holds no pair of engines")
    ends = (interval(engine.p50_ms, " ms", absent="too few samples") for engine in (figures[0], figures[-1]))
    return " → ".join(ends)


def latency_title(release: Release) -> str:
    """The title of the latencies, with the clock if it is not wall time."""
    clock = release.measured_on.timed_by
    return "Latency, p50" + ("" if clock == WALL else f" of {clock}")


def speed(release: Release) -> Figure:
    """The speed-up, or the predicted reduction if the engine has not run."""
    speedup = release.speedup
    if speedup is None:
        predicted = interval(release.plan.predicted_percent, "%")
        return Figure(
            title="Less latency, predicted", text=predicted, detail=f"from the table of {release.plan.device}"
        )
    less = f"{number(100 * (1 - 1 / speedup.estimate))}% less time per run" if speedup.estimate > 0 else ""
    precision, bench = release.compiled.precision, release.bench
    over = "" if precision == Precision.FP32 else f", over the original in {precision}"
    if bench is not None and bench.fp32 is not None:
        other = f"{times(bench.fp32.speedup)} over the original in fp32"
        if release.plan.over_fp32:
            over, other = ", over the original in fp32", f"{times(bench.speedup)} over it in {precision}"
        over += f"; {other}"
    return Figure(title="Speed-up", text=times(speedup), detail=f"{less}{over}; {rounds(release.measured_on)}")


def _latency(release: Release) -> Figure:
    measurement = release.measured_on
    detail = f"{conditions(measurement)}; {measurement.device.name or 'unnamed device'}"
    return Figure(title=latency_title(release), text=latency_change(release), detail=detail)


def _dropped(release: Release) -> Figure:
    plan = release.plan
    of = f" of {len(release.latency.savings)}" if release.latency.savings else ""
    return Figure(title="Blocks dropped", text=f"{len(plan.dropped)}{of}", detail=listed(plan.dropped))


def _images(release: Release) -> str:
    return f"on {plural(release.verification.images, f'held-out {release.network.task.sample}')}"


def _lost(release: Release) -> str:
    return lost_or_gained(release.verification.loss)
