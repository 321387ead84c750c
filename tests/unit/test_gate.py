"""The gate: every demand at the bad end of its interval, failing closed, with the nearest set that passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practise_backends.terms import Interval
from practise_deploy.shipping.gate import Demands, judge_gate, speedup_of
from practise_deploy.terms import Budget, Frontier, FrontierPoint, Gate, Plan
from unit import plans, releases


def interval(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95)


RANKED = tuple(plans.plan().scores)
PLAN = replace(plans.plan(), dropped=RANKED[:4], set_share=None)
SPEEDUP, LOST = interval(1.2, 1.25, 1.3), interval(0.5, 1.0, 1.5)
NONE = Frontier(points=(), fit_images=0, images=0)


def point(blocks: int, reduction: float, lost: float | None, recovery: str = "closed form") -> FrontierPoint:
    """So many blocks dropped: a reduction known to +-1%, a loss known to +-0.5 points."""
    return FrontierPoint(
        dropped=RANKED[:blocks],
        recovery=recovery,
        reduction_percent=interval(reduction - 1, reduction, reduction + 1),
        accuracy=None,
        agreement_percent=interval(90, 95, 99),
        drop_points=None if lost is None else interval(lost - 0.5, lost, lost + 0.5),
        chosen=blocks == len(PLAN.dropped),
    )


def frontier(*points: FrontierPoint) -> Frontier:
    return Frontier(points=points, fit_images=100, images=400)


LADDER = frontier(*(point(blocks, 8.0 * blocks, 0.5 * blocks) for blocks in range(1, 7)))


def gate(
    min_speedup: float | None = None,
    max_drop: float | None = None,
    *,
    speedup: Interval = SPEEDUP,
    lost: Interval | None = LOST,
    plan: Plan = PLAN,
    among: Frontier = NONE,
) -> Gate:
    found = judge_gate(
        Demands(min_speedup=min_speedup, max_drop=max_drop),
        plan,
        replace(releases.comparison(), speedup=speedup),
        replace(releases.verification(), drop_points=lost),
        among,
    )
    assert found is not None
    return found


# Each demand.


def test_without_demands_there_is_no_gate():
    nothing = Demands(min_speedup=None, max_drop=None)
    assert judge_gate(nothing, PLAN, releases.comparison(), releases.verification(), NONE) is None


@pytest.mark.parametrize(("asked", "passed"), [(1.19, True), (1.2, True), (1.2001, False), (1.25, False)])
def test_speedup_passes_at_the_low_end_of_its_interval(asked: float, passed: bool):
    found = gate(min_speedup=asked)
    (constraint,) = found.constraints
    assert (found.passed, constraint.passed, constraint.name, constraint.asked) == (
        passed,
        passed,
        "min_speedup",
        asked,
    )
    assert constraint.reason == f"measured 1.250, surely 1.200, asked for at least {asked:g}"


@pytest.mark.parametrize(("asked", "passed"), [(1.6, True), (1.5, True), (1.49, False), (1.0, False)])
def test_loss_passes_at_the_high_end_of_its_interval(asked: float, passed: bool):
    found = gate(max_drop=asked)
    (constraint,) = found.constraints
    assert (found.passed, constraint.passed, constraint.name, constraint.asked) == (passed, passed, "max_drop", asked)
    assert constraint.reason == f"lost 1.00 points, maybe 1.50; asked for at most {asked:g}"


def test_no_loss_at_all_may_be_asked_for():
    assert not gate(max_drop=0.0).passed
    assert gate(max_drop=0.0, lost=interval(-1.0, -0.5, 0.0)).passed


@pytest.mark.parametrize(
    ("min_speedup", "max_drop", "each"), [(1.1, 2.0, [True, True]), (1.3, 2.0, [False, True]), (1.1, 1.0, [True, False])]
)  # fmt: skip
def test_gate_passes_where_every_demand_does(min_speedup: float, max_drop: float, each: list[bool]):
    found = gate(min_speedup, max_drop)
    assert [constraint.passed for constraint in found.constraints] == each
    assert found.passed is all(each)


def test_gate_that_passes_has_no_advice():
    found = gate(1.1, 2.0, among=LADDER)
    assert (found.passed, found.nearest, found.advice) == (True, None, "")


# Failing closed.


def test_unknown_loss_fails_and_asks_for_labels():
    found = gate(max_drop=50.0, lost=None)
    (constraint,) = found.constraints
    assert not found.passed and not constraint.passed and constraint.found is None
    assert "give labelled images with --eval" in constraint.reason


def test_set_whose_loss_is_unknown_passes_no_demand_on_it():
    among = frontier(point(2, 16, None), point(4, 32, None))
    found = gate(max_drop=50.0, lost=None, among=among)
    assert found.nearest is None and "no set that was looked at passes" in found.advice


def test_speedup_on_a_device_that_is_not_at_hand_fails_however_fast_it_is_here():
    away = replace(PLAN, measured_percent=None, device="a board far away")
    found = gate(min_speedup=1.01, plan=away, speedup=interval(5, 6, 7), among=LADDER)
    (constraint,) = found.constraints
    assert not found.passed and constraint.found is None
    assert "not measured on a board far away" in constraint.reason
    assert "practise-measure compare" in constraint.reason


def test_sets_measured_here_are_not_offered_for_a_device_that_is_not_at_hand():
    away = replace(PLAN, measured_percent=None, device="a board far away")
    found = gate(min_speedup=1.01, plan=away, among=LADDER)
    assert found.nearest is None
    assert "every speed-up was measured on another device than a board far away" in found.advice


def test_loss_is_judged_wherever_the_device_is():
    away = replace(PLAN, measured_percent=None)
    assert gate(max_drop=2.0, plan=away).passed
    nearest = gate(max_drop=1.2, plan=away, among=LADDER).nearest
    assert nearest is not None and len(nearest.dropped) == 1


# The nearest set.


def test_nearest_set_is_the_nearest_that_loses_little_enough():
    """Four blocks lose 2.5 points at worst, three 2.0, two 1.5."""
    nearest = gate(max_drop=1.5, lost=interval(1.5, 2, 2.5), among=LADDER).nearest
    assert nearest == LADDER.points[1]


def test_nearest_set_is_the_nearest_that_is_fast_enough():
    """Surely saved: 31% by four blocks, 39% by five, 47% by six."""
    found = gate(min_speedup=1.6, among=LADDER)
    assert found.nearest == LADDER.points[4]
    assert f"drops 5: {', '.join(RANKED[:5])}; 1.667 times as fast, surely 1.639" in found.advice
    assert "2.50 points lost, at most 3.00" in found.advice
    assert found.advice.endswith("recovered in closed form, before finetuning; build it with --drop 5")


def test_set_that_a_search_for_a_reduction_found_is_asked_for_by_its_reduction():
    """Five blocks save 39% at the bad end; with half an interval to spare that is 38%."""
    searched = replace(PLAN, set_share=0.7)
    found = gate(min_speedup=1.6, plan=searched, among=LADDER)
    assert found.advice.endswith("before finetuning; build one like it with --reduce 38")
    exact = gate(min_speedup=1.63, plan=searched, among=LADDER)
    assert exact.advice.endswith("build one like it with --reduce 38.7")  # what 1.63 times as fast takes


def test_set_that_a_search_for_a_number_found_is_asked_for_by_its_number():
    counted = replace(PLAN, set_share=0.7, budget=Budget(drop=4))
    found = gate(min_speedup=1.6, plan=counted, among=LADDER)
    assert found.advice.endswith("build it with --drop 5")


def test_nearest_set_meets_all_demands_not_only_the_one_that_failed():
    """Two blocks lose little enough but save too little; what saves enough loses too much."""
    found = gate(1.3, 1.5, speedup=interval(1.4, 1.5, 1.6), lost=interval(1, 2, 3), among=LADDER)
    assert [constraint.passed for constraint in found.constraints] == [True, False]
    assert found.nearest is None
    assert gate(1.1, 1.5, lost=interval(1, 2, 3), among=LADDER).nearest == LADDER.points[1]


def test_of_two_sets_as_near_the_one_with_fewer_blocks_is_taken():
    among = frontier(point(5, 40, 0.1), point(3, 30, 0.1))
    nearest = gate(max_drop=1.0, among=among).nearest
    assert nearest is not None and len(nearest.dropped) == 3


def test_same_blocks_in_another_recovery_are_named_as_such():
    found = gate(max_drop=1.0, among=frontier(point(4, 32, 0.2), point(2, 16, 0.1)))
    assert "drops 4 (the same blocks): " in found.advice


@pytest.mark.parametrize(
    ("recovery", "said"), [("none", "before any recovery; build"), ("finetuned", "at most 0.70; build")]
)
def test_advice_says_how_the_set_was_recovered(recovery: str, said: str):
    assert said in gate(max_drop=1.0, among=frontier(point(3, 30, 0.2, recovery))).advice


def test_network_with_nothing_dropped_is_no_set_to_offer():
    found = gate(max_drop=1.0, among=frontier(point(0, 1.0, 0.0)))
    assert found.nearest is None
    assert found.advice.startswith("no neighbouring set was looked at")


def test_where_no_set_passes_the_advice_says_which_were_looked_at():
    found = gate(min_speedup=3.0, among=LADDER)
    assert found.nearest is None
    assert found.advice.startswith("no set that was looked at passes (1, 2, 3, 4, 5, 6 blocks dropped): ask for less")


# A reduction as a ratio.


def test_reduction_is_a_ratio_with_its_ends_in_order():
    found = speedup_of(interval(10.0, 20.0, 50.0))
    assert (found.low, found.estimate, found.high, found.confidence) == pytest.approx((1 / 0.9, 1.25, 2.0, 0.95))
    slower = speedup_of(interval(-25.0, 0.0, 0.0))
    assert (slower.low, slower.estimate) == pytest.approx((0.8, 1.0))


def test_reduction_of_everything_is_a_finite_ratio():
    assert 1e6 < speedup_of(interval(99.0, 100.0, 101.0)).high < float("inf")
