"""Before the first round: running until the times are stable, and finding out whether timed runs need priming.

Stable: windows of whole passes, each of at least three passes and half of `warmup_s`, until the medians of
two successive windows agree within 5% for every engine, or until five times `warmup_s` or a third of the
budget is spent.

Priming: engines that take turns push each other out of the processor's caches, while a deployed network mostly
runs again and again. Where the median engine takes under 10 ms, every engine is run twice in a row, in five
passes; if the first run took over 2% longer than the second (median), every timed run of the measurement
follows an untimed one of the same engine, and the result says so. Longer runs soon overwrite what the caches held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from practise_backends.interfaces import Clock
from practise_backends.rounds.log import Row
from practise_backends.terms import StoppingRule


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
_PRIMING_PASSES = 5
_PRIME_ABOVE_PERCENT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Where the warm-up ended.

    medians: float64[engines], milliseconds, of runs as they will be timed. switch_percent: how much longer a run
    takes after another engine's than after its own; None where that was not tried.
    """

    medians: Row
    stable: bool
    switch_percent: float | None

    @property
    def primed(self) -> bool:
        """Whether every timed run follows an untimed one of the same engine."""
        return self.switch_percent is not None and self.switch_percent > _PRIME_ABOVE_PERCENT

    def notes(self) -> tuple[str, ...]:
        """What a reader of the times should know about the warm-up."""
        if not self.primed:
            return ()
        return (
            "every timed run follows an untimed one of the same engine, as in continuous use: after another "
            f"engine's run one takes {self.switch_percent:.1f}% longer",
        )


def warm_up(runners: Sequence[Runner], rule: StoppingRule, clock: Clock) -> WarmUp:
    """Run all engines, in passes there and back, until two successive windows agree; then find out whether they need priming."""
    medians, stable = _settle(runners, rule, clock)
    if np.median(medians) >= _SHORT_MS:
        return WarmUp(medians=medians, stable=stable, switch_percent=None)
    pairs = np.array([[(run().wall_ms, run().wall_ms) for run in runners] for _ in range(_PRIMING_PASSES)])
    firsts, seconds = np.median(pairs, axis=0).T
    switch_percent = 100 * float(np.median(firsts / seconds) - 1)
    outcome = WarmUp(medians=medians, stable=stable, switch_percent=switch_percent)
    return replace(outcome, medians=seconds) if outcome.primed else outcome


def _settle(runners: Sequence[Runner], rule: StoppingRule, clock: Clock) -> tuple[Row, bool]:
    """The medians of the last window, and whether it agreed with the one before."""
    ends_s = clock.now_s() + min(5 * rule.warmup_s, rule.budget_s / 3)
    before = _window(runners, rule.warmup_s / 2, ends_s, clock)
    while clock.now_s() < ends_s:
        now = _window(runners, rule.warmup_s / 2, ends_s, clock)
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
