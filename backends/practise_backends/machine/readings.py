"""Figures that are read again and again: what a counter gained, and between which ends a reading lay."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 4096


class Counter:
    """The sum of a figure over files that are kept open; None where there is no such file."""

    def __init__(self, files: Iterable[Path], figure: Callable[[bytes], int]) -> None:
        self._figure = figure
        self._figures = {opened: 0 for file in files if (opened := _opened(file)) is not None}
        for descriptor in self._figures:
            weakref.finalize(self, os.close, descriptor)
        self._first = self._last = self._total()

    def since_start(self) -> int | None:
        """The increase since construction."""
        return max(0, self._total() - self._first) if self._figures else None

    def since_last_call(self) -> int:
        """The increase since the last call, or since construction."""
        before, self._last = self._last, self._total()
        return max(0, self._last - before)

    def _total(self) -> int:
        """The sum now; a file that cannot be read keeps its last figure."""
        for descriptor in self._figures:
            with suppress(OSError, ValueError):
                self._figures[descriptor] = self._figure(os.pread(descriptor, _MOST_BYTES, 0))
        return sum(self._figures.values())


@dataclass(slots=True)
class Range:
    """The lowest and highest reading."""

    low: float | None = None
    high: float | None = None

    def add(self, reading: float | None) -> None:
        """Take a reading in; None is no reading."""
        if reading is not None:
            self.low = reading if self.low is None else min(self.low, reading)
            self.high = reading if self.high is None else max(self.high, reading)

    def ends(self) -> tuple[float, float] | None:
        """Both ends; None without a reading."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def _opened(file: Path) -> int | None:
    """A descriptor of a file; None where it cannot be opened."""
    try:
        return os.open(file, os.O_RDONLY)
    except OSError:
        return None
