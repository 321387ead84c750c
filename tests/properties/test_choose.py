"""What holds for every latency table and every budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from practise_backends.terms import Conditions, Device, Interval
from practise_deploy.errors import InputError
from practise_deploy.planning.choose import choose_blocks, out_of_reach
from practise_deploy.terms import Budget, LatencyTable, Plan, Recoverability, Saving

BASELINE_MS = 10.0


def interval(estimate: float, half: float) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


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
    latency = LatencyTable(
        network="n", device=Device(name="d", fingerprint="f", versions={}, facts={}), conditions=Conditions(),
        input_shape=(1, 3, 8, 8), baseline_ms=interval(BASELINE_MS, 0.0), aa_ratio=interval(1.0, 0.01),
        resolution_ms=0.1, savings=tuple(savings), rounds=30, discarded=(), stopped_because="",
    )  # fmt: skip
    real = {saving.block: draw(st.floats(0.5, 1.5)) * saving.reduction_percent.estimate for saving in savings}
    return latency, judged, real, draw(st.floats(0.0, 3.0))


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
        with pytest.raises(InputError):
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
    except InputError:
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
