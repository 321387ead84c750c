"""What holds for every latency table and every budget."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from practise_backends.errors import EnvironmentProblem
from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.errors import InputError
from practise_deploy.planning.choose import choose_blocks, out_of_reach, predicted_percent
from practise_deploy.terms import Budget, Plan, Recoverability
from samples import plans

BASELINE_MS = 10.0


def interval(estimate: float, half: float) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


additivities = st.builds(interval, st.floats(0.3, 1.3), st.floats(0.0, 0.2))


@st.composite
def tables(draw):
    """Blocks with savings from clearly negative to clearly positive, their errors, and what sets really save."""
    count = draw(st.integers(1, 7))
    numbers = st.floats(-0.5, 2.0, allow_nan=False)
    savings, judged = [], []
    for at in range(count):
        ms, half = draw(numbers), draw(st.floats(0.0, 0.6))
        savings.append(
            Saving(
                block=f"b{at}", latency_class=at, saving_ms=interval(ms, half),
                reduction_percent=interval(100 * ms / BASELINE_MS, half), pooled_with=(),
                distinguishable=draw(st.booleans()),
            )
        )  # fmt: skip
        if draw(st.integers(0, 5)):
            mse = draw(st.floats(0.0, 10.0))
            judged.append(
                Recoverability(
                    block=f"b{at}", mse=interval(mse, 0.0), mse_dropped=mse, relative=mse, fit_images=8,
                    judged_images=2, method="",
                )
            )  # fmt: skip
    latency = table_of(tuple(savings), draw(st.none() | additivities))
    real = {saving.block: draw(st.floats(0.5, 1.5)) * saving.reduction_percent.estimate for saving in savings}
    return latency, judged, real, draw(st.floats(0.0, 3.0))


def table_of(savings: tuple[Saving, ...], additivity: Interval | None) -> LatencyTable:
    return replace(
        plans.latency(), baseline_ms=interval(BASELINE_MS, 0.0), resolution_ms=0.1, savings=savings,
        additivity=additivity,
    )  # fmt: skip


budgets = st.one_of(
    st.floats(0.5, 60).map(lambda percent: Budget(reduce_percent=percent)),
    st.floats(2.0, 9.9).map(lambda ms: Budget(target_ms=ms)),
    st.integers(1, 8).map(lambda count: Budget(drop=count)),
)


def plan_of(case, budget: Budget) -> tuple[Plan, list[tuple[str, ...]]]:
    latency, judged, real, half = case
    asked: list[tuple[str, ...]] = []

    def measure(names: tuple[str, ...]) -> Interval:
        asked.append(names)
        return interval(sum(real[name] for name in names), half)

    return choose_blocks(latency, judged, budget, measure), asked


@given(tables(), budgets)
@settings(max_examples=150, deadline=None)
def test_plan_is_the_beginning_of_the_ranking_and_holds_no_noise(case, budget):
    latency, judged, _, _ = case
    sure = {s.block for s in latency.savings if s.distinguishable and s.saving_ms.low > 0}
    rankable = sure & {r.block for r in judged}
    if budget.drop and 0 < len(rankable) < budget.drop:
        with pytest.raises((InputError, EnvironmentProblem)):
            plan_of(case, budget)
        return
    plan, asked = plan_of(case, budget)
    assert set(plan.scores) == rankable
    assert list(plan.scores.values()) == sorted(plan.scores.values())
    assert plan.dropped == tuple(plan.scores)[: len(plan.dropped)]
    assert set(plan.dropped) <= sure
    assert {kept.block for kept in plan.kept} == {s.block for s in latency.savings} - set(plan.dropped)
    assert len(asked) == len(set(asked)) <= len(rankable)  # no set is measured twice


@given(tables(), budgets)
@settings(max_examples=150, deadline=None)
def test_plan_that_reached_its_target_measured_so_and_one_that_did_not_took_all(case, budget):
    try:
        plan, asked = plan_of(case, budget)
    except (InputError, EnvironmentProblem):
        return
    assert plan.attempts[-1].dropped == plan.dropped
    assert plan.attempts[-1].measured_percent == plan.measured_percent
    if plan.reached:
        assert plan.dropped in asked
        assert plan.target_percent is None or plan.measured_percent.low >= plan.target_percent
    else:
        assert plan.dropped == tuple(plan.scores)
        assert out_of_reach(plan).message
    if budget.drop and plan.scores:
        assert len(plan.dropped) == budget.drop and plan.reached


@given(tables(), budgets)
@settings(max_examples=100, deadline=None)
def test_plan_without_a_device_reaches_its_target_by_its_prediction_or_takes_all(case, budget):
    latency, judged, _, _ = case
    try:
        plan = choose_blocks(latency, judged, budget, None)
    except (InputError, EnvironmentProblem):
        return
    assert plan.dropped == tuple(plan.scores)[: len(plan.dropped)]
    if not plan.scores:
        assert not plan.reached
        return
    assert plan.measured_percent is None
    assert plan.predicted_percent == predicted_percent(plan.dropped, latency)
    if not plan.reached:
        assert plan.dropped == tuple(plan.scores)
    elif plan.target_percent is not None:
        assert plan.predicted_percent.low >= plan.target_percent


@given(tables(), st.data())
@settings(max_examples=150, deadline=None)
def test_prediction_holds_its_estimate_whatever_the_blocks_save(case, data):
    latency = case[0]
    names = data.draw(st.sets(st.sampled_from([saving.block for saving in latency.savings])))
    found = predicted_percent(tuple(names), latency)
    slack = 1e-9
    assert found.low - slack <= found.estimate <= found.high + slack


@given(tables(), st.data())
@settings(max_examples=150, deadline=None)
def test_prediction_never_falls_with_another_block_that_surely_saves(case, data):
    latency = case[0]
    order = data.draw(st.permutations([s.block for s in latency.savings if s.reduction_percent.low > 0]))
    found = [predicted_percent(order[:count], latency) for count in range(len(order) + 1)]
    assert (found[0].low, found[0].estimate, found[0].high) == (0, 0, 0)
    for fewer, more in pairwise(found):
        assert (fewer.low <= more.low, fewer.estimate <= more.estimate, fewer.high <= more.high) == (True,) * 3


@given(tables(), st.data())
@settings(max_examples=100, deadline=None)
def test_prediction_does_not_depend_on_the_order_of_the_blocks(case, data):
    latency = case[0]
    names = [saving.block for saving in latency.savings]
    assert predicted_percent(data.draw(st.permutations(names)), latency) == predicted_percent(names, latency)
