"""Measuring in rounds, against a scripted clock."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import pytest

from practise_backends.choices import ClockKind
from practise_backends.errors import Disturbed, MeasureError
from practise_backends.fake import (
    BusyCore,
    FakeEngine,
    Script,
    ScriptedClock,
    ScriptedMonitor,
    noisy,
    scripted,
    spiking,
    steady,
)
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.measure import measure_rounds
from practise_backends.terms import CPU, WALL, Conditions, Environment, StoppingRule, TensorSpec, Timings

PATIENCE = StoppingRule(budget_s=1e6, warmup_s=0.1, min_rounds=40, max_rounds=40, half_width_percent=0.0)


def engines_of(clock: ScriptedClock, **scripts: Script) -> dict[str, list[FakeEngine]]:
    return {name: [FakeEngine(script, clock)] for name, script in scripts.items()}


def paired(
    original: Script, again: Script, other: Script, stopping_rule: StoppingRule = PATIENCE, seed: int = 0
) -> Timings:
    """The original opened twice, and another network."""
    clock = ScriptedClock()
    engines = {
        ORIGINAL: [FakeEngine(original, clock), FakeEngine(again, clock)],
        "other": [FakeEngine(other, clock)],
    }
    return measure_rounds(engines, {}, Conditions(seed=seed), stopping_rule, instruments=scripted(clock))


def test_every_round_runs_every_engine_once_in_a_fresh_order() -> None:
    clock, calls = ScriptedClock(), list[str]()

    def noting(name: str) -> Script:
        def script(call: int, now_s: float) -> float:
            calls.append(name)
            return 1.0

        return script

    engines = engines_of(clock, **{name: noting(name) for name in "abc"})
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, instruments=scripted(clock))
    rounds = [tuple(calls[-3 * at :][:3]) for at in range(1, len(timings.rounds_ms) + 1)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) == 6


def test_the_seed_of_the_conditions_decides_the_order() -> None:
    first, again, other = (
        paired(*(noisy(steady(5.0), 1.0, at) for at in range(3)), seed=seed).rounds_ms for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert first.shape == other.shape


def test_round_with_a_spike_is_discarded_whole_with_its_reason() -> None:
    timings = paired(steady(10.0), steady(10.0), spiking(steady(10.0), {30}, 8.0))
    lost = np.flatnonzero(np.isnan(timings.rounds_ms).any(axis=1))
    assert len(lost) == len(timings.discarded) == 1
    assert np.isnan(timings.rounds_ms[lost[0]]).all()
    assert timings.discarded[0] == (
        f"round {lost[0]}: 'other' took 80 ms, more than 5 times its running median of 10 ms"
    )


def test_throttled_rounds_are_dropped_with_what_the_watch_says_and_counted() -> None:
    clock = ScriptedClock()
    engines = {ORIGINAL: [FakeEngine(steady(10.0), clock), FakeEngine(steady(10.0), clock)]}
    heat = scripted(clock, lambda now_s: "the processor throttled for heat" if 2.0 < now_s < 4.0 else "")
    stopping_rule = dataclasses.replace(PATIENCE, min_rounds=200, max_rounds=300)
    timings = measure_rounds(engines, {}, Conditions(), stopping_rule, instruments=heat)
    lost = np.isnan(timings.rounds_ms).any(axis=1).sum()
    assert 90 <= lost <= 120  # two seconds of rounds of 20 ms, to the next question after them
    assert lost == len(timings.discarded)
    assert all(reason.endswith("the processor throttled for heat") for reason in timings.discarded)
    kept = dataclasses.replace(stopping_rule, keep_throttled=True)
    clock = ScriptedClock()
    engines = {ORIGINAL: [FakeEngine(steady(10.0), clock), FakeEngine(steady(10.0), clock)]}
    heat = scripted(clock, lambda now_s: "the processor throttled for heat" if 2.0 < now_s < 4.0 else "")
    assert measure_rounds(engines, {}, Conditions(), kept, instruments=heat).discarded == ()


def test_rounds_that_are_all_discarded_end_at_twice_the_budget() -> None:
    clock = ScriptedClock()
    engines = {ORIGINAL: [FakeEngine(steady(10.0), clock), FakeEngine(steady(10.0), clock)]}
    always = scripted(clock, lambda now_s: "the control group's quota stopped this process")
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=3.0, min_rounds=10, max_rounds=5000)
    timings = measure_rounds(engines, {}, Conditions(), stopping_rule, instruments=always)
    assert timings.stopped_because.startswith("2 times the budget of 3 s was spent")
    assert clock.now_s() < 7.0
    with pytest.raises(Disturbed, match="0 valid rounds") as found:
        estimate_latencies(timings)
    assert "--keep-throttled" in found.value.remedy and found.value.exit_code == 3


def test_a_round_that_is_slow_as_a_whole_is_dropped() -> None:
    throttled: Script = lambda call, now_s: 20.0 if 1.0 < now_s < 1.5 else 10.0  # noqa: E731
    timings = paired(throttled, throttled, throttled, dataclasses.replace(PATIENCE, max_rounds=80, min_rounds=80))
    assert 6 <= len(timings.discarded) <= 10
    assert "the whole round took 2 times its running median" in timings.discarded[1]
    assert np.nanmax(np.median(timings.rounds_ms, axis=1)) < 15.0


def test_a_ratio_known_to_a_share_of_its_distance_is_narrow_enough() -> None:
    scripts = [noisy(steady(ms), 2.0, at) for at, ms in enumerate((10.0, 10.0, 5.0))]
    strict = dataclasses.replace(PATIENCE, max_rounds=5000, half_width_percent=0.3)
    timings = paired(*scripts, strict)
    engines = dataclasses.replace(strict, relative_half_width=0.1)
    scripts = [noisy(steady(ms), 2.0, at) for at, ms in enumerate((10.0, 10.0, 5.0))]
    fewer = paired(*scripts, engines)
    assert fewer.stopped_because.endswith("or 10% of its distance from 1, over the rounds")
    assert 40 <= len(fewer.rounds_ms) < len(timings.rounds_ms)


def test_the_loop_says_how_much_time_it_took_itself() -> None:
    clock = ScriptedClock()

    def with_a_pause(call: int, now_s: float) -> float:
        clock.advance(0.0005)  # half a millisecond beside a run of ten
        return 10.0

    engines = {ORIGINAL: [FakeEngine(with_a_pause, clock), FakeEngine(with_a_pause, clock)]}
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, instruments=scripted(clock))
    assert timings.overhead_percent == pytest.approx(5.0)
    assert timings.environment is not None


def test_runs_that_the_caches_slow_after_another_engine_are_led_by_an_untimed_one_and_it_says_so() -> None:
    clock, last = ScriptedClock(), [""]

    def cached(name: str) -> Script:
        def script(call: int, now_s: float) -> float:
            slow, last[0] = last[0] != name, name
            return 1.1 if slow else 1.0

        return script

    engines = {ORIGINAL: [FakeEngine(cached("a"), clock)], "other": [FakeEngine(cached("b"), clock)]}
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, instruments=scripted(clock))
    assert timings.rounds_ms == pytest.approx(np.ones((40, 2)))
    assert timings.notes == (
        "every timed run follows an untimed one of the same engine, as in continuous use: after another engine's "
        "run one takes 10.0% longer",
    )


def test_long_runs_are_not_led() -> None:
    timings = paired(steady(20.0), steady(20.0), steady(18.0))
    assert timings.notes == ()


def test_a_lasting_change_of_speed_is_not_discarded_for_ever() -> None:
    change: Script = lambda call, now_s: 1.0 if now_s < 2.0 else 7.0  # noqa: E731
    stopping_rule = dataclasses.replace(PATIENCE, min_rounds=1000, max_rounds=1000)
    timings = paired(change, change, change, stopping_rule)
    assert 0 < len(timings.discarded) < 60


def test_it_stops_when_every_interval_is_narrow() -> None:
    stopping_rule = dataclasses.replace(PATIENCE, max_rounds=5000, half_width_percent=0.5)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), stopping_rule)
    assert timings.stopped_because == "the interval of every ratio is within +-0.5%, over the rounds"
    assert 40 < len(timings.rounds_ms) < 300
    assert timings.engines == (ORIGINAL, ORIGINAL, "other")
    ratio = estimate_latencies(timings).ratio("other")
    assert 0.97 < ratio.low <= ratio.estimate <= ratio.high < 1.03


def test_it_stops_when_the_budget_is_spent() -> None:
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=6.0, min_rounds=10, max_rounds=5000)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), stopping_rule)
    assert timings.stopped_because == "the budget of 6 s was spent"
    assert 6.0 <= timings.warmup_s + np.nansum(timings.rounds_ms) / 1e3 < 6.1


def test_it_stops_at_the_limit_of_rounds() -> None:
    timings = paired(steady(10.0), steady(10.0), steady(9.0))
    assert timings.stopped_because == "the limit of 40 rounds was reached"
    assert timings.rounds_ms.shape == (40, 3)


def test_the_least_rounds_are_run_even_over_budget_and_it_says_so() -> None:
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=0.05, min_rounds=20, max_rounds=500)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), stopping_rule)
    assert len(timings.rounds_ms) == 20
    assert "the least number of rounds (20) was run all the same" in timings.stopped_because


def test_warm_up_lasts_until_the_times_are_stable() -> None:
    warming: Script = lambda call, now_s: 10.0 * (1 + math.exp(-now_s))  # noqa: E731
    stopping_rule = dataclasses.replace(PATIENCE, warmup_s=2.0)
    cold, warm = (paired(script, script, script, stopping_rule) for script in (warming, steady(10.0)))
    assert cold.warmup_s > warm.warmup_s
    assert "unstable" not in cold.stopped_because
    assert np.nanmax(cold.rounds_ms) < 11.0


def test_warm_up_that_never_settles_ends_and_says_so() -> None:
    growing: Script = lambda call, now_s: 10.0 * math.exp(min(now_s, 1.0))  # noqa: E731
    timings = paired(growing, growing, growing, dataclasses.replace(PATIENCE, max_rounds=40))
    assert timings.stopped_because.endswith("the warm-up ended unstable")


def test_runs_shorter_than_100_us_are_measured_in_bursts() -> None:
    clock = ScriptedClock()
    engines = engines_of(clock, short=steady(0.01), long=steady(1.0))
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, instruments=scripted(clock))
    warm_passes = engines["long"][0].timed - 40
    assert engines["short"][0].timed == warm_passes + 40 * 10
    assert timings.rounds_ms == pytest.approx(np.tile([0.01, 1.0], (40, 1)))
    assert timings.runs_a_sample == (10, 1)
    assert any(note.startswith("short (10 runs): a run is so short") for note in timings.notes)


def test_an_engine_takes_its_own_inputs_from_shared_feeds() -> None:
    clock = ScriptedClock()
    spec = TensorSpec(name="image", shape=(1,), dtype="float32")
    feeds = {"image": np.zeros(1, np.float32), "tokens": np.zeros(1, np.int64)}
    engines = {ORIGINAL: [FakeEngine(steady(1.0), clock, (spec,))]}
    assert len(measure_rounds(engines, feeds, Conditions(), PATIENCE, instruments=scripted(clock)).rounds_ms) == 40
    with pytest.raises(MeasureError, match="input 'image' that is not fed"):
        measure_rounds(engines, {}, Conditions(), PATIENCE, instruments=scripted(clock))


def test_progress_hears_of_the_budget() -> None:
    heard: list[tuple[float, float, str]] = []

    class Screen:
        def advance(self, done: float, total: float, note: str = "") -> None:
            heard.append((done, total, note))

    clock = ScriptedClock()
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=10.0, min_rounds=10, max_rounds=5000)
    measure_rounds(
        engines_of(clock, a=steady(10.0)),
        {},
        Conditions(),
        stopping_rule,
        instruments=scripted(clock),
        progress=Screen(),
    )
    assert heard
    assert all(done <= total == pytest.approx(10.0, rel=0.01) for done, total, _ in heard)
    assert heard[-1][2].endswith("rounds")


def heard_of(stopping_rule: StoppingRule, *scripts: Script, trouble: str = "") -> list[tuple[float, float, str]]:
    """What the screen is told of a measurement of the original, twice, and another network."""
    heard: list[tuple[float, float, str]] = []

    class Screen:
        def advance(self, done: float, total: float, note: str = "") -> None:
            heard.append((done, total, note))

    clock = ScriptedClock()
    first, second, other = (FakeEngine(script, clock) for script in scripts)
    instruments = scripted(clock, lambda now_s: trouble)
    measure_rounds(
        {ORIGINAL: [first, second], "other": [other]},
        {},
        Conditions(),
        stopping_rule,
        progress=Screen(),
        instruments=instruments,
    )
    assert all(done <= total for done, total, _ in heard)
    return heard


def test_progress_expects_the_end_where_the_intervals_get_narrow_enough() -> None:
    stopping_rule = dataclasses.replace(
        PATIENCE, budget_s=1000.0, min_rounds=10, max_rounds=50000, half_width_percent=0.2
    )
    heard = heard_of(stopping_rule, *(noisy(steady(10.0), 2.0, seed) for seed in range(3)))
    end = heard[-1][0]
    late = [total for done, total, _ in heard if done > end / 2]
    assert end < 100 and all(0.6 * end < total < 1.6 * end for total in late)


def test_progress_expects_a_slow_machine_to_take_longer_than_the_budget() -> None:
    """Rounds of 3 s, of which 40 must be valid, in a budget of 60 s."""
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=60.0, min_rounds=40, max_rounds=5000)
    heard = heard_of(stopping_rule, *(noisy(steady(1000.0), 2.0, seed) for seed in range(3)))
    assert heard[-1][0] == pytest.approx(120, rel=0.1)
    assert all(100 < total < 150 for done, total, _ in heard if done > 30)


def test_progress_of_a_device_in_trouble_counts_the_discarded_rounds_and_expects_twice_the_budget() -> None:
    stopping_rule = dataclasses.replace(PATIENCE, budget_s=6.0, min_rounds=10, max_rounds=5000)
    heard = heard_of(stopping_rule, *(steady(10.0) for _ in range(3)), trouble="the quota stopped this process")
    assert heard[-1][2].endswith("of them discarded") and heard[-1][1] == pytest.approx(12.0, rel=0.05)


def test_a_time_that_is_not_positive_is_an_error() -> None:
    with pytest.raises(MeasureError, match="took 0"):
        paired(steady(1.0), steady(1.0), steady(0.0))


def test_contradicting_patience_is_refused() -> None:
    with pytest.raises(MeasureError, match="max_rounds"):
        paired(steady(1.0), steady(1.0), steady(1.0), dataclasses.replace(PATIENCE, max_rounds=10))
    with pytest.raises(MeasureError, match="no engine"):
        measure_rounds({}, {}, Conditions(), PATIENCE)


def beside_others(
    wait_ms: float, *, in_caller: bool = True, load: float = 0.0, clock: ClockKind = ClockKind.END_TO_END
) -> Timings:
    """A network of 20 ms and one that takes 5% less, on a core where every 9 ms other processes have their turn."""
    scripted_clock, core = ScriptedClock(), BusyCore(slice_ms=9.0, wait_ms=wait_ms)

    def opened(ms: float, seed: int) -> FakeEngine:
        return FakeEngine(core.shared(noisy(steady(ms), 0.3, seed)), scripted_clock, computes_in_caller=in_caller)

    engines = {ORIGINAL: [opened(20.0, 1), opened(20.0, 2)], "other": [opened(19.0, 3), opened(19.0, 4)]}
    stopping_rule = dataclasses.replace(PATIENCE, min_rounds=400, max_rounds=400)
    instruments = scripted(scripted_clock, core=core)
    if load:
        environment = dataclasses.replace(ScriptedMonitor(scripted_clock).environment(), load=(load, load))
        instruments = dataclasses.replace(instruments, monitor=Constant(environment))
    return measure_rounds(engines, {}, Conditions(clock=clock), stopping_rule, instruments=instruments)


@dataclasses.dataclass
class Constant:
    """A monitor that sees no trouble, and always the same environment."""

    found: Environment

    def trouble(self) -> str:
        return ""

    def environment(self) -> Environment:
        return self.found


def test_beside_other_processes_ratios_are_of_cpu_time_and_the_result_says_so() -> None:
    timings = beside_others(wait_ms=27.0)
    assert estimate_latencies(timings).ratio("other").estimate == pytest.approx(0.95, abs=0.002)
    assert (timings.timed_by, beside_others(wait_ms=0.0).timed_by) == (CPU, WALL)
    assert any("clock: CPU time, since other processes interrupted 100% of the runs" in note for note in timings.notes)
    assert timings.raw_ms is not None and timings.cpu_ms is not None
    assert timings.rounds_ms == pytest.approx(timings.cpu_ms) and np.median(timings.raw_ms / timings.cpu_ms) > 2.5


def test_alone_on_its_core_the_wall_clock_counts_and_agrees_with_the_cpu_time() -> None:
    timings = beside_others(wait_ms=0.0)
    assert timings.cpu_ms is not None
    assert np.array_equal(timings.rounds_ms, timings.raw_ms)
    assert timings.raw_ms == pytest.approx(timings.cpu_ms)
    assert not timings.notes


@pytest.mark.parametrize(("clock", "counts"), [(ClockKind.WALL, WALL), (ClockKind.CPU, CPU)])
def test_clock_that_was_asked_for_counts_whatever_disturbs(clock: ClockKind, counts: str) -> None:
    for wait_ms in (27.0, 0.0):
        timings = beside_others(wait_ms, clock=clock)
        of_clock = timings.cpu_ms if counts == CPU else timings.raw_ms
        kept = ~np.isnan(timings.rounds_ms)
        assert of_clock is not None and np.array_equal(timings.rounds_ms[kept], of_clock[kept])
        assert timings.timed_by == counts
        assert any(note.startswith(f"clock: {counts}, as was asked") for note in timings.notes)


def test_cpu_time_of_other_threads_is_refused() -> None:
    with pytest.raises(MeasureError, match="does not compute in the calling thread alone") as found:
        beside_others(0.0, in_caller=False, clock=ClockKind.CPU)
    assert "--clock wall" in found.value.remedy


def test_where_engines_have_threads_of_their_own_a_busy_machine_is_told() -> None:
    cores = os.cpu_count() or 1
    busy, quiet = (beside_others(27.0, in_caller=False, load=load) for load in (2.0 * cores, 0.5 * cores))
    counted = ~np.isnan(busy.rounds_ms)
    assert busy.raw_ms is not None and np.array_equal(busy.rounds_ms[counted], busy.raw_ms[counted])
    assert any("clock: wall clock, on a busy machine" in note and "may look smaller" in note for note in busy.notes)
    assert not quiet.notes


def test_rounds_are_discarded_by_the_clock_that_counts() -> None:
    """Waits of several turns are no reason to throw a round away where CPU time counts."""
    assert len(beside_others(wait_ms=90.0).discarded) <= 10
