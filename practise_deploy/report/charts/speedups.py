"""The speed-up of several runs against their loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from practise_deploy.outcome import Release
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Curve, Key, Mark
from practise_deploy.report.formatting import lost_or_gained, times


def speedups(releases: Mapping[str, Release]) -> Chart | None:
    """Speed-up against the change of accuracy; None if no run has both."""
    marks = [mark for name, release in releases.items() if (mark := _mark(name, release)) is not None]
    if not marks:
        return None
    x_low, x_high = spanned([1.0, *(end for mark in marks for end in mark.x_bar or ())])
    y_low, y_high = spanned([0.0, *(end for mark in marks for end in mark.y_bar or ())])
    guides = (((1.0, y_low), (1.0, y_high)), ((x_low, 0.0), (x_high, 0.0)))
    kinds = {mark.shape for mark in marks}
    keys = (
        Key(tone="new", shape="dot", text="promise kept"),
        Key(tone="bad", shape="cross", text="promise broken or not proven"),
        Key(tone="soft", shape="guide", text="as fast, as accurate as the original"),
    )
    return Chart(
        name="speedups",
        title="Speed-up against accuracy",
        description="Speed-up against the change of top-1 accuracy, one point per run; the table of runs holds the numbers",
        x=Axis(title="speed-up (right is better)", low=x_low, high=x_high, unit="×"),
        y=Axis(title="change of top-1 accuracy, points (high is better)", low=y_low, high=y_high),
        marks=tuple(marks),
        curves=tuple(Curve(points=ends, tone="soft", kind="guide") for ends in guides),
        keys=tuple(key for key in keys if key.shape in {*kinds, "guide"}),
        note="Bars show intervals that are wider than the marker.",
    )


def _mark(name: str, release: Release) -> Mark | None:
    loss, speedup = release.verification.loss, release.speedup
    lost = loss.points if loss else None
    if (
        lost is None
        or speedup is None
        or not all(math.isfinite(end) for value in (lost, speedup) for end in (value.estimate, value.low, value.high))
    ):
        return None
    kept = release.verdict.kept
    return Mark(
        x=speedup.estimate,
        y=-lost.estimate,
        x_bar=(speedup.low, speedup.high),
        y_bar=(-lost.high, -lost.low),
        tone="new" if kept else "bad",
        shape="dot" if kept else "cross",
        name=name,
        tooltip=f"{name}: {times(speedup)}, {lost_or_gained(loss)}, promise {release.verdict.answer.value}",
    )
