"""A final measurement that does not tell whether what was asked is met is made again, for longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practise_backends.fake import FakeBackend, ScriptedClock, steady
from practise_backends.interfaces import Capabilities, MeasurementSetup
from practise_backends.terms import Comparison, Conditions, Interval, StoppingRule
from practise_deploy.planning.remeasuring import FASTER, is_undecided, last_of, longer, required_speedups
from samples import plans, releases


def found(low: float, estimate: float, high: float) -> Comparison:
    return replace(
        releases.comparison(), speedup=Interval(estimate=estimate, low=low, high=high, confidence=0.95), notes=("busy",)
    )


def test_release_is_held_against_being_faster_the_target_and_the_demand():
    plan = replace(plans.plan(), target_percent=20.0)
    assert required_speedups(plan, None) == (FASTER, pytest.approx(1.25))
    assert required_speedups(plan, 1.2) == (FASTER, pytest.approx(1.25), 1.2)
    assert required_speedups(replace(plan, target_percent=None), None) == (FASTER,)
    assert required_speedups(replace(plan, measured_percent=None), 1.2) == ()


@pytest.mark.parametrize(
    "low, high, undecided",
    [
        (1.25, 1.4, False),
        (1.2499, 1.4, True),
        (1.1, 1.25, True),
        (1.1, 1.2499, False),
        (1.0, 1.2, True),
        (0.8, 1.0, False),
    ],
)
def test_undecided_is_what_was_asked_within_the_interval(low: float, high: float, undecided: bool):
    assert is_undecided(found(low, (low + high) / 2, high).speedup, (FASTER, 1.25)) is undecided


def wide(session_percent: float, discarded: int = 0) -> Comparison:
    """Known to +-5%, with six sessions of each network that differ by so much."""
    gone = tuple(f"round {at}: a spike" for at in range(discarded))
    return replace(found(1.235, 1.3, 1.365), sessions=6, session_percent=session_percent, rounds=100, discarded=gone)


def test_further_measurement_has_twice_the_time_and_more_sessions_where_these_make_it_wide():
    backend = FakeBackend(ScriptedClock(), lambda artifact: steady(1.0))
    stand = MeasurementSetup(
        backend=backend, conditions=Conditions(), stopping_rule=StoppingRule(budget_s=60.0, sessions=6)
    )
    second = longer(stand, wide(4.0)).stopping_rule
    assert (second.budget_s, second.sessions) == (120, 12)
    assert second.half_width_percent == stand.stopping_rule.half_width_percent / 2
    assert longer(stand, wide(2.0)).stopping_rule.sessions == 6  # the rounds make it wide
    assert longer(stand, wide(4.0, discarded=51)).stopping_rule.sessions == 6  # longer rounds are hit the more
    backend.capabilities = Capabilities(builds_differ=True)
    assert longer(stand, wide(4.0)).stopping_rule.sessions == 6


def test_last_measurement_counts_and_says_what_the_others_did_not_tell():
    first, second, third = found(1.18, 1.33, 1.5), found(1.2, 1.32, 1.45), found(1.28, 1.31, 1.34)
    assert last_of([first]) == first
    told = last_of([first, second, third])
    assert told.speedup == third.speedup
    assert told.notes == (
        "busy",
        "measured again for longer, and that alone counts: 1.330 [1.180, 1.500], then 1.320 [1.200, 1.450] "
        "did not tell whether what was asked is met",
    )
