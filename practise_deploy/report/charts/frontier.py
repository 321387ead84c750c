"""The latency-accuracy frontier: the saving of each set of blocks against the accuracy without them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from practise_backends.choices import Precision
from practise_backends.results.formatting import interval, listed, missing, plural
from practise_backends.results.tables import Table
from practise_backends.terms import Interval
from practise_deploy.outcome import FrontierPoint, Release
from practise_deploy.planning.measures import accuracy_title, agreement_title, loss_title
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Curve, Key, Mark
from practise_deploy.report.formatting import lost_or_gained, points_lost

PATH = "closed form"
_LOOKS = {PATH: ("new", "ring"), "finetuned": ("new", "diamond"), "none": ("soft", "cross")}
_NOWHERE = Interval(estimate=math.nan, low=math.nan, high=math.nan, confidence=1.0)
_ORIGINAL = Interval(estimate=100.0, low=100.0, high=100.0, confidence=1.0)


def frontier(release: Release) -> Chart | None:
    """Reduction against accuracy, or against agreement without labels; None if there is no point."""
    points = [point for point in release.frontier.points if point.dropped and _finite(point, release)]
    if not points:
        return None
    marks = [_original(release), *(_mark(point, release) for point in points)]
    x_ends = [end for mark in marks for end in mark.x_bar or (mark.x,)]
    y_ends = [end for mark in marks for end in mark.y_bar or (mark.y,)]
    low, high = spanned([0.0, *x_ends])
    y_low, y_high = spanned(y_ends, within=(0.0, 101.0))
    what = _measure(release)
    return Chart(
        name="frontier",
        title=f"Latency saved against {what}",
        description=f"Measured reduction of latency against {what}, one point per set of blocks; the table holds the numbers",
        x=Axis(title="reduction of latency (right is better)", low=low, high=high, unit="%"),
        y=Axis(title=f"{what} (high is better)", low=y_low, high=y_high, unit="%"),
        marks=tuple(sorted(marks, key=lambda mark: mark.tone != "old")),
        curves=(_path(release, points),),
        keys=_keys(points),
        note="Bars show intervals that are wider than the marker; the line joins the sets recovered in closed form.",
    )


def frontier_table(release: Release) -> Table:
    """Every evaluated set."""
    evaluated = release.frontier
    points = [point for point in evaluated.points if point.dropped]
    labelled = any(point.accuracy for point in points)
    kind = release.network.task.kind
    accuracy_head = (accuracy_title(kind),) if labelled else ()
    of_accuracy = all(point.loss.of_accuracy for point in points if point.loss)
    head = (
        "Dropped",
        "Recovery",
        "Reduction",
        agreement_title(kind),
        *accuracy_head,
        loss_title(of_accuracy=of_accuracy),
        "Blocks",
    )
    return Table(
        title="The chosen set and its neighbours",
        head=head,
        rows=tuple(_row(point, labelled) for point in points),
        left=(0, 1, len(head) - 1),
        strong=tuple(index for index, point in enumerate(points) if point.chosen),
        note=f"Evaluated on {plural(evaluated.images, 'held-out image')}, recovered on {evaluated.fit_images:,}; "
        "coloured rows are the chosen set." + _loss_note(points),
    )


def _loss_note(points: Sequence[FrontierPoint]) -> str:
    losses = [point.loss for point in points if point.loss]
    if not losses:
        return ""
    if not losses[0].of_accuracy:
        return " Agreement lost is what does not agree with the original."
    estimated = any(loss.estimated for loss in losses)
    return " Accuracy lost is estimated without labels." if estimated else " Accuracy lost is paired by image."


def neighbours(release: Release) -> tuple[str, ...]:
    """Sentences on the next smaller and next larger set."""
    points = _closed_form(release.frontier.points)
    position = next((place for place, point in enumerate(points) if point.chosen), None)
    near = [] if position is None else points[max(0, position - 1) : position + 2]
    sentences = tuple(f"{_who(point)}: {_gain(point)}." for point in near)
    final = [p for p in release.frontier.points if p.recovery == "finetuned" and p.chosen]
    precision = release.compiled.precision
    precision_note = (
        ()
        if precision == Precision.FP32
        else (f"Neighbouring sets were evaluated in fp32, the release in {precision}.",)
    )
    return (*sentences, *(f"The chosen set, finetuned: {_gain(point)}." for point in final), *precision_note)


def _closed_form(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The sets recovered in closed form, by ascending saving."""
    closed = [point for point in points if point.recovery == PATH and point.dropped]
    return sorted(closed, key=lambda point: point.reduction_percent.estimate)


