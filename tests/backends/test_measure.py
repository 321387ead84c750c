"""Measuring in rounds, against a scripted clock."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from practise_backends.errors import MeasureError
from practise_backends.fake import FakeEngine, Script, ScriptedClock, drifting, noisy, spiking, steady
from practise_backends.intervals import noise_floor, paired_ratio
from practise_backends.measure import ORIGINAL, REPEAT, measure_rounds
from practise_backends.terms import Conditions, Patience, TensorSpec, Timings

PATIENCE = Patience(budget_s=1e6, warmup_s=0.1, min_rounds=40, max_rounds=40, enough_percent=0.0)


def engines_of(clock: ScriptedClock, **scripts: Script) -> dict[str, FakeEngine]:
    return {name: FakeEngine(script, clock) for name, script in scripts.items()}


def paired(
    original: Script, repeat: Script, other: Script, patience: Patience = PATIENCE, seed: int = 0
) -> Timings:
    clock = ScriptedClock()
    engines = {
        ORIGINAL: FakeEngine(original, clock),
        REPEAT: FakeEngine(repeat, clock),
        "other": FakeEngine(other, clock),
    }
    return measure_rounds(engines, {}, Conditions(seed=seed), patience, clock=clock)


def under_drift(ms: float, seed: int, phase: float) -> Script:
    """A device that slows by up to 20% and recovers, over some 4 seconds."""
    return drifting(noisy(steady(ms), 1.0, seed), lambda now_s: 1.1 + 0.1 * math.sin(1.6 * now_s + phase))


def one_after_the_other(seed: int, phase: float) -> bool:
    """Whether timing 40 runs of A and then 40 runs of B calls two equal networks different."""
    clock = ScriptedClock()
    first, second = (FakeEngine(under_drift(10.0, seed + at, phase), clock) for at in (0, 1))
    a = np.log([first.time_once({}) for _ in range(40)])
    b = np.log([second.time_once({}) for _ in range(40)])
    error = math.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 40)
    return bool(abs(a.mean() - b.mean()) > 1.96 * error)


def test_drift_fools_sequential_timing_but_not_paired_rounds() -> None:
    false_in_rounds, false_in_sequence = 0, 0
    for trial in range(200):
        phase, seed = 2 * math.pi * trial / 200, 10 * trial
        timings = paired(*(under_drift(10.0, seed + at, phase) for at in range(3)), seed=trial)
        ratio = paired_ratio(timings, "other")
        false_in_rounds += not ratio.low <= 1 <= ratio.high
        false_in_sequence += one_after_the_other(seed, phase)
    assert false_in_rounds <= 24  # 5% nominal of 200, and some for 40 rounds being few
    assert false_in_sequence >= 120


def test_two_percent_are_found_under_drift() -> None:
    timings = paired(under_drift(10.0, 1, 0.0), under_drift(10.0, 2, 0.0), under_drift(9.8, 3, 0.0))
    ratio = paired_ratio(timings, "other")
    assert ratio.low < 0.98 < ratio.high < 1
    floor = noise_floor(timings)
    assert floor.low <= 1 <= floor.high


def test_every_round_runs_every_engine_once_in_a_fresh_order() -> None:
    clock, calls = ScriptedClock(), list[str]()

    def noting(name: str) -> Script:
        def script(call: int, now_s: float) -> float:
            calls.append(name)
            return 1.0

        return script

    engines = engines_of(clock, **{name: noting(name) for name in "abc"})
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, clock=clock)
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


def test_a_lasting_change_of_speed_is_not_discarded_for_ever() -> None:
    change: Script = lambda call, now_s: 1.0 if now_s < 2.0 else 7.0  # noqa: E731
    patience = dataclasses.replace(PATIENCE, min_rounds=1000, max_rounds=1000)
    timings = paired(change, change, change, patience)
    assert 0 < len(timings.discarded) < 60


def test_it_stops_when_every_interval_is_narrow() -> None:
    patience = dataclasses.replace(PATIENCE, max_rounds=5000, enough_percent=0.5)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), patience)
    assert timings.stopped_because == "the interval of every ratio is within +-0.5%"
    assert 40 < len(timings.rounds_ms) < 300
    for names, against in ((("other",), (ORIGINAL, REPEAT)), ((REPEAT,), (ORIGINAL,))):
        interval = paired_ratio(timings, names, against)
        assert interval.high - interval.low < 2 * 0.006


def test_it_stops_when_the_budget_is_spent() -> None:
    patience = dataclasses.replace(PATIENCE, budget_s=6.0, min_rounds=10, max_rounds=5000)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), patience)
    assert timings.stopped_because == "the budget of 6 s was spent"
    assert 6.0 <= timings.warmup_s + np.nansum(timings.rounds_ms) / 1e3 < 6.1


def test_it_stops_at_the_limit_of_rounds() -> None:
    timings = paired(steady(10.0), steady(10.0), steady(9.0))
    assert timings.stopped_because == "the limit of 40 rounds was reached"
    assert timings.rounds_ms.shape == (40, 3)


def test_the_least_rounds_are_run_even_over_budget_and_it_says_so() -> None:
    patience = dataclasses.replace(PATIENCE, budget_s=0.05, min_rounds=20, max_rounds=500)
    timings = paired(*(noisy(steady(10.0), 2.0, at) for at in range(3)), patience)
    assert len(timings.rounds_ms) == 20
    assert "the least number of rounds (20) was run all the same" in timings.stopped_because


def test_warm_up_lasts_until_the_times_are_stable() -> None:
    warming: Script = lambda call, now_s: 10.0 * (1 + math.exp(-now_s))  # noqa: E731
    patience = dataclasses.replace(PATIENCE, warmup_s=2.0)
    cold, warm = (paired(script, script, script, patience) for script in (warming, steady(10.0)))
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
    timings = measure_rounds(engines, {}, Conditions(), PATIENCE, clock=clock)
    warm_passes = engines["long"].timed - 40
    assert engines["short"].timed == warm_passes + 40 * 10
    assert timings.rounds_ms == pytest.approx(np.tile([0.01, 1.0], (40, 1)))


def test_an_engine_takes_its_own_inputs_from_shared_feeds() -> None:
    clock = ScriptedClock()
    spec = TensorSpec(name="image", shape=(1,), dtype="float32")
    feeds = {"image": np.zeros(1, np.float32), "tokens": np.zeros(1, np.int64)}
    engines = {ORIGINAL: FakeEngine(steady(1.0), clock, (spec,))}
    assert len(measure_rounds(engines, feeds, Conditions(), PATIENCE, clock=clock).rounds_ms) == 40
    with pytest.raises(MeasureError, match="input 'image' that is not fed"):
        measure_rounds(engines, {}, Conditions(), PATIENCE, clock=clock)


def test_progress_hears_of_the_budget() -> None:
    heard: list[tuple[float, float, str]] = []

    class Screen:
        def advance(self, done: float, total: float, note: str = "") -> None:
            heard.append((done, total, note))

    clock = ScriptedClock()
    patience = dataclasses.replace(PATIENCE, budget_s=10.0, min_rounds=10, max_rounds=5000)
    measure_rounds(
        engines_of(clock, a=steady(10.0)), {}, Conditions(), patience, clock=clock, progress=Screen()
    )
    assert heard
    assert all(done <= total == 10.0 for done, total, _ in heard)
    assert heard[-1][2].endswith("rounds")


def test_a_time_that_is_not_positive_is_an_error() -> None:
    with pytest.raises(MeasureError, match="took 0"):
        paired(steady(1.0), steady(1.0), steady(0.0))


def test_contradicting_patience_is_refused() -> None:
    with pytest.raises(MeasureError, match="max_rounds"):
        paired(steady(1.0), steady(1.0), steady(1.0), dataclasses.replace(PATIENCE, max_rounds=10))
    with pytest.raises(MeasureError, match="no engine"):
        measure_rounds({}, {}, Conditions(), PATIENCE)
