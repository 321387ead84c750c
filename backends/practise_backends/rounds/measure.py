"""Measure networks against each other in paired rounds, so that drift cancels.

Every round runs every engine once, in a fresh random order; the round is the unit of statistics. A network
may be opened several times (sessions of one file differ in their speed): then each session runs once a round.

Warm-up, and whether every timed run follows an untimed one of the same engine: see `warm_up`. Burst: an
engine whose run is shorter than 100 us is run several times a round and their mean recorded; how often is
fixed after the warm-up. Two clocks: an engine that computes in the calling thread (`computes_in_caller`) is timed by the wall
clock and by that thread's CPU time; which of them counts, and discarding: see `course`. Stopping: see `stopping`.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from practise_backends.errors import MeasureError
from practise_backends.machine.environment import SystemWatch
from practise_backends.rounds.feeds import own_feeds
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.log import Course, Row
from practise_backends.rounds.stopping import Stopper
from practise_backends.rounds.warm_up import Runner, Sample, warm_up
from practise_backends.terms import (
    CPU,
    Clock,
    Conditions,
    Engine,
    Environment,
    Patience,
    Progress,
    Tensors,
    Timings,
    Watch,
)

__all__ = ["ORIGINAL", "Seams", "SystemClock", "measure_rounds"]

_BURST_MS = 0.1
_LONGEST_BURST = 1000
_ASK_S = 0.25
_LOOK_S = 0.1
_DRAWN = 64
_FINE = time.get_clock_info("thread_time").resolution < 1e-5
_BUSY = 1.5


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.perf_counter()


def _thread_ms() -> float:
    """Milliseconds that the calling thread has had a processor; NaN where the system counts them in coarse steps."""
    return time.thread_time_ns() / 1e6 if _FINE else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What tells a measurement the time, and what watches the machine meanwhile.

    cpu_ms: milliseconds that the calling thread has had a processor.
    """

    clock: Clock = field(default_factory=SystemClock)
    cpu_ms: Callable[[], float] = _thread_ms
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
    runners = [_runner(name, engine, feeds, seams.cpu_ms) for name, engine in sessions]
    with _no_garbage_collection():
        warm = warm_up(runners, patience, clock)
        warmup_s = clock.now_s() - started
        course = Course(names=names, medians=warm.medians)
        stopper = Stopper(names=names, patience=patience, clock=clock, started=started)
        counts, leads_ms = _burst_counts(warm.medians), list[float]()
        bursts = _burst_runners(runners, counts)
        loop = _Loop(course=course, stopper=stopper, watch=watch, progress=progress)
        led = [_led(run, burst, leads_ms) for run, burst in zip(runners, bursts, strict=True)]
        reason = loop.run(led if warm.leads else bursts, conditions.seed)
    runs = _runs_a_sample(counts, [engine for _, engine in sessions])
    looped_s = stopper.elapsed_s() - warmup_s
    walls, cpus, environment = np.array(course.walls), np.array(course.cpus), watch.environment()
    ran_s = (float(np.sum(walls * counts)) + sum(leads_ms)) / 1e3
    return Timings(
        engines=names,
        rounds_ms=course.kept(),
        conditions=conditions,
        warmup_s=warmup_s,
        stopped_because=reason if warm.stable else f"{reason}; the warm-up ended unstable",
        discarded=course.discarded(),
        environment=environment,
        overhead_percent=max(0.0, 100 * (looped_s / ran_s - 1)),
        notes=(*_clock_notes(course, engines, environment), *warm.notes(), *_burst_notes(names, runs)),
        raw_ms=walls,
        cpu_ms=cpus if np.isfinite(cpus).any() else None,
        runs_a_sample=runs,
        timed_by=course.clock,
    )


def _check(engines: Mapping[str, Sequence[Engine]], patience: Patience) -> None:
    """Refuse what cannot be measured."""
    if not any(engines.values()):
        raise MeasureError(f"there is no engine to measure in {dict(engines)}", remedy="open at least one")
    if not 1 <= patience.min_rounds <= patience.max_rounds:
        raise MeasureError(
            f"min_rounds is {patience.min_rounds} and max_rounds is {patience.max_rounds}",
            remedy="let min_rounds be at least 1 and at most max_rounds",
        )