def _who(point: FrontierPoint) -> str:
    return "The chosen set" if point.chosen else f"{plural(len(point.dropped), 'block')} dropped"


def _gain(point: FrontierPoint) -> str:
    saved = f"saves {interval(point.reduction_percent, '%')}"
    if point.loss:
        return f"{saved}; {lost_or_gained(point.loss)}"
    same = point.agreement_percent
    return saved if same is None else f"{saved} and agrees on {interval(same, '%')} of the images"


def _measure(release: Release) -> str:
    return accuracy_title(release.network.task.kind).lower() if _labelled(release) else "agreement with the original"


def _labelled(release: Release) -> bool:
    points = release.frontier.points
    return bool(release.verification.accuracy) and all(point.accuracy is not None for point in points)


def _height(point: FrontierPoint, release: Release) -> Interval:
    """The y interval of a point; NaN if the network is no classifier."""
    accuracy = point.accuracy.percent if point.accuracy and _labelled(release) else None
    return accuracy or point.agreement_percent or _NOWHERE


def _finite(point: FrontierPoint, release: Release) -> bool:
    height, saved = _height(point, release), point.reduction_percent
    return all(math.isfinite(end) for value in (height, saved) for end in (value.estimate, value.low, value.high))


def _original(release: Release) -> Mark:
    """The original network, which saves nothing."""
    height = next(iter(release.verification.accuracy.values())).percent if _labelled(release) else _ORIGINAL
    return Mark(
        x=0.0,
        y=height.estimate,
        y_bar=(height.low, height.high) if height is not _ORIGINAL else None,
        tone="old",
        shape="dot",
        name="original",
        tooltip=f"the original: {interval(height, '%')}",
    )


def _mark(point: FrontierPoint, release: Release) -> Mark:
    tone, shape = _LOOKS.get(point.recovery, ("soft", "ring"))
    height, saved = _height(point, release), point.reduction_percent
    is_chosen = point.chosen and point.recovery == PATH
    return Mark(
        x=saved.estimate,
        y=height.estimate,
        x_bar=(saved.low, saved.high),
        y_bar=(height.low, height.high),
        tone=tone,
        shape="dot" if is_chosen else shape,
        name=_name(point),
        tooltip=f"without {listed(point.dropped)}, {_recovery(point)}: saves {interval(saved, '%')}, "
        f"{_measure(release)} {interval(height, '%')}{'; the chosen set' if point.chosen else ''}",
    )


def _name(point: FrontierPoint) -> str:
    if point.recovery == "finetuned" and point.chosen:
        return "the release"
    return f"{len(point.dropped)}" if point.recovery == PATH else ""


def _recovery(point: FrontierPoint) -> str:
    return "no recovery" if point.recovery == "none" else point.recovery


def _path(release: Release, points: Sequence[FrontierPoint]) -> Curve:
    closed_form = _closed_form(points)
    start = _original(release)
    steps = [(point.reduction_percent.estimate, _height(point, release).estimate) for point in closed_form]
    return Curve(points=((start.x, start.y), *steps) if steps else (), tone="new", kind="line")


def _keys(points: Sequence[FrontierPoint]) -> tuple[Key, ...]:
    """The key of the kinds of points in the chart."""
    kinds = {point.recovery for point in points}
    chosen = any(point.chosen and point.recovery == PATH for point in points)
    entries = (
        (True, Key(tone="old", shape="dot", text="the original")),
        (PATH in kinds, Key(tone="new", shape="ring", text="closed-form recovery, with the number of blocks dropped")),
        (chosen, Key(tone="new", shape="dot", text="the chosen set")),
        ("finetuned" in kinds, Key(tone="new", shape="diamond", text="finetuned")),
        ("none" in kinds, Key(tone="soft", shape="cross", text="without recovery")),
    )
    return tuple(key for there, key in entries if there)


def _row(point: FrontierPoint, labelled: bool) -> tuple[str, ...]:
    accuracy = interval(point.accuracy.percent, "%") if point.accuracy else missing("no labels")
    lost = points_lost(point.loss)
    return (
        plural(len(point.dropped), "block"),
        _recovery(point),
        interval(point.reduction_percent, "%"),
        interval(point.agreement_percent, "%", absent="no answers to the task"),
        *((accuracy,) if labelled else ()),
        lost,
        listed(point.dropped),
    )
