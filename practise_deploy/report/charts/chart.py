"""What a chart holds, in the units of its figures."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.report.charts.axes import Axis

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One figure. x_bar, y_bar: its intervals.

    tone: new, old, soft or bad, which is a colour; shape: dot, ring, diamond or cross, so that colour is never
    alone. name: written beside it where there is room. said: the whole of it in words.
    """

    x: float
    y: float
    x_bar: Ends | None = None
    y_bar: Ends | None = None
    tone: str
    shape: str
    name: str = ""
    tooltip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Many figures of one kind.

    kind: line, steps, dashes or guide join the points; dots, ticks and arrows mark each of them.
    """

    points: tuple[tuple[float, float], ...]
    tone: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a mark or a curve stands for. shape: a mark's shape or a curve's kind."""

    tone: str
    shape: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of figures. said: what it shows and where the numbers stand, for who cannot see it."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...] = ()
    curves: tuple[Curve, ...] = ()
    keys: tuple[Key, ...] = ()
    note: str = ""
