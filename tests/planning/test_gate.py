"""The gate: every demand by its interval, kept, broken or not proven, with the nearest set that passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practise_backends.terms import Interval
from practise_deploy.outcome import Answer, Criterion, Frontier, FrontierPoint, GateResult
from practise_deploy.planning.gate import Criteria, answer_of, evaluate_gate, speedup_of
from practise_deploy.terms import Budget, Loss, Plan
from samples import plans, releases


def interval(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95)


RANKED = tuple(plans.plan().scores)
PLAN = replace(plans.plan(), dropped=RANKED[:4], set_frequency=None)
SPEEDUP = interval(1.2, 1.25, 1.3)
NONE = Frontier(points=(), fit_images=0, images=0)
KEPT, BROKEN, NOT_PROVEN = Answer.KEPT, Answer.BROKEN, Answer.NOT_PROVEN


def loss(low: float, estimate: float, high: float, *, estimated: bool = False, images: int = 400) -> Loss:
    return releases.loss(interval(low, estimate, high), estimated=estimated, images=images)


LOST = loss(0.5, 1.0, 1.5)


def point(blocks: int, reduction: float, lost: float | None, recovery: str = "closed form") -> FrontierPoint:
    """So many blocks dropped: a reduction known to +-1%, a loss known to +-0.5 points."""
    return FrontierPoint(
        dropped=RANKED[:blocks],
        recovery=recovery,
        reduction_percent=interval(reduction - 1, reduction, reduction + 1),
        accuracy=None,
        agreement_percent=interval(90, 95, 99),
        loss=None if lost is None else loss(lost - 0.5, lost, lost + 0.5),
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
    lost: Loss | None = LOST,
    by_default: bool = False,
    plan: Plan = PLAN,
    among: Frontier = NONE,
) -> GateResult:
    found = evaluate_gate(
        Criteria(min_speedup=min_speedup, max_drop=max_drop, by_default=by_default),
        plan,
        replace(releases.comparison(), speedup=speedup),
        replace(releases.verification(), loss=lost),
        among,
    )
    assert found is not None
    return found


def only(found: GateResult) -> Criterion:
    (constraint,) = found.constraints
    return constraint


def answers(found: GateResult) -> list[Answer]:
    return [constraint.answer for constraint in found.constraints]


# Each demand.


def test_without_demands_there_is_no_gate():
    nothing = Criteria(min_speedup=None, max_drop=None)
    assert evaluate_gate(nothing, PLAN, releases.comparison(), releases.verification(), NONE) is None


@pytest.mark.parametrize(
    ("asked", "answer"), [(1.19, KEPT), (1.2, KEPT), (1.2001, NOT_PROVEN), (1.3, NOT_PROVEN), (1.3001, BROKEN)]
)
def test_speedup_is_kept_by_its_low_end_broken_by_its_high_end_and_else_not_proven(asked: float, answer: Answer):
    found = gate(min_speedup=asked)
    constraint = only(found)
    assert (constraint.answer, constraint.name, constraint.required) == (answer, "min_speedup", asked)
    assert found.fails is constraint.fails is (answer is not KEPT)
    assert constraint.reason.startswith(f"measured 1.250, lower bound 1.200, required {asked:g}")
    assert ("its interval does not tell" in constraint.reason) is (answer is NOT_PROVEN)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [(1.6, KEPT), (1.5, KEPT), (1.49, NOT_PROVEN), (1.0, NOT_PROVEN), (0.99, BROKEN), (0.0, BROKEN)],
)
def test_loss_is_kept_by_its_high_end_broken_by_its_estimate_and_else_not_proven(asked: float, answer: Answer):
    found = gate(max_drop=asked)
    constraint = only(found)
    assert (constraint.answer, constraint.name, constraint.required) == (answer, "max_drop", asked)
    assert answer_of(LOST, asked) is answer
    assert (constraint.measured, constraint.estimated, constraint.by_default) == (LOST.points, False, False)

    assert constraint.reason.startswith(f"1.0 points lost [0.5, 1.5], at most {asked:g} allowed")
    assert (", on 400 held-out images" in constraint.reason) is (answer is NOT_PROVEN)
    assert found.fails is constraint.fails is (answer is not KEPT)


@pytest.mark.parametrize(("asked", "answer"), [(1.6, NOT_PROVEN), (1.0, NOT_PROVEN), (0.9, BROKEN)])
def test_original_at_chance_has_no_accuracy_of_which_the_loss_could_be_kept(asked: float, answer: Answer):
    constraint = only(gate(max_drop=asked, lost=replace(LOST, above_chance=False)))
    assert constraint.answer is answer
    assert ("is indistinguishable from chance" in constraint.reason) == (answer is NOT_PROVEN)


def test_no_loss_at_all_may_be_asked_for():
    assert gate(max_drop=0.0).fails
    assert not gate(max_drop=0.0, lost=loss(-1.0, -0.5, 0.0)).fails


def test_demand_that_is_not_proven_says_what_cannot_be_excluded_and_how_many_images_would_settle_it():
    constraint = only(gate(max_drop=2.0, lost=loss(-13.3192, 0.0, 13.3192, images=25)))
    assert constraint.answer is NOT_PROVEN
    assert constraint.reason == (
        "0.0 points lost [-13.3, 13.3], at most 2 allowed, on 25 held-out images; about 189 such images would settle it"
    )


def test_images_are_not_called_for_where_the_estimate_is_at_the_demand():
    reason = only(gate(max_drop=1.0)).reason
    assert reason.endswith("at most 1 allowed, on 400 held-out images")


@pytest.mark.parametrize("asked", [2.0, 1.2, 0.5])
def test_estimate_without_labels_is_judged_as_a_measurement_is_and_named_as_an_estimate(asked: float):
    guessed = only(gate(max_drop=asked, lost=replace(LOST, estimated=True)))
    known = only(gate(max_drop=asked))
    assert (guessed.answer, guessed.measured, guessed.fails) == (known.answer, known.measured, known.fails)
    assert (guessed.estimated, known.estimated) == (True, False)
    assert guessed.reason == known.reason.replace("[0.5, 1.5]", "[0.5, 1.5] (estimated without labels)")


@pytest.mark.parametrize(
    ("min_speedup", "max_drop", "each"),
    [
        (1.1, 2.0, [KEPT, KEPT]),
        (1.4, 2.0, [BROKEN, KEPT]),
        (1.3, 2.0, [NOT_PROVEN, KEPT]),
        (1.1, 1.2, [KEPT, NOT_PROVEN]),
        (1.1, 0.9, [KEPT, BROKEN]),
        (1.3, 0.9, [NOT_PROVEN, BROKEN]),
    ],
)
def test_gate_fails_where_a_demand_of_the_user_is_not_kept(min_speedup: float, max_drop: float, each: list[Answer]):
    found = gate(min_speedup, max_drop)
    assert answers(found) == each
    assert found.fails is (each != [KEPT, KEPT])


def test_gate_that_passes_has_no_advice():
    found = gate(1.1, 2.0, among=LADDER)
    assert (found.fails, found.nearest, found.advice) == (False, None, "")


# The demand that nobody named.


@pytest.mark.parametrize(("asked", "answer"), [(1.5, KEPT), (1.2, NOT_PROVEN), (0.9, BROKEN)])
def test_default_demand_is_judged_as_one_that_was_asked_and_fails_only_where_it_is_broken(asked: float, answer: Answer):
    found = gate(max_drop=asked, by_default=True, among=LADDER)
    constraint = only(found)
    assert (constraint.answer, constraint.by_default) == (answer, True)
    assert constraint.reason == only(gate(max_drop=asked)).reason
    assert found.fails is constraint.fails is (answer is BROKEN)
    assert bool(found.advice) is (answer is BROKEN)


def test_default_demand_does_not_fail_a_network_that_is_no_classifier():
    found = gate(max_drop=2.0, by_default=True, lost=None)
    assert (only(found).answer, found.fails, found.advice) == (NOT_PROVEN, False, "")


def test_default_of_the_loss_excuses_no_missing_speedup():
    """A speed-up is never demanded by default."""
    away = replace(PLAN, measured_percent=None, device="a board far away")
    found = gate(1.01, 2.0, by_default=True, plan=away)
    assert answers(found) == [NOT_PROVEN, KEPT]
    assert [constraint.by_default for constraint in found.constraints] == [False, True]
    assert found.fails


# Failing closed.


def test_loss_of_what_is_no_classifier_fails_any_demand_and_says_why():
    found = gate(max_drop=50.0, lost=None)
    constraint = only(found)
    assert found.fails and constraint.answer is NOT_PROVEN and constraint.measured is None
    assert not constraint.estimated
    assert constraint.reason == "the output is not what the task is about, so no loss can be measured (see --task)"


def test_set_whose_loss_is_unknown_passes_no_demand_on_it():
    among = frontier(point(2, 16, None), point(4, 32, None))
    found = gate(max_drop=50.0, lost=None, among=among)
    assert found.nearest is None and "no set that was looked at passes" in found.advice


def test_speedup_on_a_device_that_is_not_at_hand_fails_however_fast_it_is_here():
    away = replace(PLAN, measured_percent=None, device="a board far away")
    found = gate(min_speedup=1.01, plan=away, speedup=interval(5, 6, 7), among=LADDER)
    constraint = only(found)
    assert found.fails and constraint.answer is NOT_PROVEN and constraint.measured is None
    assert "not measured on a board far away" in constraint.reason
    assert "practise-measure compare" in constraint.reason


def test_sets_measured_here_are_not_offered_for_a_device_that_is_not_at_hand():
    away = replace(PLAN, measured_percent=None, device="a board far away")
    found = gate(min_speedup=1.01, plan=away, among=LADDER)
    assert found.nearest is None
    assert "every speed-up was measured on another device than a board far away" in found.advice


def test_loss_is_judged_wherever_the_device_is():
    away = replace(PLAN, measured_percent=None)
    assert not gate(max_drop=2.0, plan=away).fails
    nearest = gate(max_drop=1.2, plan=away, among=LADDER).nearest
    assert nearest is not None and len(nearest.dropped) == 1


# The nearest set.


def test_nearest_set_is_the_nearest_that_loses_little_enough():
    """Four blocks lose 2.5 points at worst, three 2.0, two 1.5."""
    nearest = gate(max_drop=1.5, lost=loss(1.5, 2, 2.5), among=LADDER).nearest
    assert nearest == LADDER.points[1]


def test_nearest_set_is_the_nearest_that_is_fast_enough():
    """Saving, lower bound: 31% by four blocks, 39% by five, 47% by six."""
    found = gate(min_speedup=1.6, among=LADDER)
    assert found.nearest == LADDER.points[4]
    assert f"drops 5: {', '.join(RANKED[:5])}; 1.667 times as fast, lower bound 1.639" in found.advice
    assert "2.50 points lost, at most 3.00" in found.advice
    assert found.advice.endswith("recovered in closed form, before finetuning; build it with --drop 5")


def test_set_that_a_search_for_a_reduction_found_is_asked_for_by_its_reduction():
    """Five blocks save 39% at the bad end; with half an interval to spare that is 38%."""
    searched = replace(PLAN, set_frequency=0.7)
    found = gate(min_speedup=1.6, plan=searched, among=LADDER)
    assert found.advice.endswith("before finetuning; build one like it with --reduce 38")
    exact = gate(min_speedup=1.63, plan=searched, among=LADDER)
    assert exact.advice.endswith("build one like it with --reduce 38.7")  # what 1.63 times as fast takes


def test_set_that_a_search_for_a_number_found_is_asked_for_by_its_number():
    counted = replace(PLAN, set_frequency=0.7, budget=Budget(drop=4))
    found = gate(min_speedup=1.6, plan=counted, among=LADDER)
    assert found.advice.endswith("build it with --drop 5")


def test_nearest_set_meets_all_demands_not_only_the_one_that_failed():
    """Two blocks lose little enough but save too little; what saves enough loses too much."""
    found = gate(1.3, 1.5, speedup=interval(1.4, 1.5, 1.6), lost=loss(1, 2, 3), among=LADDER)
    assert answers(found) == [KEPT, BROKEN]
    assert found.nearest is None
    assert gate(1.1, 1.5, lost=loss(1, 2, 3), among=LADDER).nearest == LADDER.points[1]


def test_set_that_is_not_proven_is_not_offered():
    """Three blocks lose 1.5 points, and maybe 2.0."""
    lost, among = loss(2.5, 3, 3.5), frontier(point(3, 24, 1.5), point(1, 8, 0.5))
    nearest = gate(max_drop=1.8, lost=lost, among=among).nearest
    assert nearest is not None and len(nearest.dropped) == 1
    assert gate(max_drop=1.8, lost=lost, among=frontier(point(3, 24, 1.5))).nearest is None


def test_set_that_is_not_proven_by_default_is_offered_for_it_does_not_fail():
    """So few images that no set can be proven: five blocks are fast enough, and six lose too much."""
    unsure = [replace(point(blocks, 8.0 * blocks, 0.0), loss=loss(-4, 0.3 * blocks, 9)) for blocks in (3, 4, 5)]
    among = frontier(*unsure, replace(point(6, 48, 0.0), loss=loss(-4, 3.0, 9)))
    found = gate(1.6, 2.0, lost=loss(-4, 0.4, 9), by_default=True, among=among)
    assert answers(found) == [BROKEN, NOT_PROVEN] and found.fails
    assert found.nearest == among.points[2]
    assert gate(1.8, 2.0, lost=loss(-4, 0.4, 9), by_default=True, among=among).nearest is None
    assert gate(1.6, 2.0, lost=loss(-4, 0.4, 9), among=among).nearest is None


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
