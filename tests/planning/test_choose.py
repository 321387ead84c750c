"""Which blocks go: pure arithmetic on hand-made records."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from practise_backends.errors import EnvironmentProblem
from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.errors import InputError, TargetOutOfReach
from practise_deploy.planning.choose import (
    choose_blocks,
    count_reaching,
    out_of_reach,
    predicted_percent,
    scores_of,
    too_disturbed,
)
from practise_deploy.terms import Budget, Recoverability
from samples import plans, releases

BASELINE_MS = 10.0


def interval(estimate: float, half: float = 0.0) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def saving(block: str, ms: float, half: float = 0.1, distinguishable: bool = True) -> Saving:
    return Saving(
        block=block, latency_class=0, saving_ms=interval(ms, half), reduction_percent=interval(100 * ms / BASELINE_MS, 100 * half / BASELINE_MS),
        pooled_with=(), distinguishable=distinguishable,
    )  # fmt: skip


def table(*savings: Saving, additivity: Interval | None = None) -> LatencyTable:
    return replace(
        plans.latency(), baseline_ms=interval(BASELINE_MS), resolution_ms=0.1, savings=savings, additivity=additivity
    )


def judged(**mse: float) -> list[Recoverability]:
    return [
        Recoverability(
            block=block, mse=interval(value), mse_dropped=2 * value, relative=value, fit_images=8, judged_images=2,
            method="refit",
        )
        for block, value in mse.items()
    ]  # fmt: skip


class Measured:
    """Answers with a fixed reduction by number of blocks, and remembers what it was asked."""

    def __init__(self, *percents: float, half: float = 0.0) -> None:
        self.percents, self.half, self.asked = percents, half, []

    def __call__(self, names: Sequence[str]) -> Interval:
        self.asked.append(names)
        return interval(self.percents[len(names) - 1], self.half)


FOUR = table(saving("a", 1.0), saving("b", 1.0), saving("c", 1.0), saving("d", 1.0))
RANKED = judged(d=4.0, b=2.0, a=1.0, c=3.0)


def never(names: Sequence[str]) -> Interval:
    raise AssertionError(f"measured {names}")


# Ranking.


def test_score_is_recoverability_per_surely_saved_millisecond():
    found = scores_of(table(saving("a", 1.0, 0.5), saving("b", 3.0, 1.0)), judged(a=1.0, b=1.0))
    assert found == {"b": 0.5, "a": 2.0}


def test_lowest_score_comes_first_and_ties_go_by_name():
    found = scores_of(table(saving("z", 1.0), saving("a", 1.0), saving("m", 1.0)), judged(z=1.0, a=1.0, m=0.5))
    assert list(found) == ["m", "a", "z"]


def test_uncertain_saving_ranks_behind_a_sure_one_of_the_same_size():
    found = scores_of(table(saving("sure", 1.0, 0.1), saving("unsure", 1.0, 0.9)), judged(sure=1.0, unsure=1.0))
    assert list(found) == ["sure", "unsure"]


def test_block_without_measurable_saving_is_never_ranked_however_easy_it_is():
    latency = table(saving("a", 1.0), saving("noise", 0.2, 0.1, distinguishable=False), saving("worse", -1.0, 0.1))
    found = scores_of(latency, judged(a=5.0, noise=0.0, worse=0.0))
    assert list(found) == ["a"]


def test_saving_whose_bad_end_is_not_above_zero_is_never_ranked():
    """However it is flagged: a division by it would sort noise first, as in the published code."""
    latency = table(saving("a", 1.0), saving("zero", 0.5, 0.5), saving("below", 0.5, 0.6))
    assert list(scores_of(latency, judged(a=1.0, zero=0.1, below=0.1))) == ["a"]


def test_block_without_latency_is_not_ranked():
    assert list(scores_of(table(saving("a", 1.0)), judged(a=1.0, stranger=0.1))) == ["a"]


def test_plan_drops_the_best_bargains_and_keeps_their_scores():
    plan = choose_blocks(FOUR, RANKED, Budget(drop=2), Measured(10, 20))
    assert plan.dropped == ("a", "b")
    assert list(plan.scores) == ["a", "b", "c", "d"]
    assert plan.scores["a"] == pytest.approx(1.0 / 0.9)


# Targets.


def test_number_of_blocks_is_taken_as_asked_and_measured_once():
    measured = Measured(10, 20, 25)
    plan = choose_blocks(FOUR, RANKED, Budget(drop=3), measured)
    assert plan.dropped == ("a", "b", "c")
    assert measured.asked == [("a", "b", "c")]
    assert (plan.reached, plan.target_percent) == (True, None)
    assert plan.predicted_ms == pytest.approx(7.0)


def test_target_in_percent_takes_as_many_blocks_as_the_table_promises():
    measured = Measured(10, 20, 30)
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=20.0), measured)
    assert plan.dropped == ("a", "b")
    assert measured.asked == [("a", "b"), ("a",)]
    assert plan.reached and plan.target_percent == 20.0


def test_target_in_milliseconds_is_a_reduction_from_the_measured_baseline():
    plan = choose_blocks(FOUR, RANKED, Budget(target_ms=7.5), Measured(10, 20, 30, 40))
    assert plan.target_percent == pytest.approx(25.0)
    assert plan.dropped == ("a", "b", "c")


def test_another_block_goes_where_the_measured_set_misses():
    measured = Measured(10, 17, 24, 31)
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=20.0), measured)
    assert plan.dropped == ("a", "b", "c")
    assert [(attempt.dropped, attempt.met) for attempt in plan.attempts] == [
        (("a", "b"), False),
        (("a", "b", "c"), True),
    ]
    assert plan.attempts[0].predicted_percent.estimate == pytest.approx(20.0)
    assert plan.measured_percent.estimate == 24
    assert plan.reached


def test_target_counts_as_met_at_the_bad_end_of_the_interval():
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=20.0), Measured(10, 20.5, 30, half=1.0))
    assert plan.dropped == ("a", "b", "c")


def test_one_block_fewer_is_tried_where_the_table_promised_too_little():
    measured = Measured(12, 22, 33, 44)
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=22.0), measured)
    assert measured.asked == [("a", "b", "c"), ("a", "b"), ("a",)]
    assert plan.dropped == ("a", "b")
    assert plan.reached and plan.attempts[-1].dropped == plan.dropped
    assert [(one.dropped, one.met) for one in plan.attempts] == [
        (("a", "b", "c"), True), (("a",), False), (("a", "b"), True),
    ]  # fmt: skip


def test_single_block_that_meets_the_target_is_not_questioned():
    measured = Measured(25)
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=5.0), measured)
    assert plan.dropped == ("a",) and measured.asked == [("a",)]


def test_nothing_fewer_is_tried_after_a_miss():
    measured = Measured(10, 17, 24, 31)
    choose_blocks(FOUR, RANKED, Budget(reduce_percent=20.0), measured)
    assert measured.asked == [("a", "b"), ("a", "b", "c")]


# Predicting.


def test_prediction_is_the_sum_of_the_blocks_and_of_their_ends():
    found = predicted_percent(("a", "c"), table(saving("a", 1.0, 0.1), saving("b", 5.0), saving("c", 2.0, 0.3)))
    assert (found.estimate, found.low, found.high) == pytest.approx((30.0, 26.0, 34.0))


def test_prediction_is_corrected_by_how_far_savings_add_up():
    latency = table(saving("a", 1.0, 0.1), saving("b", 2.0, 0.3), additivity=interval(0.8, 0.05))
    found = predicted_percent(("a", "b"), latency)
    assert (found.estimate, found.low, found.high) == pytest.approx((24.0, 0.75 * 26, 0.85 * 34))


def test_prediction_of_a_loss_keeps_its_ends_in_order():
    found = predicted_percent(("a",), table(saving("a", -1.0, 0.1), additivity=interval(0.8, 0.05)))
    assert (found.low, found.estimate, found.high) == pytest.approx((-11 * 0.85, -8.0, -9 * 0.75))


def test_savings_that_add_up_less_take_more_blocks():
    four = replace(FOUR, additivity=interval(0.8))
    measured = Measured(8, 16, 24, 32)
    plan = choose_blocks(four, RANKED, Budget(reduce_percent=20.0), measured)
    assert plan.dropped == ("a", "b", "c") and measured.asked[0] == ("a", "b", "c")
    assert plan.predicted_percent.estimate == pytest.approx(24.0)
    assert plan.predicted_ms == pytest.approx(7.6)


# A table of a device that is not at hand.


def test_prediction_stands_alone_where_nothing_can_be_measured():
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=15.0), None)
    assert plan.dropped == ("a", "b") and plan.reached
    assert plan.measured_percent is None
    assert all(attempt.measured_percent is None for attempt in plan.attempts)
    assert plan.device == releases.DEVICE.name


def test_predicted_target_counts_as_met_at_the_bad_end():
    """Two blocks are 20% at the estimate and 18% at the bad end."""
    assert choose_blocks(FOUR, RANKED, Budget(reduce_percent=18.0), None).dropped == ("a", "b")
    assert choose_blocks(FOUR, RANKED, Budget(reduce_percent=18.1), None).dropped == ("a", "b", "c")


def test_number_of_blocks_is_taken_unmeasured_as_asked():
    plan = choose_blocks(FOUR, RANKED, Budget(drop=3), None)
    assert (plan.dropped, plan.reached, plan.target_percent) == (("a", "b", "c"), True, None)


def test_target_that_the_prediction_misses_is_told_as_predicted():
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=50.0), None)
    error = out_of_reach(plan)
    assert not plan.reached
    assert "all 4 rankable blocks is predicted to save 40.0% [36.0, 44.0]" in error.message
    assert error.remedy == "ask for at most --reduce 36%, or --target-ms 6.4"
    assert choose_blocks(FOUR, RANKED, Budget(reduce_percent=36.0), None).reached


# Refusals.


def test_unreachable_target_holds_the_best_and_says_what_can_be_had():
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=50.0), Measured(10, 20, 30, 38.4, half=0.9))
    assert not plan.reached
    assert plan.dropped == ("a", "b", "c", "d")
    error = out_of_reach(plan)
    assert isinstance(error, TargetOutOfReach) and error.exit_code == 1
    assert "the target of 50.0% less latency is out of reach" in error.message
    assert (
        "all 4 rankable blocks saves 38.4% [37.5, 39.3], 36.6% with half an interval to spare; 6.160" in error.message
    )
    assert error.remedy == "ask for at most --reduce 36%, or --target-ms 6.34"


def test_what_the_remedy_of_an_unreachable_target_names_is_reachable():
    measured = Measured(10, 20, 30, 38.4, half=0.9)
    assert choose_blocks(FOUR, RANKED, Budget(reduce_percent=36.0), measured).reached


def test_unreachable_latency_is_told_in_milliseconds():
    plan = choose_blocks(FOUR, RANKED, Budget(target_ms=2.0), Measured(10, 20, 30, 40))
    assert "the target of 2 ms is out of reach" in out_of_reach(plan).message


def test_nothing_is_dropped_where_no_saving_can_be_told_from_none():
    latency = table(saving("a", 0.05, 0.1, distinguishable=False), saving("b", 0.02, 0.1, distinguishable=False))
    plan = choose_blocks(latency, judged(a=0.1, b=0.1), Budget(reduce_percent=10.0), never)
    assert (plan.dropped, plan.reached, plan.predicted_ms) == ((), False, BASELINE_MS)
    assert "no block's saving on this device is distinguishable from zero" in out_of_reach(plan).message
    assert "--measure-budget-s" in out_of_reach(plan).remedy


def test_more_blocks_than_can_be_ranked_are_refused():
    with pytest.raises(InputError, match="--drop 3: only 2 blocks") as caught:
        choose_blocks(table(saving("a", 1.0), saving("b", 1.0)), judged(a=1.0, b=2.0), Budget(drop=3), never)
    assert caught.value.remedy == "ask for at most 2"


def test_latency_target_above_the_original_is_refused_rather_than_met_by_dropping():
    with pytest.raises(InputError, match="the original runs in 10 ms, within 11 ms"):
        choose_blocks(FOUR, RANKED, Budget(target_ms=11.0), never)


def test_block_that_stays_says_why():
    latency = table(
        saving("a", 1.0), saving("b", 1.0), saving("noise", 0.2, 0.3, distinguishable=False), saving("new", 1.0)
    )
    plan = choose_blocks(latency, judged(a=1.0, b=2.0), Budget(drop=1), Measured(10))
    reasons = {kept.block: kept.reason for kept in plan.kept}
    assert set(reasons) == {"b", "noise", "new"}
    assert reasons["b"] == "ranked 2 of 2; --drop 1 was asked for"
    assert reasons["noise"] == "no measurable saving: -0.100 to 0.500 ms, noise floor 0.100 ms"
    assert reasons["new"] == "recoverability not measured"


def test_target_that_is_only_just_met_is_not_trusted():
    met = choose_blocks(FOUR, RANKED, Budget(reduce_percent=18.0), Measured(10, 20, 30, 40, half=0.9))
    assert met.dropped == ("a", "b")  # 19.1 at the bad end, and half an interval to spare
    missed = choose_blocks(FOUR, RANKED, Budget(reduce_percent=18.5), Measured(10, 20, 30, 40, half=0.9))
    assert missed.dropped == ("a", "b", "c") and [attempt.met for attempt in missed.attempts] == [False, True]


def test_count_that_reaches_a_reduction_is_the_smallest_whose_bad_end_does():
    plan = choose_blocks(FOUR, RANKED, Budget(drop=1), Measured(10.0))
    assert [count_reaching(plan, FOUR, percent) for percent in (8.9, 9.1, 17.9, 99)] == [1, 2, 2, 4]


# A device too disturbed to plan on.


def test_target_that_is_missed_for_the_noise_alone_is_the_environments_fault():
    """All four blocks save 40%, but no more than 10% is sure."""
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=30.0), Measured(10, 20, 30, 40, half=15.0))
    error = too_disturbed(plan, FOUR)
    assert not plan.reached and error is not None and error.exit_code == 3
    assert (
        "too disturbed to plan on: dropping all 4 rankable blocks saves 40.0% [25.0, 55.0], 10.0% with half an interval to spare"
        in error.message
    )
    assert "where 30.0% less latency was asked for" in error.message
    assert "rounds of the latency table were discarded" in error.message
    assert "--measure-budget-s" in error.remedy and error.remedy.endswith("ask for at most --reduce 10%")


def test_target_that_the_network_misses_is_no_fault_of_a_noisy_device():
    plan = choose_blocks(FOUR, RANKED, Budget(reduce_percent=50.0), Measured(10, 20, 30, 40, half=15.0))
    assert not plan.reached and too_disturbed(plan, FOUR) is None
    assert too_disturbed(choose_blocks(FOUR, RANKED, Budget(reduce_percent=9.0), Measured(10)), FOUR) is None


def test_savings_that_the_noise_hides_count_with_the_most_that_they_may_be():
    noisy = table(saving("a", 1.0), *(saving(name, 0.5, 1.5, distinguishable=False) for name in "bc"))
    for asked, disturbed in ((40.0, True), (51.0, False)):
        plan = choose_blocks(noisy, judged(a=1.0), Budget(reduce_percent=asked), Measured(10.0))
        error = too_disturbed(plan, noisy)
        assert (error is not None) is disturbed
        assert error is None or "the noise hides what is saved without b, c, up to 40.0%" in error.message


@pytest.mark.parametrize("half, disturbed", [(2.0, True), (0.03, False)])
def test_device_on_which_no_saving_can_be_told_is_disturbed_where_some_may_be_worth_knowing(
    half: float, disturbed: bool
):
    latency = table(*(saving(name, 0.01, half, distinguishable=False) for name in "ab"))
    plan = choose_blocks(latency, judged(a=0.1, b=0.1), Budget(reduce_percent=10.0), never)
    error = too_disturbed(plan, latency)
    assert (error is not None) is disturbed
    assert error is None or "no block's saving on this device is distinguishable from zero" in error.message


def test_more_blocks_than_the_noise_lets_rank_are_the_environments_fault():
    latency = table(saving("a", 1.0), saving("b", 0.5, 1.0, distinguishable=False))
    with pytest.raises(EnvironmentProblem, match=r"only 1 blocks .* the noise hides that of b") as caught:
        choose_blocks(latency, judged(a=1.0), Budget(drop=2), never)
    assert caught.value.remedy.endswith("ask for at most 1")
    with pytest.raises(InputError, match="only 1 blocks"):
        choose_blocks(latency, judged(a=1.0), Budget(drop=3), never)


# What noise decided.


def hidden(ms: float, half: float) -> LatencyTable:
    """Block a surely saves half a millisecond; what b saves is not distinguishable from zero."""
    return table(saving("a", 0.5), saving("b", ms, half, distinguishable=False))


def test_block_that_may_save_as_much_as_one_that_goes_is_named_where_noise_left_it_out():
    (note,) = choose_blocks(hidden(0.3, 0.4), judged(a=1.0), Budget(drop=1), None).notes
    assert note.startswith("noise decided: b (up to 0.700 ms) may save as much as a block that goes")
    assert "--measure-budget-s" in note


def test_block_that_surely_saves_less_is_no_matter_of_noise():
    assert choose_blocks(hidden(0.1, 0.2), judged(a=1.0), Budget(drop=1), None).notes == ()
