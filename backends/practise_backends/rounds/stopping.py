"""When a measurement has said enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from practise_backends.rounds.intervals import (
    FEWEST_ROUNDS,
    ORIGINAL,
    halves,
    trimmed_half_width,
    trimmed_mean,
)
from practise_backends.rounds.log import Course, Row
from practise_backends.terms import Clock, Patience

_CHECK_SHARE = 0.002
_LATE = 2.0
_NOTHING = 1e-300


@dataclass(slots=True, kw_only=True)
class Stopper:
    """Ends a measurement: after max_rounds; and, once min_rounds are valid, when the budget is spent or
    every paired ratio (and A/A) is known as well as the decision needs: its interval over the rounds is
    within `enough_percent`, or, A/A aside, within `enough_share` of its distance from `decide_at`. How far
    sessions of one network differ comes on top, and more rounds do not change it. Where rounds are discarded
    for ever, it ends at twice the budget.

    The width alone decides, never the sign: stopping when a difference looks significant would find false ones.
    The intervals are checked every 10 rounds or 10% more rounds, while that takes under 0.2% of the time.
    """

    names: tuple[str, ...]
    patience: Patience
    clock: Clock
    started: float
    next_check: int = 0
    spent_s: float = 0.0
    narrow_s: float = math.inf

    def reason(self, course: Course) -> str:
        """Why to stop now, in one sentence; empty to go on."""
        if len(course.rows) >= self.patience.max_rounds:
            return f"the limit of {self.patience.max_rounds} rounds was reached"
        if course.valid_rounds < self.patience.min_rounds:
            late = (
                self.elapsed_s() > _LATE * self.patience.budget_s
                and len(course.reasons) >= self.patience.min_rounds
            )
            return self._too_few(course) if late else ""
        if self._is_narrow(course):
            return self._narrow_said()
        if self.elapsed_s() < self.patience.budget_s:
            return ""
        spent = f"the budget of {self.patience.budget_s:g} s was spent"
        least = f"; the least number of rounds ({self.patience.min_rounds}) was run all the same"
        return spent + least * (course.valid_rounds == self.patience.min_rounds)

    def elapsed_s(self) -> float:
        """Seconds since the measurement began, warm-up included."""
        return self.clock.now_s() - self.started

    def expected_s(self, course: Course) -> float:
        """How long the measurement will have taken, by how it went so far: until the intervals are narrow, or the time is spent."""
        elapsed, patience = self.elapsed_s(), self.patience
        least = elapsed * patience.min_rounds / max(1, course.valid_rounds)
        if len(course.reasons) >= patience.min_rounds:
            least = min(least, _LATE * patience.budget_s)
        most = elapsed * patience.max_rounds / max(1, len(course.rows))
        return max(elapsed, min(most, max(least, min(self.narrow_s, patience.budget_s))))

    def _too_few(self, course: Course) -> str:
        """That waiting for more valid rounds is of no use."""
        return (
            f"{_LATE:g} times the budget of {self.patience.budget_s:g} s was spent, and {len(course.reasons)} of "
            f"{len(course.rows)} rounds were discarded"
        )

    def _narrow_said(self) -> str:
        """The rule that was met."""
        share = self.patience.enough_share
        relative = f", or {100 * share:g}% of its distance from {self.patience.decide_at:g}" if share else ""
        return f"the interval of every ratio is within +-{self.patience.enough_percent:g}%{relative}, over the rounds"

    def _is_narrow(self, course: Course) -> bool:
        """Whether every ratio is known well enough; False where it is not yet time to look."""
        rounds = len(course.rows)
        too_early = rounds < self.next_check or course.valid_rounds < FEWEST_ROUNDS
        if too_early or self.spent_s > _CHECK_SHARE * self.elapsed_s():
            return False
        self.next_check = rounds + max(10, rounds // 10)
        began = self.clock.now_s()
        width = self._width(course.valid())
        self.spent_s += self.clock.now_s() - began
        self.narrow_s = width * width * self.elapsed_s()  # a width falls with the root of the time
        return width <= 1

    def _width(self, rows: Row) -> float:
        """The widest interval of a ratio over the rounds, where 1 is narrow enough. rows: [valid rounds, columns]."""
        ratios = _log_ratios(self.names, np.log(rows), aa=self.patience.enough_share == 0)
        if ratios is None:
            return math.inf
        half_percent = 100 * np.expm1(trimmed_half_width(ratios, self.patience.confidence))
        far_percent = 100 * np.abs(np.exp(trimmed_mean(ratios.T)) - self.patience.decide_at)
        enough = np.maximum(self.patience.enough_percent, self.patience.enough_share * far_percent)
        return float(np.max(half_percent / np.maximum(enough, _NOTHING)))


def _log_ratios(names: tuple[str, ...], logs: Row, *, aa: bool) -> Row | None:
    """By round, every network against the original, and A/A where asked; None where there is nothing to pair."""
    columns = {name: [at for at, own in enumerate(names) if own == name] for name in dict.fromkeys(names)}
    original = columns.pop(ORIGINAL, [])
    if not original:
        return None
    level = logs[:, original].mean(axis=1)
    ratios = [logs[:, own].mean(axis=1) - level for own in columns.values()]
    if len(original) > 1 and (aa or not ratios):
        first, second = halves(original)
        ratios.append(logs[:, first].mean(axis=1) - logs[:, second].mean(axis=1))
    return np.stack(ratios, axis=1) if ratios else None
