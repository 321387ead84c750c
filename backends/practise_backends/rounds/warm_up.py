"""Before the first round: running until the times are stable, and finding out whether runs need a lead.

Stable: windows of whole passes, each of at least three passes and half of `warmup_s`, until the medians of
two successive windows agree within 5% for every engine, or until five times `warmup_s` or a third of the
budget is spent.

Lead: engines that take turns push each other out of the processor's caches, while a deployed network mostly
runs again and again. Where the median engine takes under 10 ms, every engine is run twice in a row, in five
passes; if the first run took over 2% longer than the second (median), every timed run of the measurement
follows an untimed one of the same engine, and the result says so. Longer runs soon overwrite what the caches held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from practise_backends.rounds.log import Row
from practise_backends.terms import Clock, Patience


class Sample(NamedTuple):
    """What one run took, in milliseconds, by two clocks.

    cpu_ms: the time that the computing thread had a processor; NaN where the engine computes in other threads.
    """

    wall_ms: float
    cpu_ms: float


Runner = Callable[[], Sample]
"""One timed run."""

_AGREE = 0.05
_PASSES = 3
_SHORT_MS = 10.0
_LEAD_PASSES = 5
_LEAD_PERCENT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Where the warm-up ended.

    medians: float64[engines], milliseconds, of runs as they will be timed. lead_percent: by how much longer a run
    takes after another engine's than after its own; None where that was not tried.
    """

    medians: Row
    stable: bool
    lead_percent: float | None

    @property
    def leads(self) -> bool:
        """Whether every timed run follows an untimed one of the same engine."""
        return self.lead_percent is not None and self.lead_percent > _LEAD_PERCENT

    def notes(self) -> tuple[str, ...]:
        """What a reader of the times should know of it."""
        if not self.leads:
            return ()
        return (
            "every timed run follows an untimed one of the same engine, as in continuous use: after another "
            f"engine's run one takes {self.lead_percent:.1f}% longer",
        )


def warm_up(runners: Sequence[Runner], patience: Patience, clock: Clock) -> WarmUp:
    """Run all engines, in passes there and back, until two successive windows agree; then try whether they need a lead."""
    medians, stable = _settle(runners, patience, clock)
    if np.median(medians) >= _SHORT_MS:
        return WarmUp(medians=medians, stable=stable, lead_percent=None)
    pairs = np.array([[(run().wall_ms, run().wall_ms) for run in runners] for _ in range(_LEAD_PASSES)])
    firsts, seconds = np.median(pairs, axis=0).T
    found = WarmUp(medians=medians, stable=stable, lead_percent=100 * float(np.median(firsts / seconds) - 1))
    return (
        found if not found.leads else WarmUp(medians=seconds, stable=stable, lead_percent=found.lead_percent)
    )


def _settle(runners: Sequence[Runner], patience: Patience, clock: Clock) -> tuple[Row, bool]:
    """The medians of the last window, and whether it agreed with the one before."""
    ends_s = clock.now_s() + min(5 * patience.warmup_s, patience.budget_s / 3)
    before = _window(runners, patience.warmup_s / 2, ends_s, clock)
    while clock.now_s() < ends_s:
        now = _window(runners, patience.warmup_s / 2, ends_s, clock)
        if bool(np.all(np.abs(now - before) <= _AGREE * np.maximum(now, before))):
            return now, True
        before = now
    return before, False


def _window(runners: Sequence[Runner], length_s: float, ends_s: float, clock: Clock) -> Row:
    """The medians by engine of one window of whole passes; at least one pass, however late it is."""
    started = clock.now_s()
    passes: list[list[float]] = []
    while not passes or (
        clock.now_s() < ends_s and (len(passes) < _PASSES or clock.now_s() - started < length_s)
    ):
        turn = slice(None, None, -1 if len(passes) % 2 else 1)
        passes.append([run().wall_ms for run in runners[turn]][turn])
    return np.asarray(np.median(passes, axis=0))