def _runner(name: str, engine: Engine, feeds: Tensors, cpu_ms: Callable[[], float]) -> Runner:
    """One timed run of an engine on the feeds that it names."""
    own = own_feeds(engine.inputs, feeds, name)
    tells = bool(getattr(engine, "computes_in_caller", False))

    def run() -> Sample:
        began_ms = cpu_ms() if tells else math.nan
        took_ms = engine.time_once(own)
        had_ms = cpu_ms() - began_ms if tells else math.nan
        if not 0 < took_ms < math.inf:
            raise MeasureError(f"engine '{name}' says that a run took {took_ms} ms", remedy="check its clock")
        return Sample(took_ms, had_ms)

    return run


def _clock_notes(
    course: Course, engines: Mapping[str, Sequence[Engine]], environment: Environment
) -> tuple[str, ...]:
    """That the samples are CPU times, and why; or that they should be and cannot."""
    if course.clock == CPU:
        return (
            f"clock: CPU time, since other processes interrupted {100 * course.interrupted_share:.0f}% of the runs: all "
            "latencies are without what a run waited for a processor",
        )
    several = any(
        getattr(one, "computes_in_caller", None) is False for opened in engines.values() for one in opened
    )
    load, cores = max(environment.load or (0.0,)), os.cpu_count() or 1
    if not several or load <= _BUSY * cores:
        return ()
    return (
        f"clock: wall clock, on a busy machine (load {load:.1f}, {cores} cores): with several threads it cannot be told what other "
        "processes added to a run, and savings and speed-ups may look smaller than they are",
    )


def _burst_counts(medians: Row) -> list[int]:
    """How often each engine runs in a round, so that it runs for 100 us at least."""
    return [min(_LONGEST_BURST, math.ceil(_BURST_MS / median)) for median in medians]


def _runs_a_sample(counts: Sequence[int], engines: Sequence[Engine]) -> tuple[int, ...]:
    """Of how many runs a sample is the mean: of a burst, each of which an engine may time as the mean of several."""
    return tuple(
        count * getattr(engine, "runs_a_timing", 1) for count, engine in zip(counts, engines, strict=True)
    )


def _burst_notes(names: Sequence[str], runs: Sequence[int]) -> tuple[str, ...]:
    """That samples are means, of the networks whose are."""
    short = {name: count for name, count in zip(names, runs, strict=True) if count > 1}
    said = ", ".join(f"{name} ({count} runs)" for name, count in short.items())
    told = (
        "a run is so short that a sample is the mean of several, and no percentile above the median is told"
    )
    return (f"{said}: {told}",) if said else ()


def _burst_runners(runners: Sequence[Runner], counts: Sequence[int]) -> list[Runner]:
    """The same runners; those that run several times a round give the mean of them."""
    return [run if count == 1 else _burst(run, count) for run, count in zip(runners, counts, strict=True)]


def _led(run: Runner, burst: Runner, leads_ms: list[float]) -> Runner:
    """A burst after a run that does not count; what that took is added to `leads_ms`."""

    def led() -> Sample:
        leads_ms.append(run().wall_ms)
        return burst()

    return led


def _burst(run: Runner, count: int) -> Runner:
    """The mean of `count` runs."""
    return lambda: Sample(*(sum(clock) / count for clock in zip(*(run() for _ in range(count)), strict=True)))


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

    def run(self, runners: Sequence[Runner], seed: int) -> str:
        """Run rounds until the stopper gives its reason."""
        most = self.stopper.patience.max_rounds
        fresh: list[list[Sample]] = []
        asked_s = looked_s = self.stopper.elapsed_s()
        for number, order in enumerate(_orders(len(runners), seed), start=1):
            row = [Sample(0.0, 0.0)] * len(runners)
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
            rows, gone = len(self.course.rows), len(self.course.reasons)
            note = f"{rows} rounds" + (f", {gone} of them discarded" if gone else "")
            self.progress.advance(self.stopper.elapsed_s(), self.stopper.expected_s(self.course), note)
