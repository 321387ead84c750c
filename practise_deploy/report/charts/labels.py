"""Label placement: names next to their marks that cover no other name, mark or curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Box = tuple[float, float, float, float]  # left, top, right, foot, in pixels

LETTER, LINE = 7.0, 14.0
_LONGEST = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A mark with a name to place. low, high: the ends of its horizontal bar."""

    name: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A name and the middle of its baseline, in pixels."""

    text: str
    x: float
    y: float


def placed(requests: Sequence[Named], taken: Iterable[Box], within: Box) -> list[Label | None]:
    """A place for each name, greedily in order; None if there is no room."""
    full, labels = list(taken), list[Label | None]()
    for request in requests:
        text = request.name if len(request.name) <= _LONGEST else f"{request.name[: _LONGEST - 1]}…"
        boxes = [box for box in _places(request, LETTER * len(text)) if _inside(box, within)]
        free = [box for box in boxes if not any(_overlap(box, other) for other in full)] if text else []
        full += free[:1]
        labels.append(_label(text, free[0]) if free else None)
    return labels


def box_of(x: float, y: float, half: float = 5.0) -> Box:
    """The square around a point."""
    return (x - half, y - half, x + half, y + half)


def boxes_along(points: Sequence[tuple[float, float]], every: float = 6.0) -> list[Box]:
    """Small squares along a line, which keep names off it."""
    boxes = [box_of(x, y, 1.5) for x, y in points]
    for (x1, y1), (x2, y2) in pairwise(points):
        steps = int(max(abs(x2 - x1), abs(y2 - y1)) // every)
        shares = [step / (steps + 1) for step in range(1, steps + 1)]
        boxes += [box_of(x1 + s * (x2 - x1), y1 + s * (y2 - y1), 1.5) for s in shares]
    return boxes


def _label(text: str, box: Box) -> Label:
    return Label(text=text, x=round((box[0] + box[2]) / 2, 1), y=round(box[3] - 3, 1))


def _places(mark: Named, wide: float) -> list[Box]:
    """The candidate places: above, below, right, left, and the corners of the mark."""
    right, left, high = mark.x + 7, mark.x - 7 - wide, mark.y - LINE / 2
    above, below = mark.y - 7 - LINE, mark.y + 7
    corners = [
        (mark.x - wide / 2, above),
        (mark.x - wide / 2, below),
        (mark.high + 7, high),
        (mark.low - 7 - wide, high),
        (right, above),
        (right, below),
        (left, above),
        (left, below),
    ]
    return [(x, y, x + wide, y + LINE) for x, y in corners]


def _inside(box: Box, within: Box) -> bool:
    return box[0] >= within[0] and box[1] >= within[1] and box[2] <= within[2] and box[3] <= within[3]


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
