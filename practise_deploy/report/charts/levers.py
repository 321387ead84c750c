"""Every lever on one picture: the speed-up over the original in fp32 against what is lost, and the front."""

from __future__ import annotations

import math

from practise_backends.choices import Precision
from practise_backends.results.formatting import plural
from practise_deploy.outcome import LeverPoint, Levers
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Curve, Key, Mark
from practise_deploy.report.formatting import lost_or_gained, times

_LOOKS = {Precision.FP32: ("soft", "ring"), Precision.FP16: ("old", "diamond"), Precision.INT8: ("new", "dot")}


def levers(measured: Levers) -> Chart | None:
    """One mark for each point, and a line along the front; None where no loss could be measured."""
    points = [point for point in measured.points if math.isfinite(point.lost)]
    if not points:
        return None
    marks = tuple(_mark(point) for point in points)
    x_low, x_high = spanned([1.0, *(end for mark in marks for end in mark.x_bar or ())])
    y_low, y_high = spanned([0.0, *(mark.y for mark in marks)])
    front = sorted((point.speedup.estimate, -point.lost) for point in points if point.on_front)
    what = "accuracy" if all(point.loss.of_accuracy for point in points if point.loss) else "agreement"
    present = dict.fromkeys(point.precision for point in points)
    keys = (
        *(Key(tone=_LOOKS[each][0], shape=_LOOKS[each][1], text=f"in {each}") for each in present),
        Key(tone="new", shape="line", text="the front"),
    )
    return Chart(
        name="levers",
        title="Speed-up against what is lost",
        description="Speed-up over the original in fp32 against what is lost, one point per set of blocks and precision; the table holds the numbers",
        x=Axis(title="times as fast as the original in fp32 (right is better)", low=x_low, high=x_high, unit="×"),
        y=Axis(title=f"change of {what}, points (high is better)", low=y_low, high=y_high),
        marks=marks,
        curves=(Curve(points=tuple(front), tone="new", kind="line"),),
        keys=keys,
        note="Numbers beside the points are those of dropped blocks. Losses have wide intervals, which are in the table.",
    )


def _mark(point: LeverPoint) -> Mark:
    tone, shape = _LOOKS[point.precision]
    blocks = f"{plural(len(point.dropped), 'block')} dropped" if point.dropped else "all blocks"
    return Mark(
        x=point.speedup.estimate,
        y=-point.lost,
        x_bar=(point.speedup.low, point.speedup.high),
        tone=tone,
        shape=shape,
        name=str(len(point.dropped)) if point.dropped else "",
        tooltip=f"{blocks} in {point.precision}: {times(point.speedup)}, {lost_or_gained(point.loss)}",
    )
