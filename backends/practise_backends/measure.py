"""Measure networks against each other in paired rounds, so that drift cancels.

Every round runs every engine once, in a fresh random order; the round is the unit of statistics. A network
may be opened several times (sessions of one file differ in their speed): then each session runs once a round.

Warm-up: windows of whole passes, each of at least three passes and half of `warmup_s`, until the medians
of two successive windows agree within 5% for every engine, or until five times `warmup_s` or a third of
the budget is spent. Burst: an engine whose run is shorter than 100 us is run several times a round and
their mean recorded; how often is fixed after the warm-up. Discarding: see `course`. Stopping: see `stopping`.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from practise_backends.course import Course, Row
from practise_backends.environment import SystemWatch
from practise_backends.errors import MeasureError
from practise_backends.intervals import ORIGINAL
from practise_backends.stopping import Stopper
from practise_backends.terms import (
    Clock,
    Conditions,
    Engine,
    Patience,
    Progress,
    Tensors,
    Timings,
    Watch,
)

__all__ = ["ORIGINAL", "Seams", "SystemClock", "measure_rounds"]

_BURST_MS = 0.1
_LONGEST_BURST = 1000
_AGREE = 0.05
_PASSES = 3
_ASK_S = 0.25
_LOOK_S = 0.1
_DRAWN = 64


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.perf_counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What tells a measurement the time, and what watches the machine meanwhile."""

    clock: Clock = field(default_factory=SystemClock)
    watch: Watch | None = None


def measure_rounds(
    engines: Mapping[str, Sequence[Engine]],
    feeds: Tensors,
    conditions: Conditions,
    patience: Patience,
    *,
    progress: Progress | None = None,
    seams: Seams | None = None,
) -> Timings:
    """Time all engines in paired rounds until the ratios to the original are narrow, or patience ends.

    engines: the sessions of every network by its name, the original's under ORIGINAL (two at least give the
    noise floor). feeds: shared, every engine takes from it the inputs that it names. The budget includes the
    warm-up.
    Raises: MeasureError where a feed is missing, a time is not positive, or the patience contradicts itself.
    """
    _check(engines, patience)
    seams = seams or Seams()
    clock, watch = seams.clock, seams.watch or SystemWatch()
    started = clock.now_s()
    sessions = [(name, engine) for name, opened in engines.items() for engine in opened]
    names = tuple(name for name, _ in sessions)
    runners = [_runner(name, engine, feeds) for name, engine in sessions]
    with _no_garbage_collection():
        warm = _warm_up(runners, patience, clock)
        warmup_s = clock.now_s() - started
        course = Course(names=names, medians=warm.medians)
        stopper = Stopper(names=names, patience=patience, clock=clock, started=started)
        counts = _burst_counts(warm.medians)
        loop = _Loop(course=course, stopper=stopper, watch=watch, progress=progress)
        reason = loop.run(_burst_runners(runners, counts), conditions.seed)
    looped_s = stopper.elapsed_s() - warmup_s
    measured_s = float(np.sum(np.array(course.rows) * counts)) / 1e3
    return Timings(
        engines=names,
        rounds_ms=course.kept(),
        conditions=conditions,
        warmup_s=warmup_s,
        stopped_because=reason if warm.stable else f"{reason}; the warm-up ended unstable",
        discarded=course.discarded(),
        environment=watch.environment(),
        overhead_percent=max(0.0, 100 * (looped_s / measured_s - 1)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _WarmUp:
    """Where the warm-up ended. medians: float64[engines], milliseconds."""

    medians: Row
    stable: bool


_Runner = Callable[[], float]


def _check(engines: Mapping[str, Sequence[Engine]], patience: Patience) -> None:
    """Refuse what cannot be measured."""
    if not any(engines.values()):
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


def _burst_counts(medians: Row) -> list[int]:
    """How often each engine runs in a round, so that it runs for 100 us at least."""
    return [min(_LONGEST_BURST, math.ceil(_BURST_MS / median)) for median in medians]


def _burst_runners(runners: Sequence[_Runner], counts: Sequence[int]) -> list[_Runner]:
    """The same runners; those that run several times a round give the mean of them."""
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


def _window(runners: Sequence[_Runner], length_s: float, ends_s: float, clock: Clock) -> Row:
    """The medians by engine of one window of whole passes; at least one pass, however late it is."""
    started = clock.now_s()
    passes: list[list[float]] = []
    while not passes or (
        clock.now_s() < ends_s and (len(passes) < _PASSES or clock.now_s() - started < length_s)
    ):
        passes.append([run() for run in runners])
    return np.asarray(np.median(passes, axis=0))


def _orders(count: int, seed: int) -> Iterator[list[int]]:
    """A random order of the engines for every round; drawn many at a time, which costs less."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permuted(np.tile(np.arange(count), (_DRAWN, 1)), axis=1).tolist()


@dataclass(slots=True, kw_only=True)
class _Loop:
    """The rounds themselves. Between two looks at them (100 ms) nothing but the engines runs."""

    course: Course
    stopper: Stopper
    watch: Watch
    progress: Progress | None

    def run(self, runners: Sequence[_Runner], seed: int) -> str:
        """Run rounds until the stopper gives its reason."""
        most = self.stopper.patience.max_rounds
        fresh: list[list[float]] = []
        asked_s = looked_s = self.stopper.elapsed_s()
        for number, order in enumerate(_orders(len(runners), seed), start=1):
            row = [0.0] * len(runners)
            for at in order:
                row[at] = runners[at]()
            fresh.append(row)
            now_s = self.stopper.elapsed_s()
            if now_s - looked_s < _LOOK_S and number < most:
                continue
            self.course.add(np.array(fresh))
            fresh, looked_s = [], now_s
            if now_s - asked_s >= _ASK_S:
                self._look_around()
                asked_s = now_s
            if reason := self.stopper.reason(self.course):
                valid = self.course.valid_rounds
                self._look_around()  # the latest rounds do not count before the watch was asked about them
                asked_s = now_s
                if self.course.valid_rounds == valid or (reason := self.stopper.reason(self.course)):
                    break
        return reason

    def _look_around(self) -> None:
        """Ask the watch, and tell the screen."""
        trouble = self.watch.trouble()
        self.course.heed("" if self.stopper.patience.keep_throttled else trouble)
        if self.progress is not None:
            budget_s = self.stopper.patience.budget_s
            done_s = min(self.stopper.elapsed_s(), budget_s)
            self.progress.advance(done_s, budget_s, f"{len(self.course.rows)} rounds")
