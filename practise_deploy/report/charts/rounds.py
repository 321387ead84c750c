"""The rounds over time: did the machine drift, and which rounds were discarded?"""

from __future__ import annotations

import numpy as np

from practise_backends.terms import Comparison
from practise_deploy.report.charts.axes import Axis
from practise_deploy.report.charts.chart import Chart, Curve, Key
from practise_deploy.report.charts.samples import Floats, Samples, looks, samples_of
from practise_deploy.report.tables import Table
from practise_deploy.report.words import ABSENT, number, plural

POINTS = 400
_PARTS = 10
_SHOWN = (0.002, 0.985)  # what lies beyond is drawn at the edge, so that the bulk is seen


def rounds(found: Comparison) -> Chart | None:
    """Latency of both networks in the course of the measurement; None without samples."""
    samples = samples_of(found)
    if samples is None:
        return None
    per_dot = -(-int(samples.whole.sum()) // POINTS)
    at = _thinned(np.flatnonzero(samples.whole).astype(np.float64) + 1, per_dot)
    series = {name: _thinned(samples.by_round(name), per_dot) for name in samples.names}
    low, high = _range(series)
    curves = [
        Curve(points=tuple(zip(at.tolist(), np.minimum(ms, high).tolist(), strict=True)), tone=looks(n), kind="dots")
        for n, ms in enumerate(series.values())
    ]
    clipped = [_clipped(at, ms, looks(n), high) for n, ms in enumerate(series.values())]
    return Chart(
        name="rounds",
        title="The rounds in the order in which they ran",
        said="Latency of both networks in every round, with the discarded rounds marked; the table holds the medians",
        x=Axis(title="round", low=0.0, high=float(len(samples.whole) + 1)),
        y=Axis(title="latency of one run, ms (low is better)", low=low, high=high),
        curves=(*curves, *(curve for curve in clipped if curve.points), *_discarded(samples, high)),
        keys=_keys(samples, clipped),
        note=_note(samples, per_dot, clipped, high),
    )


def rounds_table(found: Comparison) -> Table | None:
    """The measurement in ten parts."""
    samples = samples_of(found)
    if samples is None:
        return None
    edges = np.linspace(0, len(samples.whole), min(_PARTS, len(samples.whole)) + 1).astype(int)
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return Table(
        title="The rounds in ten parts",
        head=("Rounds", *(f"{name}, median ms" for name in samples.names), "Ratio", "Discarded"),
        rows=tuple(_part(samples, begin, end) for begin, end in spans),
        note="Where the medians move and the ratio stays, the machine drifted and pairing cancelled it.",
    )


def _part(samples: Samples, begin: int, end: int) -> tuple[str, ...]:
    inside = np.zeros_like(samples.whole)
    inside[begin:end] = samples.whole[begin:end]
    kept = inside[samples.whole]
    medians = [float(np.median(samples.by_round(name)[kept])) if kept.any() else None for name in samples.names]
    first, last = medians[0], medians[-1]
    ratio = f"{number(first / last, 4)}×" if first and last else ABSENT
    told = f"{begin + 1:,} to {end:,}"
    return (told, *(number(one, 4) for one in medians), ratio, f"{end - begin - int(inside.sum()):,}")


def _thinned(values: Floats, many: int) -> Floats:
    """The median of so many values in a row."""
    if many < 2:
        return values
    return np.array([np.median(values[begin : begin + many]) for begin in range(0, len(values), many)])


def _range(series: dict[str, Floats]) -> tuple[float, float]:
    low = min(float(np.quantile(ms, _SHOWN[0])) for ms in series.values())
    high = max(float(np.quantile(ms, _SHOWN[1])) for ms in series.values())
    room = 0.08 * ((high - low) or high or 1.0)
    return low - room, high + 1.6 * room


def _clipped(at: Floats, ms: Floats, tone: str, high: float) -> Curve:
    return Curve(points=tuple((float(x), high) for x in at[ms > high]), tone=tone, kind="arrows")


def _discarded(samples: Samples, high: float) -> tuple[Curve, ...]:
    gone = np.flatnonzero(~samples.whole) + 1
    return (
        (Curve(points=tuple((float(x), high) for x in gone[:: -(-len(gone) // POINTS)]), tone="bad", kind="ticks"),)
        if len(gone)
        else ()
    )


def _keys(samples: Samples, clipped: list[Curve]) -> tuple[Key, ...]:
    names = tuple(Key(tone=looks(at), shape="dots", text=name) for at, name in enumerate(samples.names))
    gone = (Key(tone="bad", shape="ticks", text="discarded round"),) if not samples.whole.all() else ()
    above = (Key(tone="soft", shape="arrows", text="slower than the scale"),) if any(c.points for c in clipped) else ()
    return (*names, *gone, *above)


def _note(samples: Samples, per_dot: int, clipped: list[Curve], high: float) -> str:
    sessions = "the median over its sessions" if len(samples.engines) > len(samples.names) else "one run"
    each = f"{sessions} in a round" if per_dot < 2 else f"{sessions}, and the median of {per_dot} rounds in a row"
    above = sum(len(curve.points) for curve in clipped)
    beyond = f" {plural(above, 'dot')} above {number(high)} ms at the upper edge." if above else ""
    return f"Each dot is {each}.{beyond}"
