"""Axes: from values to positions, and round tick values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a chart from `low` to `high`. unit: the suffix of every tick label."""

    title: str
    low: float
    high: float
    log: bool = False
    unit: str = ""

    def share(self, value: float) -> float:
        """The position of a value between 0 (low) and 1 (high), clipped."""
        low, high, position = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, position = math.log(low), math.log(high), math.log(position)
        return (position - low) / (high - low)

    def ticks(self, count: int) -> tuple[tuple[float, str], ...]:
        """About `count` round values with their labels."""
        decades = math.log10(self.high / self.low) if self.log else 0.0
        values = _powers(self.low, self.high, count) if decades > 0.7 else _round_values(self.low, self.high, count)
        return tuple((value, f"{value:,.6g}{self.unit}".replace("-", "−")) for value in values)


def spanned(values: Iterable[float], *, margin: float = 0.06, within: Ends | None = None) -> Ends:
    """The range of finite values with a margin, never empty, clipped to `within`."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    room = margin * ((high - low) or abs(high) or 1.0)
    if within is None:
        return low - room, high + room
    lower, upper = max(low - room, within[0]), min(high + room, within[1])
    return (lower, upper) if lower < upper else (low - room, high + room)


def _round_values(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999)
    return [round(step * n, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _powers(low: float, high: float, count: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or only the powers if there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1, 2, 5) if 3 * (len(decades) - 1) <= 2 * count else (1,)
    candidates = [part * 10.0**decade for decade in decades for part in parts]
    return [value for value in candidates if low <= value <= high]
