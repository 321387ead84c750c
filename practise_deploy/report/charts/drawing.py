"""A chart laid out in a frame: pixels and paths, ready for the template."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.report.charts import labels
from practise_deploy.report.charts.chart import Chart, Curve, Mark
from practise_deploy.report.charts.labels import Box, Label, Named

Place = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The size of a drawing in pixels, and about how many ticks fit each axis."""

    name: str
    width: int
    height: int
    x_ticks: int
    y_ticks: int
    left: int = 56
    right: int = 14
    top: int = 30
    bottom: int = 48

    def place(self, chart: Chart, x: float, y: float) -> Place:
        """A point of the chart in pixels."""
        wide, high = self.width - self.left - self.right, self.height - self.top - self.bottom
        return round(self.left + wide * chart.x.share(x), 1), round(self.top + high * (1 - chart.y.share(y)), 1)


WIDE = Frame(name="wide", width=640, height=380, x_ticks=7, y_ticks=6)
NARROW = Frame(name="narrow", width=360, height=330, x_ticks=4, y_ticks=6, left=52, right=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A grid line, in pixels, and its label."""

    position: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A path with its CSS classes. label: the name next to it."""

    path: str
    classes: str
    bars: str = ""
    tooltip: str = ""
    label: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart in pixels."""

    frame: Frame
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Shape, ...]
    marks: tuple[Shape, ...]


def draw(chart: Chart, frame: Frame) -> Drawing:
    """Lay a chart out."""
    lines = [[frame.place(chart, *point) for point in curve.points] for curve in chart.curves]
    return Drawing(
        frame=frame,
        x_ticks=_apart(chart, frame),
        y_ticks=tuple(
            Tick(position=frame.place(chart, chart.x.low, value)[1], label=label)
            for value, label in chart.y.ticks(frame.y_ticks)
        ),
        curves=tuple(
            Shape(path=_path(curve, line), classes=f"{curve.tone} {curve.kind}")
            for curve, line in zip(chart.curves, lines, strict=True)
        ),
        marks=_marks(chart, frame, lines),
    )


def outline(shape: str, x: float, y: float, half: float = 5.0) -> str:
    """The path of a mark."""
    if shape == "diamond":
        wide = round(1.35 * half, 1)
        return f"M{x - wide:g} {y:g}l{wide} {-wide}l{wide} {wide}l{-wide} {wide}z"
    if shape == "cross":
        return f"M{x - half:g} {y - half:g}l{2 * half:g} {2 * half:g}m0 {-2 * half:g}l{-2 * half:g} {2 * half:g}"
    return f"M{x - half:g} {y:g}a{half:g} {half:g} 0 1 0 {2 * half:g} 0a{half:g} {half:g} 0 1 0 {-2 * half:g} 0z"


def _apart(chart: Chart, frame: Frame) -> tuple[Tick, ...]:
    """The ticks of x, without those whose labels would overlap."""
    ticks: list[Tick] = []
    end = 0.0
    for value, label in chart.x.ticks(frame.x_ticks):
        position, half = frame.place(chart, value, chart.y.low)[0], labels.LETTER * len(label) / 2
        if position - half >= end:
            ticks.append(Tick(position=position, label=label if position + half <= frame.width else ""))
            end = position + half + 6
    return tuple(ticks)


def _marks(chart: Chart, frame: Frame, lines: list[list[Place]]) -> tuple[Shape, ...]:
    """The marks with their bars and names."""
    places = [frame.place(chart, mark.x, mark.y) for mark in chart.marks]
    taken: list[Box] = [labels.box_of(*place) for place in places]
    for curve, line in zip(chart.curves, lines, strict=True):
        joined = curve.kind in ("line", "steps", "dashes", "guide")
        taken += labels.boxes_along(line) if joined else []
    for mark in chart.marks:
        taken += [box for bar in _spans(chart, frame, mark) for box in labels.boxes_along(bar)]
    within = (frame.left, frame.top - 4, frame.width - 4, frame.height - frame.bottom)
    requests = [_named(chart, frame, mark, place) for mark, place in zip(chart.marks, places, strict=True)]
    placed = labels.placed(requests, taken, within)
    return tuple(
        Shape(
            path=outline(mark.shape, *place),
            classes=f"{mark.tone} {mark.shape}",
            bars=_bars(chart, frame, mark),
            tooltip=mark.tooltip,
            label=label,
        )
        for mark, place, label in zip(chart.marks, places, placed, strict=True)
    )


def _named(chart: Chart, frame: Frame, mark: Mark, place: Place) -> Named:
    low, high = mark.x_bar or (mark.x, mark.x)
    ends = (frame.place(chart, low, mark.y)[0], frame.place(chart, high, mark.y)[0])
    return Named(name=mark.name, x=place[0], y=place[1], low=ends[0], high=ends[1])


def _bars(chart: Chart, frame: Frame, mark: Mark) -> str:
    """The intervals of a mark as a path."""
    paths = []
    for (x1, y1), (x2, y2) in _spans(chart, frame, mark):
        cap = ("{:g} {:g}m0 -3v6" if y1 == y2 else "{:g} {:g}m-3 0h6").format
        paths.append(f"M{x1:g} {y1:g}L{x2:g} {y2:g}M{cap(x1, y1)}M{cap(x2, y2)}")
    return "".join(paths)


def _spans(chart: Chart, frame: Frame, mark: Mark) -> list[tuple[Place, Place]]:
    """The ends of a mark's bars that are longer than the mark."""
    x_bar, y_bar = mark.x_bar or (mark.x, mark.x), mark.y_bar or (mark.y, mark.y)
    spans = [
        (frame.place(chart, x_bar[0], mark.y), frame.place(chart, x_bar[1], mark.y)),
        (frame.place(chart, mark.x, y_bar[0]), frame.place(chart, mark.x, y_bar[1])),
    ]
    return [(low, high) for low, high in spans if max(abs(high[0] - low[0]), abs(high[1] - low[1])) > 10]


def _path(curve: Curve, line: list[Place]) -> str:
    symbol = {"dots": "M{:g} {:g}h.01", "ticks": "M{:g} {:g}v9", "arrows": "M{:g} {:g}l-3.5 6h7z"}.get(curve.kind)
    if symbol:
        return "".join(symbol.format(*place) for place in line)
    if curve.kind == "steps":
        steps = "".join(f"H{x:g}V{y:g}" for x, y in line[1:])
        return f"M{line[0][0]:g} {line[0][1]:g}{steps}" if line else ""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in line) if line else ""
