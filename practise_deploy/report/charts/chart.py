"""The contents of a chart, in the units of its figures."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.report.charts.axes import Axis

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One figure. x_bar, y_bar: its intervals.

    tone: the colour, one of new, old, soft and bad; shape: dot, ring, diamond or cross, so that the colour is redundant.
    name: the label, drawn if there is room. tooltip: a description of the mark.
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
    """A series of points. kind: line, steps, dashes and guide join them; dots, ticks and arrows mark each."""

    points: tuple[tuple[float, float], ...]
    tone: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of the chart's key. shape: a mark's shape or a curve's kind."""

    tone: str
    shape: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart. description: the text alternative, which names the table with the numbers."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...] = ()
    curves: tuple[Curve, ...] = ()
    keys: tuple[Key, ...] = ()
    note: str = ""
