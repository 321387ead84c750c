"""Intervals: coverage, refusals and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from practise_backends.errors import Disturbed, MeasureError
from practise_backends.rounds.estimates import ESTIMATORS, estimate_latencies
from practise_backends.rounds.intervals import (
    ORIGINAL,
    bootstrap,
    halves,
    percentile_ms,
    percentile_of,
    samples_ms,
    trimmed_half_width,
    trimmed_mean,
    wilson,
)
from practise_backends.terms import Conditions, Timings


def timings_of(rounds_ms: np.ndarray, engines: tuple[str, ...] = (ORIGINAL, ORIGINAL, "other")) -> Timings:
    return Timings(engines=engines, rounds_ms=rounds_ms, conditions=Conditions(), warmup_s=0.0, stopped_because="test")


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.1, 10, 1)


def test_trimmed_mean_varies_less_than_the_median_under_heavy_tails() -> None:
    samples = heavy_tailed(np.random.default_rng(2), (4000, 60))
    assert trimmed_mean(samples).var() < 0.9 * np.median(samples, axis=1).var()
    assert trimmed_mean(samples).var() < 0.3 * samples.mean(axis=1).var()


def test_normal_approximation_agrees_with_the_bootstrap() -> None:
    samples = np.random.default_rng(3).normal(0, 1, 200)
    found = bootstrap(samples, trimmed_mean)
    assert trimmed_half_width(samples[:, None], 0.95)[0] == pytest.approx((found.high - found.low) / 2, rel=0.15)


def test_discarded_rounds_are_left_out() -> None:
    rounds = np.tile([10.0, 10.0, 5.0], (12, 1))
    rounds[3] = np.nan
    assert estimate_latencies(timings_of(rounds)).ratio("other").estimate == pytest.approx(0.5)
    assert len(samples_ms(timings_of(rounds), ORIGINAL)) == 22


def test_sessions_of_one_network_are_pooled_by_their_mean_log_time() -> None:
    rounds = np.tile([10.0, 10.0, 4.0, 16.0], (10, 1))
    levels = estimate_latencies(timings_of(rounds, (ORIGINAL, ORIGINAL, "a", "a")))
    assert levels.ratio("a").estimate == pytest.approx(0.8)
    assert levels.speedup("a").estimate == pytest.approx(1.25)


def test_constant_samples_give_an_interval_of_no_width() -> None:
    levels = estimate_latencies(timings_of(np.tile([10.0, 10.0, 5.0], (10, 1))))
    ratio = levels.ratio("other")
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert levels.noise_floor().estimate == pytest.approx(1.0)
    assert levels.session_percent == pytest.approx(0.0)
    assert levels.typical_ms("other").high == pytest.approx(5.0)


@pytest.mark.parametrize("slow_rounds", [30, 49, 51, 70])
def test_latencies_of_a_device_in_two_states_differ_by_the_speedup(slow_rounds: int) -> None:
    """The original's median alone may be of slow rounds, and the other's of fast ones: 5.38 -> 1.6 ms beside 1.33 times."""
    rng = np.random.default_rng(13)
    state = rng.permutation(np.repeat([1.0, 3.2], [100 - slow_rounds, slow_rounds]))[:, None]
    rounds = np.array([1.68, 1.68, 1.26]) * state * np.exp(rng.normal(0, 0.02, (100, 3)))
    levels = estimate_latencies(timings_of(rounds))
    before, after = levels.typical_ms(ORIGINAL), levels.typical_ms("other")
    assert before.estimate / after.estimate == pytest.approx(levels.speedup("other").estimate)
    assert levels.speedup("other").estimate == pytest.approx(1.68 / 1.26, rel=0.02)
    assert before.estimate == pytest.approx(1.68 * (3.2 if slow_rounds > 50 else 1.0), rel=0.1)


def test_latency_of_the_median_round_is_known_as_well_as_its_interval_says() -> None:
    rng, covered = np.random.default_rng(14), 0
    for _ in range(60):
        rounds = 10 * np.exp(rng.normal(0, 0.05, (120, 1)) + rng.normal(0, 0.01, (120, 4)))
        found = estimate_latencies(timings_of(rounds, (ORIGINAL,) * 2 + ("other",) * 2)).typical_ms("other")
        covered += found.low <= 10 <= found.high
    assert covered >= 53


def test_sessions_that_differ_widen_the_interval_by_what_they_differ() -> None:
    noise = np.exp(np.random.default_rng(8).normal(0, 0.001, (200, 8)))
    names = (ORIGINAL,) * 4 + ("other",) * 4
    alike = estimate_latencies(timings_of(noise * 10.0, names))
    apart = estimate_latencies(timings_of(noise * [10.0, 10.2, 9.9, 10.1, 10.0, 10.2, 9.9, 10.1], names))
    assert alike.session_percent < 0.1
    assert apart.session_percent == pytest.approx(1.29, abs=0.1)
    widths = [found.ratio("other").high - found.ratio("other").low for found in (alike, apart)]
    assert widths[0] < 0.001
    assert widths[1] == pytest.approx(2 * 2.447 * 0.0129 / math.sqrt(2), rel=0.2)  # t of 6 degrees of freedom


def test_one_session_of_each_gives_no_session_effect_and_says_so() -> None:
    noise = np.exp(np.random.default_rng(9).normal(0, 0.01, (50, 2)))
    levels = estimate_latencies(timings_of(noise, (ORIGINAL, "other")))
    assert math.isnan(levels.session_percent)
    assert levels.errors_percent == {}
    with pytest.raises(MeasureError, match="opened only once"):
        levels.noise_floor()


def test_the_estimator_is_the_one_that_errs_least_between_sessions_of_one_file() -> None:
    rng = np.random.default_rng(10)
    names = (ORIGINAL,) * 4 + ("other",) * 4
    heavy = np.exp(0.02 * heavy_tailed(rng, (120, 8)))
    assert estimate_latencies(timings_of(heavy, names)).estimator.startswith(("20% trimmed mean", "median"))
    normal = np.exp(rng.normal(0, 0.02, (120, 8)))
    assert estimate_latencies(timings_of(normal, names)).estimator.startswith(("20% trimmed mean", "mean"))
    floor = 1 + 0.3 * rng.random((120, 8)) ** 0.3 * (rng.random((120, 8)) < 0.7)  # quiet at the bottom alone
    disturbed = estimate_latencies(timings_of(floor, names))
    assert disturbed.estimator == "difference of the lower deciles"
    assert set(disturbed.errors_percent) == set(ESTIMATORS)
    assert min(disturbed.errors_percent.values()) == disturbed.errors_percent[disturbed.estimator]


def test_the_round_effect_is_taken_out() -> None:
    drift = np.exp(np.cumsum(np.random.default_rng(11).normal(0, 0.05, 60)))[:, None]
    ratio = estimate_latencies(timings_of(drift * [10.0, 10.0, 9.0])).ratio("other")
    assert (ratio.low, ratio.high) == pytest.approx((0.9, 0.9))


def test_fewer_than_ten_rounds_carry_no_interval() -> None:
    rounds = np.ones((12, 3))
    rounds[:3] = np.nan
    with pytest.raises(Disturbed, match="9 valid rounds of 12") as disturbed:
        estimate_latencies(timings_of(rounds))
    with pytest.raises(MeasureError, match="6 valid rounds of 9") as short:
        estimate_latencies(timings_of(rounds[:9]))
    assert (disturbed.value.exit_code, short.value.exit_code) == (3, 2)
    assert short.value.remedy == "measure for longer"


def test_engine_that_was_not_measured_is_named() -> None:
    with pytest.raises(MeasureError, match="'nobody'"):
        estimate_latencies(timings_of(np.ones((10, 3)))).ratio("nobody")


def test_the_same_samples_give_the_same_interval() -> None:
    timings = timings_of(np.exp(np.random.default_rng(5).normal(0, 0.1, (30, 3))))
    assert estimate_latencies(timings).ratio("other") == estimate_latencies(timings).ratio("other")


def test_percentile_without_enough_samples_is_refused() -> None:
    samples = np.random.default_rng(6).exponential(1, 1000)
    assert percentile_ms(samples[:367], 99) is None
    assert percentile_ms(samples[:368], 99) is not None
    assert percentile_ms(samples[:5], 50) is None
    assert percentile_ms(samples[:6], 50) is not None
    assert percentile_ms([], 50) is None


def test_sessions_do_not_stand_in_for_rounds_in_a_percentile() -> None:
    rng, covered = np.random.default_rng(12), 0
    assert percentile_of(timings_of(np.ones((120, 4)), (ORIGINAL,) * 4), ORIGINAL, 99) is None
    for _ in range(60):
        rounds = 10 * np.exp(rng.normal(0, 0.05, (120, 1)) + rng.normal(0, 0.01, (120, 4)))
        found = percentile_of(timings_of(rounds, (ORIGINAL,) * 4), ORIGINAL, 50)
        assert found is not None
        covered += found.low <= 10 <= found.high
    assert covered >= 53


def test_parts_of_the_original_are_opened_no_sooner_than_each_other() -> None:
    for count in (3, 4, 5, 6, 8):
        first, second = halves(range(count))
        assert sorted(first + second) == list(range(count))
        assert np.mean(first) == np.mean(second) == (count - 1) / 2
    assert halves([7, 9]) == ([7], [9])


def test_order_statistics_of_the_median_of_100_are_the_tabled_ones() -> None:
    found = percentile_ms(np.arange(1, 101), 50)
    assert found is not None
    assert (found.low, found.high) == (40, 61)


def test_percentile_interval_covers_the_truth() -> None:
    rng, truth, covered = np.random.default_rng(7), -math.log(0.1), 0
    for _ in range(300):
        found = percentile_ms(rng.exponential(1, 150), 90)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered >= 0.93 * 300


def test_a_fraction_is_not_taken_for_a_percentile() -> None:
    with pytest.raises(MeasureError, match=r"0\.99"):
        percentile_ms(np.arange(1000), 0.99)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_the_known_values(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_refuses_what_is_no_proportion() -> None:
    for successes, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(MeasureError):
            wilson(successes, n)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1e4), min_size=10, max_size=60))
def test_every_interval_holds_its_estimate(samples: list[float]) -> None:
    rounds = np.array([[1.0, 1.0, sample] for sample in samples])
    levels = estimate_latencies(timings_of(rounds))
    for found in (levels.ratio("other"), levels.typical_ms("other")):
        assert 0 < found.low <= found.estimate * (1 + 1e-12)
        assert found.estimate <= found.high * (1 + 1e-12)
