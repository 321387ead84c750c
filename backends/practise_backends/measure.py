"""Measure engines against each other in paired rounds, so that drift cancels.

Every round runs every engine once, in a fresh random order; the round is the unit of statistics.

Warm-up: windows of whole passes, each of at least three passes and half of `warmup_s`, until the medians
of two successive windows agree within 5% for every engine, or until five times `warmup_s` or a third of
the budget is spent. Burst: an engine whose run is shorter than 100 us is run several times a round and
their mean recorded; how often is fixed after the warm-up. Discarding: a round in which any engine took
more than 5 times its running median (of the last 51 rounds, discarded ones included, renewed every 10) is
discarded whole. Stopping: see `_Stopper`.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from practise_backends.errors import MeasureError
from practise_backends.intervals import FEWEST_ROUNDS, ORIGINAL, REPEAT, trimmed_half_width
from practise_backends.terms import Clock, Conditions, Engine, Patience, Progress, Tensors, Timings

__all__ = ["ORIGINAL", "REPEAT", "SystemClock", "measure_rounds"]

_Row = npt.NDArray[np.float64]

_BURST_MS = 0.1
_LONGEST_BURST = 1000
_SPIKE = 5.0
_RENEW = 10
_MEMORY = 51
_AGREE = 0.05
_PASSES = 3
_CHECK_SHARE = 0.01
_SCREEN_S = 0.2


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.perf_counter()


_SYSTEM_CLOCK = SystemClock()


def measure_rounds(
    engines: Mapping[str, Engine],
    feeds: Tensors,
    conditions: Conditions,
    patience: Patience,
    *,
    clock: Clock = _SYSTEM_CLOCK,
    progress: Progress | None = None,
) -> Timings:
    """Time all engines in paired rounds until the ratios to the original are narrow, or patience ends.

    `engines` holds the original under ORIGINAL and, for the noise floor, opened a second time under REPEAT.
    `feeds` is shared: every engine takes from it the inputs that it names. The budget includes the warm-up.
    Raises: MeasureError where a feed is missing, a time is not positive, or the patience contradicts itself.
    """
    _check(engines, patience)
    started = clock.now_s()
    names = tuple(engines)
    runners = [_runner(name, engine, feeds) for name, engine in engines.items()]
    with _no_garbage_collection():
        warm = _warm_up(runners, patience, clock)
        warmup_s = clock.now_s() - started
        course = _Course(names=names, medians=warm.medians)
        stopper = _Stopper(names=names, patience=patience, clock=clock, started=started)
        reason = _run_rounds(
            _burst_runners(runners, warm.medians), course, stopper, conditions.seed, progress
        )
    return Timings(
        engines=names,
        rounds_ms=course.kept(),
        conditions=conditions,
        warmup_s=warmup_s,
        stopped_because=reason if warm.stable else f"{reason}; the warm-up ended unstable",
        discarded=tuple(course.discarded),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _WarmUp:
    """Where the warm-up ended. medians: float64[engines], milliseconds."""

    medians: _Row
    stable: bool


_Runner = Callable[[], float]


def _check(engines: Mapping[str, Engine], patience: Patience) -> None:
    """Refuse what cannot be measured."""
    if not engines:
        raise MeasureError("there is no engine to measure", remedy="open at least one")
    if not 1 <= patience.min_rounds <= patience.max_rounds:
        raise MeasureError(
            f"min_rounds is {patience.min_rounds} and max_rounds is {patience.max_rounds}",
            remedy="let min_rounds be at least 1 and at most max_rounds",
        )


def _runner(name: str, engine: Engine, feeds: Tensors) -> _Runner:
    """One timed run of an engine on the feeds that it names, in milliseconds."""
    missing = [spec.name for spec in engine.inputs if spec.name not in feeds]
    if missing:
        raise MeasureError(
            f"engine '{name}' has an input '{missing[0]}' that is not fed",
            remedy=f"feed it; fed now: {sorted(feeds)}",
        )
    own = {spec.name: feeds[spec.name] for spec in engine.inputs}

    def run() -> float:
        took_ms = engine.time_once(own)
        if not 0 < took_ms < math.inf:
            raise MeasureError(f"engine '{name}' says that a run took {took_ms} ms", remedy="check its clock")
        return took_ms

    return run


def _burst_runners(runners: Sequence[_Runner], medians: _Row) -> list[_Runner]:
    """The same runners; those shorter than 100 us give the mean of a burst that lasts as long."""
    counts = [min(_LONGEST_BURST, math.ceil(_BURST_MS / median)) for median in medians]
    return [run if count == 1 else _burst(run, count) for run, count in zip(runners, counts, strict=True)]


def _burst(run: _Runner, count: int) -> _Runner:
    """The mean of `count` runs."""
    return lambda: sum(run() for _ in range(count)) / count


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector out of the samples."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _warm_up(runners: Sequence[_Runner], patience: Patience, clock: Clock) -> _WarmUp:
    """Run all engines until two successive windows agree; the rule is in the module's docstring."""
    ends_s = clock.now_s() + min(5 * patience.warmup_s, patience.budget_s / 3)
    before = _window(runners, patience.warmup_s / 2, ends_s, clock)
    while clock.now_s() < ends_s:
        now = _window(runners, patience.warmup_s / 2, ends_s, clock)
        if bool(np.all(np.abs(now - before) <= _AGREE * np.maximum(now, before))):
            return _WarmUp(medians=now, stable=True)
        before = now
    return _WarmUp(medians=before, stable=False)


