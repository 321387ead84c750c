"""The cumulative distribution of the latency, before and after."""

from __future__ import annotations

import math

import numpy as np

from practise_backends.results.formatting import interval, number
from practise_backends.terms import Comparison, EngineFigures
from practise_deploy.report.charts.axes import Axis
from practise_deploy.report.charts.chart import Chart, Curve, Key, Mark
from practise_deploy.report.charts.samples import Floats, samples_of, tone_of

STEPS = 200
_REACH = 2.5  # times the span from p10 to p90, beyond p90: a longer tail would compress the curves
_KINDS = ("dashes", "steps")


def distributions(comparison: Comparison) -> Chart | None:
    """The cumulative distribution of both networks' runs; None without samples."""
    samples = samples_of(comparison)
    if samples is None:
        return None
    runs = {name: np.sort(samples.of(name)) for name in samples.names}
    low = min(float(ms[0]) for ms in runs.values())
    high = max(*(_end(ms) for ms in runs.values()), *_supported(comparison))
    wide = 0 < 2.5 * low < high
    room = 0.03 * ((high - low) or high or 1.0)
    axis = Axis(
        title="latency of one run, ms (left is better)", low=low - (0 if wide else room), high=high + room, log=wide
    )
    beyond = max(float((ms > axis.high).mean()) for ms in runs.values())
    return Chart(
        name="distributions",
        title="Before and after: all valid runs",
        description="Cumulative distribution of the latency of both networks; the table of engines holds the percentiles",
        x=axis,
        y=Axis(title="share of runs that took no longer", low=0.0, high=100.0, unit="%"),
        curves=tuple(_curve(ms, tone_of(index), axis.high) for index, ms in enumerate(runs.values())),
        marks=_percentiles(comparison, axis),
        keys=tuple(
            Key(tone=tone_of(index), shape=_curve_kind(tone_of(index)), text=name) for index, name in enumerate(runs)
        ),
        note=_beyond(beyond, axis.high) + "Marks are the percentiles that the sample supports, with their intervals.",
    )


def _end(ms: Floats) -> float:
    """The end of the bulk of the runs, in ms. Shapes: ms [runs], sorted."""
    p10, p90 = np.quantile(ms, (0.1, 0.9))
    return min(float(ms[-1]), float(p90 + _REACH * (p90 - p10)))


def _supported(comparison: Comparison) -> list[float]:
    """The upper bounds of the highest percentiles that the sample supports, which the axis must include."""
    percentiles = [engine.p99_ms or engine.p90_ms for engine in comparison.engines]
    return [latency.high for latency in percentiles if latency and math.isfinite(latency.high)] or [0.0]


def _curve_kind(tone: str) -> str:
    return _KINDS[tone == "new"]


def _curve(ms: Floats, tone: str, end: float) -> Curve:
    """Steps at evenly spaced shares of the runs, up to the end of the axis. Shapes: ms [runs]."""
    shares = np.linspace(0, 1, min(STEPS, len(ms)))
    places = np.quantile(ms, shares, method="inverted_cdf")
    steps = [(float(x), 100 * float(share)) for x, share in zip(places, shares, strict=True) if x <= end]
    steps.append((end, steps[-1][1]) if steps else (end, 0.0))
    return Curve(points=tuple(steps), tone=tone, kind=_curve_kind(tone))


def _percentiles(comparison: Comparison, axis: Axis) -> tuple[Mark, ...]:
    marks = []
    for index, engine in enumerate(comparison.engines):
        marks += _marks_of(engine, tone_of(index), axis)
    return tuple(marks)


def _marks_of(engine: EngineFigures, tone: str, axis: Axis) -> list[Mark]:
    percentiles = ((50, engine.p50_ms), (90, engine.p90_ms), (99, engine.p99_ms))
    return [
        Mark(
            x=latency.estimate,
            y=float(percent),
            x_bar=(latency.low, latency.high),
            tone=tone,
            shape="ring" if tone == "old" else "dot",
            name=f"p{percent} {number(latency.estimate)}",
            tooltip=f"{engine.name}, p{percent}: {interval(latency, ' ms')}",
        )
        for percent, latency in percentiles
        if latency is not None and axis.low <= latency.estimate <= axis.high
    ]


def _beyond(share: float, end: float) -> str:
    return f"The slowest {number(100 * share, 2)}% of the runs lie beyond {number(end)} ms. " if share > 0 else ""
