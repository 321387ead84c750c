"""Measure networks against each other in paired rounds, so that drift cancels.

Every round runs every engine once, in a fresh random order; the round is the unit of statistics. A network
may be opened several times (sessions of one file differ in their speed): then each session runs once a round.

Warm-up, and whether every timed run follows an untimed one of the same engine: see `warm_up`. Inner loops: an
engine whose run is shorter than 100 us is run several times a round and the mean is recorded; the number is
fixed after the warm-up. Two clocks: an engine that computes in the calling thread (`computes_in_caller`) is timed by the wall
clock and by that thread's CPU time; which of them counts, and discarding: see `log`. Stopping: see `stopping`.
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

from practise_backends.choices import ClockKind
from practise_backends.errors import MeasureError
from practise_backends.interfaces import Clock, Engine, Monitor, Progress
from practise_backends.machine.environment import SystemMonitor
from practise_backends.rounds.feeds import select_feeds
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.log import RoundLog, Row
from practise_backends.rounds.stopping import Stopper
from practise_backends.rounds.warm_up import Runner, Sample, warm_up
from practise_backends.terms import CPU, WALL, Conditions, Environment, StoppingRule, Tensors, Timings

__all__ = ["ORIGINAL", "Instruments", "SystemClock", "measure_rounds"]

_MIN_SAMPLE_MS = 0.1
_MAX_INNER_LOOPS = 1000
_POLL_S = 0.25
_LOOK_S = 0.1
_DRAWN = 64
_FINE = time.get_clock_info("thread_time").resolution < 1e-5
_BUSY = 1.5
_ASKED = {ClockKind.WALL: WALL, ClockKind.CPU: CPU}


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.perf_counter()


def _thread_ms() -> float:
    """Milliseconds that the calling thread has had a processor; NaN where the system counts them in coarse steps."""
    return time.thread_time_ns() / 1e6 if _FINE else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What tells a measurement the time, and what watches the machine meanwhile.

    cpu_ms: milliseconds that the calling thread has had a processor.
    """

    clock: Clock = field(default_factory=SystemClock)
    cpu_ms: Callable[[], float] = _thread_ms
    monitor: Monitor | None = None


def measure_rounds(
    engines: Mapping[str, Sequence[Engine]],
    feeds: Tensors,
    conditions: Conditions,
    rule: StoppingRule,
    *,
    progress: Progress | None = None,
    instruments: Instruments | None = None,
) -> Timings:
    """Time all engines in paired rounds until the ratios to the original are narrow, or the stopping rule ends it.

    engines: the sessions of every network by its name, the original's under ORIGINAL (two at least give the
    noise floor). feeds: shared, every engine takes from it the inputs that it names. The budget includes the
    warm-up.
    Raises: MeasureError where a feed is missing, a time is not positive, or the stopping rule contradicts itself.
    """
    _check(engines, rule, conditions.clock)
    instruments = instruments or Instruments()
    clock, monitor = instruments.clock, instruments.monitor or SystemMonitor()
    started = clock.now_s()
    sessions = [(name, engine) for name, opened in engines.items() for engine in opened]
    names = tuple(name for name, _ in sessions)
    runners = [_runner(name, engine, feeds, instruments.cpu_ms) for name, engine in sessions]
    with _no_garbage_collection():
        warmed_up = warm_up(runners, rule, clock)
        warmup_s = clock.now_s() - started
        log = RoundLog(names=names, medians=warmed_up.medians, asked=_ASKED.get(conditions.clock, ""))
        stopper = Stopper(names=names, rule=rule, clock=clock, started=started)
        loops, priming_ms = _inner_loops(warmed_up.medians), list[float]()
        looped = _looped_runners(runners, loops)
        loop = _Loop(log=log, stopper=stopper, monitor=monitor, progress=progress)
        primed = [
            _primed(run, looped_run, priming_ms) for run, looped_run in zip(runners, looped, strict=True)
        ]
        reason = loop.run(primed if warmed_up.primed else looped, conditions.seed)
    runs = _runs_a_sample(loops, [engine for _, engine in sessions])
    looped_s = stopper.elapsed_s() - warmup_s
    walls, cpus, environment = np.array(log.walls), np.array(log.cpus), monitor.environment()
    ran_s = (float(np.sum(walls * loops)) + sum(priming_ms)) / 1e3
    return Timings(
        engines=names,
        rounds_ms=log.masked(),
        conditions=conditions,
        warmup_s=warmup_s,
        stopped_because=reason if warmed_up.stable else f"{reason}; the warm-up ended unstable",
        discarded=log.discarded(),
        environment=environment,
        overhead_percent=max(0.0, 100 * (looped_s / ran_s - 1)),
        notes=(*_clock_notes(log, engines, environment), *warmed_up.notes(), *_inner_loop_notes(names, runs)),
        raw_ms=walls,
        cpu_ms=cpus if np.isfinite(cpus).any() else None,
        runs_a_sample=runs,
        timed_by=log.clock,
    )


def _check(engines: Mapping[str, Sequence[Engine]], rule: StoppingRule, clock: ClockKind) -> None:
    """Refuse what cannot be measured."""
    elsewhere = [name for name, opened in engines.items() if not all(e.computes_in_caller for e in opened)]
    if clock == ClockKind.CPU and (elsewhere or not _FINE):
        reason = (
            f"{elsewhere[0]} does not compute in the calling thread alone"
            if elsewhere
            else "the system counts it in coarse steps"
        )
        raise MeasureError(f"CPU time cannot be told: {reason}", remedy="use --threads 1, or --clock wall")
    if not any(engines.values()):
        raise MeasureError(f"there is no engine to measure in {dict(engines)}", remedy="open at least one")
    if not 1 <= rule.min_rounds <= rule.max_rounds:
        raise MeasureError(
            f"min_rounds is {rule.min_rounds} and max_rounds is {rule.max_rounds}",
            remedy="let min_rounds be at least 1 and at most max_rounds",
        )


