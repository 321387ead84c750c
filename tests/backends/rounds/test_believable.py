"""What the instrument promises, against a scripted clock: few false verdicts, true differences found.

Time passes on the scripted clock as the engines run, so drift meets them in the order in which they are timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from practise_backends.fake import FakeEngine, Script, ScriptedClock, drifting, noisy, scripted, steady
from practise_backends.results.compare import verdict_of
from practise_backends.rounds.estimates import LatencyEstimates, estimate_latencies
from practise_backends.rounds.measure import ORIGINAL, measure_rounds
from practise_backends.terms import Conditions, StoppingRule

Drift = Callable[[float], float]

SESSIONS, ROUNDS, RUN_MS = 4, 30, 10.0
PATIENCE = StoppingRule(budget_s=1e6, warmup_s=0.1, min_rounds=ROUNDS, max_rounds=ROUNDS, half_width_percent=0.0)
TRIALS = 1000


def linear(seed: int) -> Drift:
    """A device that grows slower, by a tenth to a half within the measurement."""
    rate = np.random.default_rng(seed).uniform(0.1, 0.5) / (SESSIONS * 2 * (ROUNDS + 12) * RUN_MS / 1e3)
    return lambda now_s: 1 + rate * now_s


def random_walk(seed: int) -> Drift:
    """A device whose speed wanders, some 2% a second of measuring."""
    steps = np.random.default_rng(seed).normal(0, 0.02 * math.sqrt(0.05), 400)
    path = np.exp(np.cumsum(steps))
    return lambda now_s: float(path[min(int(now_s / 0.05), 399)])


EARLY = replace(PATIENCE, min_rounds=15, max_rounds=60, half_width_percent=0.4)  # stops by the width of the intervals


def compared(
    drift: Drift,
    seed: int,
    *,
    new_ms: float = RUN_MS,
    session_percent: float = 0.3,
    stopping_rule: StoppingRule = PATIENCE,
) -> LatencyEstimates:
    """Two networks of several sessions each, which differ a little, in paired rounds under drift."""
    clock, rng = ScriptedClock(), np.random.default_rng(seed)
    engines = {
        name: [
            FakeEngine(_script(ms * math.exp(rng.normal(0, session_percent / 100)), drift, rng), clock)
            for _ in range(SESSIONS)
        ]
        for name, ms in ((ORIGINAL, RUN_MS), ("new", new_ms))
    }
    timings = measure_rounds(engines, {}, Conditions(seed=seed), stopping_rule, instruments=scripted(clock))
    return estimate_latencies(timings, max_replicates=400)


def _script(ms: float, drift: Drift, rng: np.random.Generator) -> Script:
    return drifting(noisy(steady(ms), 1.0, int(rng.integers(2**31))), drift)


def sequential_verdict(drift: Drift, seed: int) -> str:
    """The usual way: 10 warm-ups and 100 runs of A, then the same of B, means compared by a t-test."""
    clock, rng = ScriptedClock(), np.random.default_rng(seed)
    times = []
    for _ in range(2):
        engine = FakeEngine(_script(RUN_MS, drift, rng), clock)
        times.append(np.array([engine.time_once({}) for _ in range(110)])[10:])
    error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in times))
    distance = times[0].mean() - times[1].mean()
    return "cannot tell" if abs(distance) < 1.96 * error else "told apart"


def false_verdicts(make: Callable[[int], Drift]) -> tuple[float, float]:
    """The share of equal networks told apart: in paired rounds, and one after the other."""
    paired = [verdict_of(compared(make(seed), seed).speedup("new")) for seed in range(TRIALS)]
    sequential = [sequential_verdict(make(seed), seed) for seed in range(TRIALS)]
    return (
        sum(verdict != "cannot tell" for verdict in paired) / TRIALS,
        sum(verdict != "cannot tell" for verdict in sequential) / TRIALS,
    )


@pytest.mark.slow
def test_linear_drift_fools_sequential_timing_but_not_paired_rounds() -> None:
    paired, sequential = false_verdicts(linear)
    assert paired <= 0.06
    assert sequential >= 0.9


@pytest.mark.slow
def test_a_wandering_speed_fools_sequential_timing_but_not_paired_rounds() -> None:
    paired, sequential = false_verdicts(random_walk)
    assert paired <= 0.06
    assert sequential >= 0.5


def test_two_percent_are_found_and_the_interval_covers_the_truth() -> None:
    truth = 1 / 0.98
    found = [compared(random_walk(seed), seed, new_ms=0.98 * RUN_MS).speedup("new") for seed in range(TRIALS)]
    assert sum(one.low > 1 for one in found) >= 0.95 * TRIALS
    assert sum(one.low <= truth <= one.high for one in found) >= 0.93 * TRIALS


def test_stopping_by_the_width_finds_no_false_differences() -> None:
    found = [compared(random_walk(seed), seed, stopping_rule=EARLY).speedup("new") for seed in range(400)]
    assert sum(verdict_of(one) != "cannot tell" for one in found) <= 0.06 * 400


def test_the_noise_floor_covers_one() -> None:
    found = [compared(linear(seed), seed).noise_floor() for seed in range(300)]
    assert sum(one.low <= 1 <= one.high for one in found) >= 0.93 * 300
