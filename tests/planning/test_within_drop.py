"""What can be had within the demand on accuracy where the target cannot: pure arithmetic on hand-made records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from planning.test_interactions import interval, judged, table
from planning.test_sets import Measured
from practise_backends.terms import Interval
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.planning.choose import choose_blocks, predicted_percent
from practise_deploy.planning.interactions import Blocks, candidates_of
from practise_deploy.planning.sets import Verified, choose_set
from practise_deploy.planning.within_drop import (
    LEAST_LEFT,
    costs_too_much,
    find_within,
    is_beyond_recovery,
    reduced_plan,
    smaller_sets,
)
from practise_deploy.terms import Budget, Considered, Loss, Plan, WithinDrop
from samples import plans, releases

EIGHT = table([0.5] * 8)  # 5% each
ALONE = judged([float(n) for n in range(1, 9)])  # a is the easiest to lose; losses add up
DEMAND = 2.0
FIFTH = Budget(reduce_percent=20.0)
REACHED = plans.plan()


def loss(low: float, estimate: float, high: float, *, estimated: bool = False) -> Loss:
    points = Interval(estimate=estimate, low=low, high=high, confidence=0.95)
    return releases.loss(points, estimated=estimated, images=200)


class Losing:
    """Loses so many points, known to +-1, by the number of blocks, and remembers which sets it was asked for."""

    def __init__(self, points: Callable[[int], float | None], *, estimated: bool = False) -> None:
        self.points, self.estimated, self.asked = points, estimated, list[Blocks]()

    def __call__(self, blocks: Blocks) -> Verified:
        self.asked.append(blocks)
        points = self.points(len(blocks))
        lost = None if points is None else loss(points - 1, points, points + 1, estimated=self.estimated)
        return Verified(np.full(3, float(len(blocks))), lost)


STEEP = {1: 1.0, 2: 1.9, 3: 2.1, 4: 15.0}


def plan_of(verify: Losing, budget: Budget = FIFTH, measure: Measured | None = None) -> Plan:
    plan = choose_set(EIGHT, ALONE, budget, measure, verify)
    verify.asked.clear()
    return plan


def within(verify: Losing, budget: Budget = FIFTH, *, finetuned: bool = True) -> WithinDrop | None:
    return find_within(EIGHT, ALONE, plan_of(verify, budget), verify, DEMAND, finetuned=finetuned)


def steeply(budget: Budget = FIFTH, *, estimated: bool = False) -> tuple[Plan, WithinDrop]:
    """Four blocks lose 15 points, three just more than is allowed, two just less."""
    verify = Losing(STEEP.__getitem__, estimated=estimated)
    plan = plan_of(verify, budget, Measured(5.5))
    found = find_within(EIGHT, ALONE, plan, verify, DEMAND, finetuned=True)
    assert found is not None
    return plan, found


def hopelessly() -> WithinDrop:
    found = within(Losing(lambda count: 10.0 * count))
    assert found is not None
    return found


# What is refused.


@pytest.mark.parametrize(
    ("low", "estimate", "beyond"),
    [
        (-1.0, 40.0, False),
        (2.0, 40.0, False),
        (2.01, 40.0, True),
        (2.01, 8.0, False),
        (2.01, 8.01, True),
        (8.0, 8.0, False),
    ],
)
def test_loss_is_beyond_recovery_where_it_surely_is_above_the_demand_and_so_is_the_least_that_can_be_left_of_it(
    low: float, estimate: float, beyond: bool
):
    assert DEMAND / LEAST_LEFT == 8.0
    assert is_beyond_recovery(loss(low, estimate, 50.0), DEMAND, finetuned=True) is beyond


@pytest.mark.parametrize(("low", "beyond"), [(1.9, False), (2.0, False), (2.01, True)])
def test_without_finetuning_nothing_is_won_back(low: float, beyond: bool):
    assert is_beyond_recovery(loss(low, 40.0, 50.0), DEMAND, finetuned=False) is beyond


@pytest.mark.parametrize("finetuned", [True, False])
def test_unknown_loss_is_not_beyond_recovery(finetuned: bool):
    assert not is_beyond_recovery(None, DEMAND, finetuned=finetuned)


@pytest.mark.parametrize("points", [None, -3.0, 0.0, 1.0, 8.0])
def test_nothing_is_refused_or_looked_at_where_the_loss_is_unknown_or_may_be_won_back(points: float | None):
    """Of eight points a quarter, two, may be left."""
    verify = Losing(lambda count: points)
    assert within(verify) is None
    assert verify.asked == []


def test_loss_that_would_be_won_back_is_refused_where_nothing_is_finetuned():
    verify = Losing(lambda count: 0.9 * count)
    assert within(verify) is None
    found = within(verify, finetuned=False)
    assert found is not None and found.best is not None
    assert found.best.dropped == ("a", "b")


def test_plan_that_no_sets_were_searched_for_is_not_refused():
    ranked = choose_blocks(EIGHT, ALONE.of, FIFTH, None)
    verify = Losing(lambda count: 90.0)
    assert ranked.dropped and find_within(EIGHT, ALONE, ranked, verify, DEMAND, finetuned=True) is None


# What is looked at.


def test_most_saving_set_that_is_expected_within_is_found_by_halves_and_the_sets_told_of_from_the_most_saving_down():
    verify = Losing(STEEP.__getitem__)
    plan = plan_of(verify)
    found = find_within(EIGHT, ALONE, plan, verify, DEMAND, finetuned=True)
    assert plan.dropped == ("a", "b", "c", "d")
    assert found is not None and found.demand_points == DEMAND and found.target_set == plan.chosen
    assert [one.dropped for one in found.sets] == verify.asked[::-1] == [("a", "b", "c"), ("a", "b")]
    assert found.best == found.sets[-1]
    assert [one.loss.points.estimate if one.loss else None for one in found.sets] == [2.1, 1.9]
    assert [one.verified_error for one in found.sets] == [3.0, 2.0]
    assert [one.predicted_error for one in found.sets] == [6.0, 3.0]
    assert [one.predicted_percent.estimate for one in found.sets] == pytest.approx([15.0, 10.0])
    assert {(one.measured_percent, one.reason) for one in found.sets} == {(None, "saves less than asked")}


def test_where_no_set_is_within_the_search_ends_with_a_single_block():
    found = hopelessly()
    assert [one.dropped for one in found.sets] == [("a", "b"), ("a",)]
    assert found.best is None


def test_set_of_unknown_loss_is_not_taken():
    found = within(Losing(lambda count: 90.0 if count == 4 else None))
    assert found is not None and found.best is None and len(found.sets) == 2


def test_one_block_that_loses_too_much_leaves_the_blocks_that_save_less():
    """a saves 20%, b 12%, c 3%."""
    latency, losses = table([2.0, 1.2, 0.3]), judged([3.0, 1.5, 0.5])
    verify = Losing(lambda count: 30.0)
    plan = choose_set(latency, losses, FIFTH, None, verify)
    assert plan.dropped == ("a",)
    assert list(smaller_sets(candidates_of(latency, losses), latency, plan)) == [("b", "c"), ("b",)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("budget", [FIFTH, Budget(reduce_percent=35.0), Budget(drop=5), Budget(drop=1)])
def test_smaller_sets_save_less_and_less_come_once_and_save_less_than_the_plan(seed: int, budget: Budget):
    rng = np.random.default_rng(seed)
    latency = table(list(rng.uniform(0.2, 1.2, 8)), half=0.02, additivity=interval(0.95, 0.02))
    forms = rng.normal(size=(8, 8))
    losses = judged(list(rng.uniform(0.5, 4.0, 8)), features=forms @ forms.T / 8)
    plan = choose_set(latency, losses, budget, None, None)
    found = list(smaller_sets(candidates_of(latency, losses), latency, plan))
    saved = [predicted_percent(blocks, latency) for blocks in found]
    assert len(found) == len(set(found)) and plan.dropped not in found and () not in found
    assert [one.estimate for one in saved] == sorted((one.estimate for one in saved), reverse=True)
    assert all(one.low < predicted_percent(plan.dropped, latency).low for one in saved)
    if len(plan.dropped) > 1:
        assert min(len(blocks) for blocks in found) == 1


def test_sets_that_save_less_are_looked_at_for_a_number_of_blocks_too():
    found = within(Losing(STEEP.__getitem__), Budget(drop=4))
    assert found is not None and found.best is not None
    assert [one.dropped for one in found.sets] == [("a", "b", "c"), ("a", "b")]


# What is said.


def test_error_names_the_saving_the_loss_the_demand_and_what_can_be_had_instead():
    _, found = steeply()
    error = costs_too_much(REACHED, found, by_default=False)
    assert isinstance(error, TargetOutOfReach) and error.exit_code == 1
    assert error.message == (
        "the target is out of reach within --max-drop 2: "
        "22.0% less latency (a, b, c, d) costs 15.0 points of accuracy [14.0, 16.0] after recovery in closed form "
        "(on 200 images that the fit did not see), and finetuning is not known to win back so much; "
        "10.0% less latency (a, b) costs 1.9 points of accuracy [0.9, 2.9] after recovery in closed form "
        "(on 200 images that the fit did not see)"
    )
    assert error.remedy == (
        "take that with --best-within-drop, or ask for --reduce 10%; --max-drop none drops the blocks all the same"
    )


def test_error_without_a_set_names_what_was_tried_and_promises_nothing():
    found = hopelessly()
    error = costs_too_much(REACHED, found, by_default=False)
    assert "--max-drop 2: 20.0% less latency (a, b, c, d) costs 40.0 points of accuracy [39.0, 41.0]" in error.message
    assert "; even 5.0% less latency (a) costs 10.0 points of accuracy [9.0, 11.0]" in error.message
    assert "--best-within-drop" not in error.remedy and "--reduce" not in error.remedy
    assert error.remedy.startswith("give more images, or allow more with --max-drop (none waives the demand)")


def test_error_says_that_the_demand_is_the_default_where_nobody_asked_for_it():
    for found in (steeply()[1], hopelessly()):
        assert "within --max-drop 2, the default: " in costs_too_much(REACHED, found, by_default=True).message
        assert "default" not in costs_too_much(REACHED, found, by_default=False).message


def test_error_says_that_the_loss_is_an_estimate_where_there_are_no_labels():
    _, guessed = steeply(estimated=True)
    told = "(estimated without labels, on 200 images that the fit did not see)"
    assert costs_too_much(REACHED, guessed, by_default=False).message.count(told) == 2
    assert "estimated" not in costs_too_much(REACHED, steeply()[1], by_default=False).message


def test_reduction_that_is_recommended_is_surely_met_by_the_set():
    _, found = steeply()
    assert found.best is not None
    unsure = replace(found.best, predicted_percent=interval(10.0, 0.26))
    assert "--reduce 9.7%" in costs_too_much(REACHED, replace(found, best=unsure), by_default=False).remedy
    nothing = replace(found.best, predicted_percent=interval(1.0, 0.95))
    assert "--drop 2" in costs_too_much(REACHED, replace(found, best=nothing), by_default=False).remedy


def test_nothing_was_tried_where_one_block_is_all_there_is():
    alone = table([2.0])
    verify = Losing(lambda count: 30.0)
    plan = choose_set(alone, judged([1.0]), Budget(drop=1), None, verify)
    found = find_within(alone, judged([1.0]), plan, verify, DEMAND, finetuned=True)
    assert found is not None and (found.sets, found.best) == ((), None)
    assert costs_too_much(REACHED, found, by_default=False).message.endswith("not known to win back so much")


def test_error_of_a_target_that_no_set_meets_tells_both_what_all_blocks_save_and_what_they_cost():
    short = replace(REACHED, reached=False)
    message = costs_too_much(short, steeply()[1], by_default=False).message
    assert message.startswith("the target of ") and "rankable blocks" in message
    assert "; within --max-drop 2: 22.0% less latency (a, b, c, d) costs 15.0 points" in message


# The plan that is taken instead.


@pytest.mark.parametrize("budget", [FIFTH, Budget(drop=4), Budget(target_ms=8.0)])
def test_reduced_plan_drops_the_best_set_measures_it_and_has_no_target(budget: Budget):
    plan, found = steeply(budget)
    measure = Measured(5.5)
    reduced = reduced_plan(plan, found, EIGHT, ALONE, measure)
    assert reduced.dropped == ("a", "b") and measure.asked == [("a", "b")]
    assert reduced.measured_percent is not None and reduced.measured_percent.estimate == pytest.approx(11.0)
    assert reduced.predicted_percent.estimate == pytest.approx(10.0)
    assert reduced.predicted_ms == pytest.approx(9.0)
    assert (reduced.budget, reduced.target_percent, reduced.reached) == (budget, None, True)
    assert reduced.attempts[:-1] == plan.attempts
    assert (reduced.attempts[-1].dropped, reduced.attempts[-1].met) == (("a", "b"), True)
    assert (reduced.baseline_ms, reduced.scores, reduced.device) == (plan.baseline_ms, plan.scores, plan.device)


def test_reduced_plan_is_predicted_alone_where_the_device_is_not_at_hand():
    plan, found = steeply()
    reduced = reduced_plan(plan, found, EIGHT, ALONE, None)
    assert reduced.dropped == ("a", "b") and reduced.measured_percent is None
    assert reduced.chosen is not None and reduced.chosen.measured_percent is None


def test_reduced_plan_tells_what_was_refused_what_was_taken_and_all_that_was_looked_at():
    plan, found = steeply()
    reduced = reduced_plan(plan, found, EIGHT, ALONE, Measured(5.5))
    taken, refused, smaller, *others = reduced.considered
    assert reduced.chosen == taken
    assert (taken.dropped, taken.reason) == (("a", "b"), "")
    assert taken.measured_percent == reduced.measured_percent
    assert (refused.dropped, refused.reason) == (plan.dropped, "costs more accuracy than --max-drop allows")
    assert (refused.loss, refused.measured_percent) == (found.target_set.loss, found.target_set.measured_percent)
    assert (smaller.dropped, smaller.reason) == (("a", "b", "c"), "saves less than asked")
    assert others == [one for one in plan.considered if one.dropped not in (plan.dropped, taken.dropped)]
    assert len({one.dropped for one in reduced.considered}) == len(reduced.considered)
    assert all(one.reason for one in reduced.considered[1:])
    assert reduced.within_drop == found


def test_reduced_plan_keeps_no_share_of_a_choice_that_was_another():
    plan, found = steeply()
    reduced = reduced_plan(plan, found, EIGHT, ALONE, None)
    assert plan.set_frequency is not None and plan.selection_frequency
    assert (reduced.set_frequency, reduced.selection_frequency) == (None, {})


def test_reduced_plan_notes_what_the_asked_set_would_have_cost():
    plan, found = steeply()
    earlier = replace(plan, notes=("something else",))
    first, note = reduced_plan(earlier, found, EIGHT, ALONE, None).notes
    assert first == "something else"
    assert note == (
        "22.0% less latency (a, b, c, d) costs 15.0 points of accuracy [14.0, 16.0] after recovery in closed form "
        "(on 200 images that the fit did not see); --best-within-drop takes the most that costs less"
    )


@pytest.mark.parametrize("budget", [FIFTH, Budget(drop=4)])
def test_reduced_plan_says_of_every_other_block_that_it_stays_and_not_that_the_target_was_met(budget: Budget):
    plan, found = steeply(budget)
    kept = {one.block: one.reason for one in reduced_plan(plan, found, EIGHT, ALONE, None).kept}
    assert list(kept) == ["c", "d", "e", "f", "g", "h"]
    assert all("accuracy" in reason for reason in kept.values())
    assert not any("was asked for" in reason or "target is met" in reason for reason in kept.values())


def test_set_that_was_considered_before_is_named_once_as_taken():
    plan, found = steeply()
    known = Considered(
        dropped=("a", "b"), predicted_error=3.0, verified_error=2.0, predicted_percent=interval(10.0),
        measured_percent=None, reason="saves too little",
    )  # fmt: skip
    reduced = reduced_plan(replace(plan, considered=(*plan.considered, known)), found, EIGHT, ALONE, None)
    assert [one.reason for one in reduced.considered if one.dropped == ("a", "b")] == [""]


def test_smaller_sets_are_found_where_savings_are_so_uncertain_that_all_blocks_together_may_save_nothing():
    unsure = table([0.5] * 8, 0.4, additivity=Interval(estimate=1.0, low=-0.5, high=2.0, confidence=0.95))
    verify = Losing(lambda count: 10.0 * count - 9.0)
    plan = choose_set(unsure, ALONE, Budget(drop=8), None, verify)
    assert predicted_percent(plan.dropped, unsure).low < 0
    sets = smaller_sets(candidates_of(unsure, ALONE), unsure, plan)
    assert [len(blocks) for blocks in sets] == sorted({len(blocks) for blocks in sets}, reverse=True) and len(
        sets[-1]
    ) == 1
    found = find_within(unsure, ALONE, plan, verify, DEMAND, finetuned=True)
    assert found is not None and found.best is not None and len(found.best.dropped) == 1