def _window(runners: Sequence[_Runner], length_s: float, ends_s: float, clock: Clock) -> _Row:
    """The medians by engine of one window of whole passes; at least one pass, however late it is."""
    started = clock.now_s()
    passes: list[list[float]] = []
    while not passes or (
        clock.now_s() < ends_s and (len(passes) < _PASSES or clock.now_s() - started < length_s)
    ):
        passes.append([run() for run in runners])
    return np.asarray(np.median(passes, axis=0))


@dataclass(slots=True, kw_only=True)
class _Course:
    """The rounds so far. medians: the running medians, milliseconds by engine."""

    names: tuple[str, ...]
    medians: _Row
    rows: list[_Row] = field(default_factory=list)
    valid: list[bool] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    valid_rounds: int = 0

    def add(self, row: _Row) -> None:
        """Record a round, and discard it by the rule."""
        spikes = np.flatnonzero(row > _SPIKE * self.medians)
        self.rows.append(row)
        self.valid.append(len(spikes) == 0)
        self.valid_rounds += self.valid[-1]
        if len(spikes):
            self.discarded.append(self._reason(row, int(spikes[0])))
        if len(self.rows) % _RENEW == 0:
            self.medians = np.asarray(np.median(self.rows[-_MEMORY:], axis=0))

    def _reason(self, row: _Row, at: int) -> str:
        """Why a round was discarded; rounds are counted from 0, as in `Timings.rounds_ms`."""
        return (
            f"round {len(self.rows) - 1}: '{self.names[at]}' took {row[at]:.4g} ms, more than "
            f"{_SPIKE:g} times its running median of {self.medians[at]:.4g} ms"
        )

    def kept(self) -> _Row:
        """All rounds, the discarded ones as NaN."""
        rows = np.array(self.rows)
        rows[~np.array(self.valid)] = np.nan
        return rows


@dataclass(slots=True, kw_only=True)
class _Stopper:
    """Ends a measurement: after max_rounds; and, once min_rounds are valid, when the budget is spent or
    the interval of every paired ratio (and of A/A) is within `enough_percent`.

    The intervals are checked every 10 rounds or 10% more rounds, while that takes under 1% of the time.
    """

    names: tuple[str, ...]
    patience: Patience
    clock: Clock
    started: float
    next_check: int = 0
    spent_s: float = 0.0

    def reason(self, course: _Course) -> str:
        """Why to stop now, in one sentence; empty to go on."""
        if len(course.rows) >= self.patience.max_rounds:
            return f"the limit of {self.patience.max_rounds} rounds was reached"
        if course.valid_rounds < self.patience.min_rounds:
            return ""
        if self._is_narrow(course):
            return f"the interval of every ratio is within +-{self.patience.enough_percent:g}%"
        if self.elapsed_s() < self.patience.budget_s:
            return ""
        spent = f"the budget of {self.patience.budget_s:g} s was spent"
        least = f"; the least number of rounds ({self.patience.min_rounds}) was run all the same"
        return spent + least * (course.valid_rounds == self.patience.min_rounds)

    def elapsed_s(self) -> float:
        """Seconds since the measurement began, warm-up included."""
        return self.clock.now_s() - self.started

    def _is_narrow(self, course: _Course) -> bool:
        """Whether every ratio is known well enough; False where it is not yet time to look."""
        rounds = len(course.rows)
        too_early = rounds < self.next_check or course.valid_rounds < FEWEST_ROUNDS
        if too_early or self.spent_s > _CHECK_SHARE * self.elapsed_s():
            return False
        self.next_check = rounds + max(10, rounds // 10)
        began = self.clock.now_s()
        narrow = _widest_percent(course, self.patience.confidence) <= self.patience.enough_percent
        self.spent_s += self.clock.now_s() - began
        return narrow


def _widest_percent(course: _Course, confidence: float) -> float:
    """The widest half-width among the paired ratios, in percent; infinite where there is nothing to pair."""
    references = [at for at, name in enumerate(course.names) if name in (ORIGINAL, REPEAT)]
    others = [at for at in range(len(course.names)) if at not in references]
    logs = np.log(np.array(course.rows)[np.array(course.valid)])
    ratios = []
    if others and references:
        ratios.append(logs[:, others] - logs[:, references].mean(axis=1, keepdims=True))
    if len(references) == 2:
        ratios.append(logs[:, references[:1]] - logs[:, references[1:]])
    if not ratios:
        return math.inf
    return 100 * math.expm1(float(trimmed_half_width(np.hstack(ratios), confidence).max()))


def _run_rounds(
    runners: Sequence[_Runner], course: _Course, stopper: _Stopper, seed: int, progress: Progress | None
) -> str:
    """Run rounds until the stopper gives its reason."""
    rng = np.random.default_rng(seed)
    shown_s = 0.0
    while not (reason := stopper.reason(course)):
        row = np.empty(len(runners))
        for at in rng.permutation(len(runners)):
            row[at] = runners[at]()
        course.add(row)
        if progress is not None and stopper.elapsed_s() - shown_s >= _SCREEN_S:
            shown_s = stopper.elapsed_s()
            budget_s = stopper.patience.budget_s
            progress.advance(min(shown_s, budget_s), budget_s, f"{len(course.rows)} rounds")
    return reason
