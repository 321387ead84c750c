"""The reduction predicted from the table of single blocks against the one measured on the network."""

from __future__ import annotations

import math

from practise_backends.results.formatting import interval, listed, number
from practise_backends.terms import Interval
from practise_deploy.outcome import Release
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Curve, Key, Mark
from practise_deploy.report.measurements import reduction


def predicted(release: Release) -> Chart | None:
    """Predicted against measured reduction; None if nothing was measured."""
    marks = [mark for mark in (*_sets(release), *_attempts(release), *_final(release)) if _finite(mark)]
    if not marks:
        return None
    ends = [end for mark in marks for bar in (mark.x_bar or (mark.x,), mark.y_bar or (mark.y,)) for end in bar]
    low, high = spanned([0.0, *ends])
    low = low if min(ends) < 0 else 0.0
    kinds = {(mark.tone, mark.shape) for mark in marks}
    keys = (
        Key(tone="soft", shape="ring", text="a set to check the table"),
        Key(tone="old", shape="diamond", text="an attempt of the plan"),
        Key(tone="new", shape="dot", text="the release"),
    )
    return Chart(
        name="predicted",
        title="Predicted and measured saving",
        description="Predicted against measured reduction of latency, one point per set; the table holds the numbers",
        x=Axis(title="predicted reduction", low=low, high=high, unit="%"),
        y=Axis(title="measured reduction", low=low, high=high, unit="%"),
        marks=tuple(sorted(marks, key=lambda mark: mark.tone != "new")),
        curves=(Curve(points=((low, low), (high, high)), tone="soft", kind="guide"),),
        keys=(
            *(key for key in keys if (key.tone, key.shape) in kinds),
            Key(tone="soft", shape="guide", text="as predicted"),
        ),
        note="Points below the line saved less than predicted. Bars show intervals that are wider than the marker.",
    )


def _sets(release: Release) -> list[Mark]:
    return [
        Mark(
            x=check.predicted_percent,
            y=check.measured_percent.estimate,
            y_bar=(check.measured_percent.low, check.measured_percent.high),
            tone="soft",
            shape="ring",
            tooltip=_tooltip(check.dropped, f"{number(check.predicted_percent)}%", check.measured_percent),
        )
        for check in release.latency.sets
    ]


def _attempts(release: Release) -> list[Mark]:
    return [
        _paired(attempt.dropped, attempt.predicted_percent, attempt.measured_percent)
        for attempt in release.plan.attempts
        if attempt.measured_percent is not None
    ]


def _final(release: Release) -> list[Mark]:
    measured = reduction(release.speedup)
    if measured is None or not release.plan.dropped:
        return []
    return [_paired(release.plan.dropped, release.plan.predicted_percent, measured, "the release")]


def _paired(dropped: tuple[str, ...], predicted: Interval, measured: Interval, name: str = "") -> Mark:
    return Mark(
        x=predicted.estimate,
        y=measured.estimate,
        x_bar=(predicted.low, predicted.high),
        y_bar=(measured.low, measured.high),
        tone="new" if name else "old",
        shape="dot" if name else "diamond",
        name=name,
        tooltip=_tooltip(dropped, interval(predicted, "%"), measured),
    )


def _tooltip(dropped: tuple[str, ...], predicted: str, measured: Interval) -> str:
    return f"without {listed(dropped)}: predicted {predicted}, measured {interval(measured, '%')}"


def _finite(mark: Mark) -> bool:
    return all(math.isfinite(end) for end in (mark.x, mark.y, *(mark.x_bar or ()), *(mark.y_bar or ())))
