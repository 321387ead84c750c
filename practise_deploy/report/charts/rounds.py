"""The rounds over time, which show drift and discarded rounds."""

from __future__ import annotations

import numpy as np

from practise_backends.results.formatting import ABSENT, number, plural
from practise_backends.results.tables import Table
from practise_backends.terms import Comparison
from practise_deploy.report.charts.axes import Axis
from practise_deploy.report.charts.chart import Chart, Curve, Key
from practise_deploy.report.charts.samples import Floats, Samples, samples_of, tone_of

POINTS = 400
_PARTS = 10
_SHOWN = (0.002, 0.985)  # quantiles; points beyond are drawn at the edge


def rounds(comparison: Comparison) -> Chart | None:
    """Latency of both networks over the measurement; None without samples."""
    samples = samples_of(comparison)
    if samples is None:
        return None
    per_dot = -(-int(samples.valid.sum()) // POINTS)
    positions = _thinned(np.flatnonzero(samples.valid).astype(np.float64) + 1, per_dot)
    series = {name: _thinned(samples.by_round(name), per_dot) for name in samples.names}
    low, high = _range(series)
    curves = [
        Curve(
            points=tuple(zip(positions.tolist(), np.minimum(ms, high).tolist(), strict=True)),
            tone=tone_of(n),
            kind="dots",
        )
        for n, ms in enumerate(series.values())
    ]
    clipped = [_clipped(positions, ms, tone_of(n), high) for n, ms in enumerate(series.values())]
    return Chart(
        name="rounds",
        title="Rounds in order",
        description="Latency of both networks in every round, with the discarded rounds marked; the table holds the medians",
        x=Axis(title="round", low=0.0, high=float(len(samples.valid) + 1)),
        y=Axis(title="latency of one run, ms (low is better)", low=low, high=high),
        curves=(*curves, *(curve for curve in clipped if curve.points), *_discarded(samples, high)),
        keys=_keys(samples, clipped),
        note=_note(samples, per_dot, clipped, high),
    )


def rounds_table(comparison: Comparison) -> Table | None:
    """The measurement in ten parts."""
    samples = samples_of(comparison)
    if samples is None:
        return None
    edges = np.linspace(0, len(samples.valid), min(_PARTS, len(samples.valid)) + 1).astype(int)
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return Table(
        title="The rounds in ten parts",
        head=("Rounds", *(f"{name}, median ms" for name in samples.names), "Ratio", "Discarded"),
        rows=tuple(_part(samples, begin, end) for begin, end in spans),
        note=(
            "Where the medians change and the ratio does not, the machine drifted and the pairing cancelled the drift."
        ),
    )


def _part(samples: Samples, begin: int, end: int) -> tuple[str, ...]:
    inside = np.zeros_like(samples.valid)
    inside[begin:end] = samples.valid[begin:end]
    kept = inside[samples.valid]
    medians = [float(np.median(samples.by_round(name)[kept])) if kept.any() else None for name in samples.names]
    first, last = medians[0], medians[-1]
    ratio = f"{number(first / last, 4)}×" if first and last else ABSENT
    span = f"{begin + 1:,} to {end:,}"
    return (span, *(number(median, 4) for median in medians), ratio, f"{end - begin - int(inside.sum()):,}")


def _thinned(values: Floats, size: int) -> Floats:
    """Medians of `size` consecutive values. Shapes: [rounds] -> [rounds / size]."""
    if size < 2:
        return values
    return np.array([np.median(values[begin : begin + size]) for begin in range(0, len(values), size)])


def _range(series: dict[str, Floats]) -> tuple[float, float]:
    low = min(float(np.quantile(ms, _SHOWN[0])) for ms in series.values())
    high = max(float(np.quantile(ms, _SHOWN[1])) for ms in series.values())
    room = 0.08 * ((high - low) or high or 1.0)
    return low - room, high + 1.6 * room


def _clipped(positions: Floats, ms: Floats, tone: str, high: float) -> Curve:
    return Curve(points=tuple((float(x), high) for x in positions[ms > high]), tone=tone, kind="arrows")


def _discarded(samples: Samples, high: float) -> tuple[Curve, ...]:
    discarded = np.flatnonzero(~samples.valid) + 1
    return (
        (
            Curve(
                points=tuple((float(x), high) for x in discarded[:: -(-len(discarded) // POINTS)]),
                tone="bad",
                kind="ticks",
            ),
        )
        if len(discarded)
        else ()
    )


def _keys(samples: Samples, clipped: list[Curve]) -> tuple[Key, ...]:
    names = tuple(Key(tone=tone_of(index), shape="dots", text=name) for index, name in enumerate(samples.names))
    discarded = (Key(tone="bad", shape="ticks", text="discarded round"),) if not samples.valid.all() else ()
    above = (Key(tone="soft", shape="arrows", text="slower than the scale"),) if any(c.points for c in clipped) else ()
    return (*names, *discarded, *above)


def _note(samples: Samples, per_dot: int, clipped: list[Curve], high: float) -> str:
    sessions = "the median over its sessions" if len(samples.engines) > len(samples.names) else "one run"
    sample = f"{sessions} in a round" if per_dot < 2 else f"{sessions}, and the median of {per_dot} rounds in a row"
    above = sum(len(curve.points) for curve in clipped)
    beyond = f" {plural(above, 'dot')} above {number(high)} ms at the upper edge." if above else ""
    return f"Each dot is {sample}.{beyond}"
