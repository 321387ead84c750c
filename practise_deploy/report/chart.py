"""The picture of the bargain: what each block saves against how hard its loss is to recover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from practise_deploy.report.words import interval, number
from practise_deploy.terms import Recoverability, Release, Saving

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 52
_LETTER, _LINE = 6.8, 13.0
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A line of the grid, in pixels, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A block, in pixels. label_x, label_y: the middle of its name's foot, or None where there is no room."""

    name: str
    x: float
    low: float
    high: float
    y: float
    dropped: bool
    said: str
    label_x: float | None = None
    label_y: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart ready to be drawn. absent: the blocks that have no place in it."""

    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    absent: tuple[str, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def bargains(release: Release) -> Chart | None:
    """Saving against relative recoverability; None where no block has both."""
    judged = {found.block: found for found in release.recoverability}
    pairs = [
        (saving, judged[saving.block])
        for saving in release.latency.savings
        if saving.block in judged and _drawable(saving, judged[saving.block])
    ]
    if not pairs:
        return None
    shown = {saving.block for saving, _ in pairs}
    x_ends, y_ends = _x_ends(pairs), _y_ends(pairs)
    points = [_point(saving, found, release.plan.dropped, x_ends, y_ends) for saving, found in pairs]
    return Chart(
        points=tuple(_labelled(points)),
        x_ticks=tuple(Tick(at=_x(v, x_ends), label=f"{v:.6g}") for v in _round_values(*x_ends)),
        y_ticks=tuple(Tick(at=_y(v, y_ends), label=f"{100 * v:.4g}%") for v in _powers(*y_ends)),
        absent=tuple(saving.block for saving in release.latency.savings if saving.block not in shown),
    )


def _drawable(saving: Saving, found: Recoverability) -> bool:
    """A logarithm needs a positive number."""
    ends = (saving.saving_ms.low, saving.saving_ms.high, saving.saving_ms.estimate, found.relative)
    return all(math.isfinite(end) for end in ends) and found.relative > 0


def _x_ends(pairs: Sequence[tuple[Saving, Recoverability]]) -> tuple[float, float]:
    low = min(0.0, *(saving.saving_ms.low for saving, _ in pairs))
    high = max(saving.saving_ms.high for saving, _ in pairs)
    return low, high + 0.06 * ((high - low) or 1.0)


def _y_ends(pairs: Sequence[tuple[Saving, Recoverability]]) -> tuple[float, float]:
    found = [one.relative for _, one in pairs]
    return min(found) / 1.6, max(found) * 1.6


def _x(value: float, ends: tuple[float, float]) -> float:
    share = (value - ends[0]) / (ends[1] - ends[0])
    return round(LEFT + share * (WIDTH - RIGHT - LEFT), 1)


def _y(value: float, ends: tuple[float, float]) -> float:
    share = math.log(value / ends[0]) / math.log(ends[1] / ends[0])
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _point(
    saving: Saving,
    found: Recoverability,
    dropped: Sequence[str],
    x_ends: tuple[float, float],
    y_ends: tuple[float, float],
) -> Point:
    outcome = "dropped" if saving.block in dropped else "kept"
    share = number(100 * found.relative)
    return Point(
        name=saving.block,
        x=_x(saving.saving_ms.estimate, x_ends),
        low=_x(saving.saving_ms.low, x_ends),
        high=_x(saving.saving_ms.high, x_ends),
        y=_y(found.relative, y_ends),
        dropped=saving.block in dropped,
        said=f"{saving.block}, {outcome}: saves {interval(saving.saving_ms, ' ms')}, leaves {share}% error",
    )


def _round_values(low: float, high: float) -> list[float]:
    """About six round values between two ends."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1, 2, 5) if len(decades) <= 4 else (1,)
    found = [part * 10.0**decade for decade in decades for part in parts]
    return [value for value in found if low <= value <= high]


def _labelled(points: Sequence[Point]) -> list[Point]:
    """The points with their names placed, dropped ones first, where no name covers another or a mark."""
    taken: list[_Box] = [(p.x - 5, p.y - 5, p.x + 5, p.y + 5) for p in points]
    places: dict[str, _Box] = {}
    for point in sorted(points, key=lambda p: not p.dropped):
        free = [box for box in _places(point) if not any(_overlap(box, other) for other in taken)]
        if free:
            places[point.name] = free[0]
            taken.append(free[0])
    return [_with_label(point, places.get(point.name)) for point in points]


def _places(point: Point) -> list[_Box]:
    """Above, below, right of and left of the mark, within the frame."""
    wide = _LETTER * len(point.name)
    corners = [
        (point.x - wide / 2, point.y - 8 - _LINE),
        (point.x - wide / 2, point.y + 8),
        (point.high + 6, point.y - _LINE / 2),
        (point.low - 6 - wide, point.y - _LINE / 2),
    ]
    boxes = [(x, y, x + wide, y + _LINE) for x, y in corners]
    return [b for b in boxes if b[0] > LEFT and b[2] < WIDTH and b[1] > 0 and b[3] < HEIGHT - BOTTOM]


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_label(point: Point, box: _Box | None) -> Point:
    if box is None:
        return point
    return replace(point, label_x=round((box[0] + box[2]) / 2, 1), label_y=round(box[3] - 3, 1))
