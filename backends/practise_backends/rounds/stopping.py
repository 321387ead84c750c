"""When a measurement may stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from practise_backends.interfaces import Clock
from practise_backends.rounds.intervals import (
    FEWEST_ROUNDS,
    ORIGINAL,
    columns_of,
    halves,
    trimmed_half_width,
    trimmed_mean,
)
from practise_backends.rounds.log import RoundLog, Row
from practise_backends.terms import StoppingRule

_CHECK_SHARE = 0.002
_LATE = 2.0
_NOTHING = 1e-300


@dataclass(slots=True, kw_only=True)
class Stopper:
    """Ends a measurement: after max_rounds; and, once min_rounds are valid, when the budget is spent or
    every paired ratio (and A/A) is known as well as the decision needs: its interval over the rounds is
    within `half_width_percent`, or, A/A aside, within `relative_half_width` of its distance from `decision_boundary`. How far
    sessions of one network differ comes on top, and more rounds do not change it. Where rounds are discarded
    throughout, it ends at twice the budget.

    The width alone decides, never the sign: stopping when a difference looks significant would find false ones.
    The intervals are checked every 10 rounds or 10% more rounds, while that takes under 0.2% of the time.
    """

    names: tuple[str, ...]
    rule: StoppingRule
    clock: Clock
    started: float
    next_check: int = 0
    spent_s: float = 0.0
    narrow_s: float = math.inf

    def reason(self, log: RoundLog) -> str:
        """Why to stop now, in one sentence; empty to go on."""
        if len(log.rows) >= self.rule.max_rounds:
            return f"the limit of {self.rule.max_rounds} rounds was reached"
        if log.valid_rounds < self.rule.min_rounds:
            late = self.elapsed_s() > _LATE * self.rule.budget_s and len(log.reasons) >= self.rule.min_rounds
            return self._too_few(log) if late else ""
        if self._is_narrow(log):
            return self._narrow_reason()
        if self.elapsed_s() < self.rule.budget_s:
            return ""
        spent = f"the budget of {self.rule.budget_s:g} s was spent"
        least = f"; the least number of rounds ({self.rule.min_rounds}) was run all the same"
        return spent + least * (log.valid_rounds == self.rule.min_rounds)

    def elapsed_s(self) -> float:
        """Seconds since the measurement began, warm-up included."""
        return self.clock.now_s() - self.started

    def expected_s(self, log: RoundLog) -> float:
        """Expected duration of the measurement, extrapolated: until the intervals are narrow, or the budget is spent."""
        elapsed, rule = self.elapsed_s(), self.rule
        least = elapsed * rule.min_rounds / max(1, log.valid_rounds)
        if len(log.reasons) >= rule.min_rounds:
            least = min(least, _LATE * rule.budget_s)
        most = elapsed * rule.max_rounds / max(1, len(log.rows))
        return max(elapsed, min(most, max(least, min(self.narrow_s, rule.budget_s))))

    def _too_few(self, log: RoundLog) -> str:
        """That waiting for more valid rounds is of no use."""
        return (
            f"{_LATE:g} times the budget of {self.rule.budget_s:g} s was spent, and {len(log.reasons)} of "
            f"{len(log.rows)} rounds were discarded"
        )

    def _narrow_reason(self) -> str:
        """The rule that was met, in one sentence."""
        share = self.rule.relative_half_width
        relative = (
            f", or {100 * share:g}% of its distance from {self.rule.decision_boundary:g}" if share else ""
        )
        return f"the interval of every ratio is within +-{self.rule.half_width_percent:g}%{relative}, over the rounds"

    def _is_narrow(self, log: RoundLog) -> bool:
        """Whether every ratio is known well enough; False where it is not yet time to check."""
        rounds = len(log.rows)
        too_early = rounds < self.next_check or log.valid_rounds < FEWEST_ROUNDS
        if too_early or self.spent_s > _CHECK_SHARE * self.elapsed_s():
            return False
        self.next_check = rounds + max(10, rounds // 10)
        began = self.clock.now_s()
        width = self._width(log.valid())
        self.spent_s += self.clock.now_s() - began
        self.narrow_s = width * width * self.elapsed_s()  # a width falls with the root of the time
        return width <= 1

    def _width(self, rows: Row) -> float:
        """The widest interval of a ratio over the rounds, where 1 is narrow enough. rows: [valid rounds, columns]."""
        ratios = _log_ratios(self.names, np.log(rows), aa=self.rule.relative_half_width == 0)
        if ratios is None:
            return math.inf
        half_percent = 100 * np.expm1(trimmed_half_width(ratios, self.rule.confidence))
        far_percent = 100 * np.abs(np.exp(trimmed_mean(ratios.T)) - self.rule.decision_boundary)
        enough = np.maximum(self.rule.half_width_percent, self.rule.relative_half_width * far_percent)
        return float(np.max(half_percent / np.maximum(enough, _NOTHING)))


def _log_ratios(names: tuple[str, ...], logs: Row, *, aa: bool) -> Row | None:
    """The log ratio of every network to the original, and A/A on request: float64[rounds, ratios]; None without pairs."""
    columns = {name: columns_of(names, name) for name in dict.fromkeys(names)}
    original = columns.pop(ORIGINAL, [])
    if not original:
        return None
    level = logs[:, original].mean(axis=1)
    ratios = [logs[:, sessions].mean(axis=1) - level for sessions in columns.values()]
    if len(original) > 1 and (aa or not ratios):
        first, second = halves(original)
        ratios.append(logs[:, first].mean(axis=1) - logs[:, second].mean(axis=1))
    return np.stack(ratios, axis=1) if ratios else None