def _runner(name: str, engine: Engine, feeds: Tensors, cpu_ms: Callable[[], float]) -> Runner:
    """One timed run of an engine on the feeds that it names."""
    tensors = select_feeds(engine.inputs, feeds, name)
    has_cpu_time = bool(engine.computes_in_caller)

    def run() -> Sample:
        began_ms = cpu_ms() if has_cpu_time else math.nan
        took_ms = engine.time_once(tensors)
        had_ms = cpu_ms() - began_ms if has_cpu_time else math.nan
        if not 0 < took_ms < math.inf:
            raise MeasureError(f"engine '{name}' says that a run took {took_ms} ms", remedy="check its clock")
        return Sample(took_ms, had_ms)

    return run


def _clock_notes(
    log: RoundLog, engines: Mapping[str, Sequence[Engine]], environment: Environment
) -> tuple[str, ...]:
    """That the samples are CPU times, and why; or that they should be and cannot."""
    if log.asked:
        return (
            f"clock: {log.clock}, as was asked; other processes interrupted {100 * log.interrupted_share:.0f}% of the runs",
        )
    if log.clock == CPU:
        return (
            f"clock: CPU time, since other processes interrupted {100 * log.interrupted_share:.0f}% of the runs: all "
            "latencies are without what a run waited for a processor",
        )
    multithreaded = any(
        engine.computes_in_caller is False for sessions in engines.values() for engine in sessions
    )
    load, cores = max(environment.load or (0.0,)), os.cpu_count() or 1
    if not multithreaded or load <= _BUSY * cores:
        return ()
    return (
        f"clock: wall clock, on a busy machine (load {load:.1f}, {cores} cores): with several threads it cannot be told what other "
        "processes added to a run, and savings and speed-ups may look smaller than they are",
    )


def _inner_loops(medians: Row) -> list[int]:
    """How often each engine runs in a round, so that a sample takes 100 us at least."""
    return [min(_MAX_INNER_LOOPS, math.ceil(_MIN_SAMPLE_MS / median)) for median in medians]


def _runs_a_sample(loops: Sequence[int], engines: Sequence[Engine]) -> tuple[int, ...]:
    """Of how many runs a sample is the mean: of the inner loop, each of which an engine may time as the mean of several."""
    return tuple(count * engine.runs_a_timing for count, engine in zip(loops, engines, strict=True))


def _inner_loop_notes(names: Sequence[str], runs: Sequence[int]) -> tuple[str, ...]:
    """Which networks have samples that are means of several runs."""
    short = {name: count for name, count in zip(names, runs, strict=True) if count > 1}
    networks = ", ".join(f"{name} ({count} runs)" for name, count in short.items())
    explanation = (
        "a run is so short that a sample is the mean of several, and no percentile above the median is known"
    )
    return (f"{networks}: {explanation}",) if networks else ()


def _looped_runners(runners: Sequence[Runner], loops: Sequence[int]) -> list[Runner]:
    """The same runners; those that run several times a round give the mean of them."""
    return [run if count == 1 else _looped(run, count) for run, count in zip(runners, loops, strict=True)]


def _primed(run: Runner, looped_run: Runner, priming_ms: list[float]) -> Runner:
    """A sample after a priming run, which does not count; its time is added to `priming_ms`."""

    def primed() -> Sample:
        priming_ms.append(run().wall_ms)
        return looped_run()

    return primed


def _looped(run: Runner, count: int) -> Runner:
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

    log: RoundLog
    stopper: Stopper
    monitor: Monitor
    progress: Progress | None

    def run(self, runners: Sequence[Runner], seed: int) -> str:
        """Run rounds until the stopper gives its reason."""
        most = self.stopper.rule.max_rounds
        fresh: list[list[Sample]] = []
        polled_s = looked_s = self.stopper.elapsed_s()
        for number, order in enumerate(_orders(len(runners), seed), start=1):
            row = [Sample(0.0, 0.0)] * len(runners)
            for at in order:
                row[at] = runners[at]()
            fresh.append(row)
            now_s = self.stopper.elapsed_s()
            if now_s - looked_s < _LOOK_S and number < most:
                continue
            self.log.add(np.array(fresh))
            fresh, looked_s = [], now_s
            if now_s - polled_s >= _POLL_S:
                self._poll()
                polled_s = now_s
            if reason := self.stopper.reason(self.log):
                valid = self.log.valid_rounds
                self._poll()  # the latest rounds do not count before the monitor was asked about them
                polled_s = now_s
                if self.log.valid_rounds == valid or (reason := self.stopper.reason(self.log)):
                    break
        return reason

    def _poll(self) -> None:
        """Ask the system monitor, and show the progress."""
        trouble = self.monitor.trouble()
        self.log.mark_monitored("" if self.stopper.rule.keep_throttled else trouble)
        if self.progress is not None:
            rows, discarded = len(self.log.rows), len(self.log.reasons)
            note = f"{rows} rounds" + (f", {discarded} of them discarded" if discarded else "")
            self.progress.advance(self.stopper.elapsed_s(), self.stopper.expected_s(self.log), note)
