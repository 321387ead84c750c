"""Which set of blocks goes: predicted, verified, measured, and planned again where the measurement misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from planning.test_interactions import FOUR, TWICE, interval, judged, table
from practise_backends.terms import Interval
from practise_deploy.errors import InputError
from practise_deploy.planning.choose import out_of_reach
from practise_deploy.planning.interactions import Blocks
from practise_deploy.planning.sets import FURTHER, TOP_AGAIN, Verified, choose_set, neighbouring_sets
from practise_deploy.planning.stability import TOP
from practise_deploy.terms import Budget, Loss, Plan
from samples import releases

ALONE = judged([1.0, 2.0, 3.0, 4.0])  # a is the easiest to lose; losses add up


class Measured:
    """Saves so many percent a block, whatever block, and remembers what it was asked."""

    def __init__(self, percent: float | Mapping[Blocks, float], half: float = 0.0) -> None:
        self.percent, self.half, self.asked = percent, half, list[Blocks]()

    def __call__(self, blocks: Blocks) -> Interval:
        self.asked.append(blocks)
        if isinstance(self.percent, Mapping):
            return interval(self.percent[blocks], self.half)
        return interval(self.percent * len(blocks), self.half)


class Verify:
    """The error of a set from a table, else a large one, the same of three images; a point lost a block; what was asked."""

    def __init__(self, errors: Mapping[Blocks, float]) -> None:
        self.errors, self.asked = errors, list[Blocks]()

    def __call__(self, blocks: Blocks) -> Verified:
        self.asked.append(blocks)
        return Verified(np.full(3, self.errors.get(blocks, 9.0)), loss_of(blocks))


def loss_of(blocks: Blocks) -> Loss:
    return releases.loss(interval(float(len(blocks)), 0.5))


def never(blocks: Blocks) -> Interval:
    raise AssertionError(f"measured {blocks}")


def reasons(plan: Plan) -> dict[Blocks, str]:
    return {one.dropped: one.reason for one in plan.considered}


def attempts(plan: Plan) -> list[tuple[Blocks, bool]]:
    return [(one.dropped, one.met) for one in plan.attempts]


# Predicting.


def test_set_is_not_made_of_the_best_blocks_where_these_lose_the_same_thing():
    plan = choose_set(FOUR, judged([1.0, 1.0, 1.5, 1.5], features=TWICE), Budget(drop=2), None, None)
    assert list(plan.scores)[:2] == ["a", "b"]
    assert plan.dropped == ("c", "d")
    assert plan.reached and plan.target_percent is None


def test_target_takes_the_set_of_least_predicted_error_that_surely_saves_enough():
    latency = table([2.0, 1.0, 1.0, 1.0], half=0.1)
    plan = choose_set(latency, judged([2.5, 1.0, 1.2, 3.0]), Budget(reduce_percent=18.0), None, None)
    assert plan.dropped == ("b", "c")  # 18% at the low end, for an error of 2.2 instead of 2.5
    assert plan.reached and plan.measured_percent is None
    more = choose_set(latency, judged([2.5, 1.0, 1.2, 3.0]), Budget(reduce_percent=18.1), None, None)
    assert more.dropped == ("a",)


def test_target_in_milliseconds_is_a_reduction_from_the_measured_baseline():
    plan = choose_set(FOUR, ALONE, Budget(target_ms=7.5), None, None)
    assert plan.target_percent == pytest.approx(25.0) and plan.dropped == ("a", "b", "c")


# Verifying.


def test_best_verified_of_the_few_best_predicted_sets_goes():
    verify = Verify({("a", "b"): 3.25, ("a", "c"): 2.5, ("b", "c"): 5.0, ("a", "d"): 5.0})
    plan = choose_set(FOUR, ALONE, Budget(drop=2), None, verify)
    assert plan.dropped == ("a", "c")
    assert len(verify.asked) == len(set(verify.asked)) == TOP
    first, second, *_ = plan.considered
    assert (first.dropped, first.verified_error, first.reason) == (("a", "c"), 2.5, "")
    assert (second.dropped, second.verified_error) == (("a", "b"), 3.25)
    assert second.reason == "its verified error is no lower"
    assert second.predicted_error < first.predicted_error
    assert len(plan.considered) == TOP


@pytest.mark.parametrize(("second", "further"), [(6.1, 0), (9.5, 1), (14.0, 2)])
def test_further_sets_are_verified_as_long_as_they_could_well_be_better(second: float, further: int):
    """Predictions that are off by much for one set may be off by as much for the next."""
    verify = Verify({("a",): 5.0, ("b",): second, ("c",): 7.0})
    plan = choose_set(table([1.0] * 5), judged([5.0, 6.0, 7.0, 8.0, 9.0]), Budget(drop=1), None, verify)
    assert plan.dropped == ("a",)
    assert len(verify.asked) == TOP + further <= TOP + FURTHER


def test_set_that_was_predicted_to_be_the_fourth_best_may_turn_out_to_be_the_best():
    verify = Verify({("a",): 5.0, ("b",): 9.5, ("c",): 7.0, ("d",): 4.0})
    plan = choose_set(table([1.0] * 5), judged([5.0, 6.0, 7.0, 8.0, 9.0]), Budget(drop=1), None, verify)
    assert plan.dropped == ("d",)
    assert reasons(plan)[("a",)] == "its verified error is no lower"


@pytest.mark.parametrize("measure", [None, Measured(10.0)])
def test_only_set_is_verified_too_though_there_is_none_to_compare_it_with(measure: Measured | None):
    verify = Verify({("a", "b", "c", "d"): 4.0})
    plan = choose_set(FOUR, ALONE, Budget(drop=4), measure, verify)
    assert plan.dropped == ("a", "b", "c", "d") and verify.asked == [plan.dropped]
    assert [(one.verified_error, one.loss) for one in plan.considered] == [(4.0, loss_of(plan.dropped))]


def test_every_verified_set_tells_its_loss_and_no_other_does():
    verify = Verify({("a", "b"): 3.25, ("a", "c"): 2.5, ("b", "c"): 5.0, ("a", "d"): 5.0})
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=20.0), Measured(7.0), verify)
    told = {one.dropped: one.loss for one in plan.considered}
    assert told == {blocks: loss_of(blocks) if blocks in verify.asked else None for blocks in told}
    assert plan.dropped in verify.asked
    assert plan.chosen is not None and plan.chosen.dropped == plan.dropped
    assert plan.chosen.loss == loss_of(plan.dropped)


def test_all_blocks_are_verified_where_even_they_miss_the_target():
    verify = Verify({})
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=50.0), Measured(9.0), verify)
    assert not plan.reached and plan.dropped in verify.asked
    assert len(verify.asked) == len(set(verify.asked))


def test_nothing_is_verified_where_nothing_can_go_or_the_prediction_must_do():
    verify = Verify({})
    none = choose_set(table([0.0, 0.0]), judged([1.0, 1.0]), Budget(reduce_percent=10.0), never, verify)
    assert (none.dropped, verify.asked, none.chosen) == ((), [], None)
    predicted = choose_set(FOUR, ALONE, Budget(drop=2), None, None)
    assert [(one.verified_error, one.loss) for one in predicted.considered] == [(None, None)]
    assert predicted.chosen == predicted.considered[0]


def test_error_that_is_no_number_is_worse_than_any():
    verify = Verify({("a",): float("nan"), ("b",): 5.0})
    assert choose_set(FOUR, ALONE, Budget(drop=1), None, verify).dropped == ("b",)


def test_set_is_verified_once_however_often_it_comes_up():
    verify = Verify({})
    choose_set(FOUR, ALONE, Budget(reduce_percent=20.0), Measured(9.0), verify)
    assert len(verify.asked) == len(set(verify.asked)) <= TOP + FURTHER + TOP_AGAIN


# Measuring.


def test_measured_set_that_misses_asks_for_correspondingly_more():
    """Each block saves 10% by the table and 7% in truth: two are too few for 20%, three are enough."""
    measure = Measured(7.0)
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=20.0), measure, None)
    assert attempts(plan) == [(("a", "b"), False), (("a", "b", "c"), True)]
    assert measure.asked == [("a", "b"), ("a", "b", "c")]
    assert plan.measured_percent is not None and plan.measured_percent.estimate == pytest.approx(21.0)
    assert reasons(plan)[("a", "b")] == "measured, it misses the target: 14.0% is sure"


def test_much_too_small_a_set_is_not_grown_block_by_block():
    measure = Measured(5.0)
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=20.0), measure, None)
    assert measure.asked == [("a", "b"), ("a", "b", "c", "d")]
    assert plan.reached


def test_set_that_saves_too_little_after_the_measurement_says_so():
    verify = Verify({("a", "b"): 1.0, ("a", "c"): 2.0})
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=20.0), Measured(7.0), verify)
    assert len(plan.dropped) == 3
    assert reasons(plan)[("a", "c")] == "saves too little: after the measurements, 28.6% must be predicted"


def test_target_counts_as_met_with_half_an_interval_to_spare():
    met = choose_set(FOUR, ALONE, Budget(reduce_percent=18.0), Measured(10.0, half=0.9), None)
    assert met.dropped == ("a", "b")  # 19.1 at the bad end
    missed = choose_set(FOUR, ALONE, Budget(reduce_percent=18.5), Measured(10.0, half=0.9), None)
    assert attempts(missed) == [(("a", "b"), False), (("a", "b", "c"), True)]


def test_set_of_less_error_is_tried_where_the_table_promised_too_little():
    """Each block saves at least 9% by the table and 10% in truth, so that two do for 20%."""
    measure = Measured(10.0)
    plan = choose_set(table([1.0] * 4, half=0.1), ALONE, Budget(reduce_percent=20.0), measure, None)
    assert measure.asked == [("a", "b", "c"), ("a", "b")]
    assert attempts(plan) == [(("a", "b", "c"), True), (("a", "b"), True)]
    assert plan.dropped == ("a", "b")
    assert reasons(plan)[("a", "b", "c")] == "meets the target, as a set of less error does too"


def test_set_of_less_error_that_misses_leaves_the_one_that_met():
    measure = Measured({("a", "b", "c"): 33.0, ("a", "b"): 19.0})
    plan = choose_set(table([1.0] * 4, half=0.1), ALONE, Budget(reduce_percent=20.0), measure, None)
    assert attempts(plan) == [(("a", "b"), False), (("a", "b", "c"), True)]
    assert plan.dropped == ("a", "b", "c") and plan.reached
    assert reasons(plan)[("a", "b")] == "measured, it misses the target: 19.0% is sure"


def test_after_a_set_that_misses_those_between_it_and_the_chosen_one_are_looked_at():
    """By the table only all four are enough; two miss, and three do."""
    measure = Measured({("a", "b", "c", "d"): 40.0, ("a", "b", "c"): 30.0, ("a", "b"): 14.0, ("a", "c"): 14.0})
    plan = choose_set(table([0.4] * 4, half=0.1), ALONE, Budget(reduce_percent=15.0), measure, None)
    assert measure.asked == [("a", "b", "c", "d"), ("a", "b"), ("a", "b", "c"), ("a", "c")]
    assert {blocks for blocks, met in attempts(plan) if not met} == {("a", "b"), ("a", "c")}
    assert plan.dropped == ("a", "b", "c") and plan.reached


def test_set_that_saves_less_for_no_less_verified_error_is_not_measured():
    measure, verify = Measured(10.0), Verify({("a", "b", "c"): 1.0})
    plan = choose_set(table([1.0] * 4, half=0.1), ALONE, Budget(reduce_percent=20.0), measure, verify)
    assert measure.asked == [("a", "b", "c")] == [plan.dropped]
    assert reasons(plan)[("a", "b")] == "its verified error is no lower"


def test_wide_intervals_of_a_disturbed_device_do_not_make_the_search_start_far_above_the_target():
    """Eight blocks of 5%, surely 3.3%: what is measured need not be sure beforehand, what is not must be."""
    latency, losses = table([0.5] * 8, half=0.17), judged([float(n) for n in range(1, 9)])
    measure = Measured(5.0)
    plan = choose_set(latency, losses, Budget(reduce_percent=22.0), measure, None)
    assert sizes(measure.asked[:1]) == [5] == sizes([plan.dropped])
    predicted = choose_set(latency, losses, Budget(reduce_percent=22.0), None, None)
    assert sizes([predicted.dropped]) == [7] and predicted.reached


def test_margin_for_the_start_is_that_of_the_intervals_where_these_are_narrow():
    latency, losses = table([0.5] * 8, half=0.01), judged([float(n) for n in range(1, 9)])
    measure = Measured(5.0)
    choose_set(latency, losses, Budget(reduce_percent=24.4), measure, None)
    assert sizes(measure.asked[:1]) == [5]  # surely 24.5%, which is more than a twentieth below 25%
    measure = Measured(5.0)
    choose_set(latency, losses, Budget(reduce_percent=24.6), measure, None)
    assert sizes(measure.asked[:1]) == [6]


def test_number_of_blocks_is_taken_as_asked_and_measured_once():
    measure = Measured(1.0)
    plan = choose_set(FOUR, ALONE, Budget(drop=3), measure, None)
    assert plan.dropped == ("a", "b", "c") and measure.asked == [("a", "b", "c")]
    assert plan.reached and plan.predicted_ms == pytest.approx(7.0)


def test_unreachable_target_holds_all_blocks_and_says_what_can_be_had():
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=50.0), Measured(9.6, half=0.9), None)
    assert not plan.reached and plan.dropped == ("a", "b", "c", "d")
    error = out_of_reach(plan)
    assert (
        "all 4 rankable blocks saves 38.4% [37.5, 39.3], 36.6% with half an interval to spare; 6.160" in error.message
    )
    assert choose_set(FOUR, ALONE, Budget(reduce_percent=36.0), Measured(9.6, half=0.9), None).reached


def test_sets_that_save_nothing_end_with_all_blocks():
    measure = Measured(-1.0)
    plan = choose_set(FOUR, ALONE, Budget(reduce_percent=10.0), measure, None)
    assert not plan.reached and measure.asked == [("a",), ("a", "b", "c", "d")]


def test_measurements_that_hardly_grow_do_not_go_on_for_ever():
    rng = np.random.default_rng(1)
    asked: list[Blocks] = []

    def nearly(blocks: Blocks) -> Interval:
        asked.append(blocks)
        return interval(19.999)

    latency = table(list(rng.uniform(0.2, 0.6, 14)))
    plan = choose_set(latency, judged(list(rng.uniform(1, 3, 14))), Budget(reduce_percent=20.0), nearly, None)
    assert not plan.reached and len(plan.dropped) == 14
    assert len(asked) == len(set(asked)) < 12


# Refusals.


def test_nothing_is_dropped_where_no_saving_can_be_told_from_none():
    latency = table([0.0, 0.0])
    plan = choose_set(latency, judged([1.0, 1.0]), Budget(reduce_percent=10.0), never, None)
    assert (plan.dropped, plan.reached, plan.considered, plan.set_frequency) == ((), False, (), None)


@pytest.mark.parametrize(
    ("budget", "said"), [(Budget(drop=5), "only 4 blocks"), (Budget(target_ms=11.0), "within 11 ms")]
)
def test_impossible_budgets_are_refused(budget: Budget, said: str):
    with pytest.raises(InputError, match=said):
        choose_set(FOUR, ALONE, budget, never, None)


# What the plan tells.


def test_plan_tells_how_sure_every_block_is_and_why_others_stay():
    forms = np.stack([np.diag([1.0, 2.0, 8.0, 9.0]), np.diag([2.0, 1.0, 8.0, 9.0])] * 20)
    plan = choose_set(FOUR, judged([1.0, 1.1, 8.0, 9.0], features=forms), Budget(drop=1), None, None)
    assert list(plan.selection_frequency) == list(plan.scores) == ["a", "b", "c", "d"]
    assert plan.set_frequency == plan.selection_frequency["a"]
    assert 0.2 < plan.selection_frequency["b"] < 0.8
    said = {kept.block: kept.reason for kept in plan.kept}
    assert said["b"] == said["d"] == "--drop 1 was asked for"
    assert plan.selection_frequency["d"] == 0


# Neighbours.


def sizes(found: Sequence[Blocks]) -> list[int]:
    return [len(blocks) for blocks in found]


@pytest.mark.parametrize(
    ("dropped", "expected"), [(1, [1, 2, 3]), (2, [1, 2, 3, 4]), (4, [2, 3, 4, 5, 6]), (8, [4, 6, 7, 8])]
)
def test_neighbours_of_a_number_of_blocks_are_the_best_sets_of_near_numbers(dropped: int, expected: list[int]):
    latency, losses = table([0.5] * 8), judged([float(n) for n in range(1, 9)])
    plan = choose_set(latency, losses, Budget(drop=dropped), None, None)
    found = neighbouring_sets(latency, losses, plan)
    assert sizes(found) == expected and plan.dropped in found


def test_neighbours_need_not_hold_one_another():
    losses = judged([1.0] * 4, features=TWICE)
    plan = choose_set(FOUR, losses, Budget(drop=1), None, None)
    assert neighbouring_sets(FOUR, losses, plan) == [("a",), ("c", "d"), ("a", "c", "d")]


def test_neighbours_of_a_reduction_save_up_to_two_blocks_worth_less_and_more():
    latency, losses = table([0.5] * 8), judged([float(n) for n in range(1, 9)])
    plan = choose_set(latency, losses, Budget(reduce_percent=20.0), None, None)
    assert sizes(neighbouring_sets(latency, losses, plan)) == [2, 3, 4, 5, 6]
    assert sizes(neighbouring_sets(latency, losses, plan, 38.0)) == [2, 3, 4, 5, 6, 8]


def test_what_a_demand_on_the_speed_calls_for_is_a_neighbour_too():
    latency, losses = table([0.5] * 8), judged([float(n) for n in range(1, 9)])
    plan = choose_set(latency, losses, Budget(drop=1), None, None)
    assert sizes(neighbouring_sets(latency, losses, plan, 33.0)) == [1, 2, 3, 7]
    assert sizes(neighbouring_sets(latency, losses, plan, 99.0)) == [1, 2, 3, 8]


def test_set_that_was_verified_as_the_best_stays_among_its_neighbours():
    verify = Verify({("b", "c"): 1.0})
    plan = choose_set(FOUR, ALONE, Budget(drop=2), None, verify)
    assert plan.dropped == ("b", "c")
    assert neighbouring_sets(FOUR, ALONE, plan) == [("a",), ("b", "c"), ("a", "b", "c"), ("a", "b", "c", "d")]
