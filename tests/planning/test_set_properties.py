"""What holds for every table, every way in which losses act together, and every budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.errors import InputError
from practise_deploy.planning.choose import assumed_percent, out_of_reach, predicted_percent
from practise_deploy.planning.interactions import Candidates, beam_search, candidates_of, exhaustive_search
from practise_deploy.planning.sets import MAX_CHEAPER_TRIES, Verified, choose_set, neighbouring_sets
from practise_deploy.terms import Budget, Recoverabilities, Recoverability
from samples import plans, releases

BASELINE_MS = 10.0


def interval(estimate: float, half: float) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def latency_of(rng: np.random.Generator, count: int) -> LatencyTable:
    ms, halves = rng.uniform(0.2, 1.0, count), rng.uniform(0.0, 0.15, count)
    savings = tuple(
        Saving(
            block=f"b{at}", latency_class=at // 2, saving_ms=interval(one, half),
            reduction_percent=interval(10 * one, 10 * half), pooled_with=(), distinguishable=True,
        )
        for at, (one, half) in enumerate(zip(map(float, ms), map(float, halves), strict=True))
    )  # fmt: skip
    additivity = interval(float(rng.uniform(0.6, 1.1)), float(rng.uniform(0.0, 0.05)))
    return replace(
        plans.latency(), baseline_ms=interval(BASELINE_MS, 0.0), savings=savings, additivity=additivity
    )  # fmt: skip


def losses_of(rng: np.random.Generator, count: int) -> Recoverabilities:
    """What losing each block changes on twelve images: partly its own, partly what all have in common."""
    sizes = rng.lognormal(0.0, 0.8, size=(1, count, 1))
    changes = rng.normal(size=(12, count, 16)) * sizes + rng.normal(0.3, 1.0, size=(12, 1, 16))
    features = np.einsum("nik,njk->nij", changes, changes)
    errors = features.mean(0).diagonal()
    of = tuple(
        Recoverability(
            block=f"b{at}", mse=interval(float(error), 0.0), mse_dropped=2 * float(error), relative=float(error),
            fit_images=8, judged_images=12, method="",
        )
        for at, error in enumerate(errors)
    )  # fmt: skip
    return Recoverabilities(of=of, interactions={"features": features})


@st.composite
def cases(draw, most: int = 11):
    """A table, the losses, and a budget that some set meets nearly always."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, most))
    latency, losses = latency_of(rng, count), losses_of(rng, count)
    reach = predicted_percent([saving.block for saving in latency.savings], latency).low
    budget = draw(
        st.floats(0.02, 1.05).map(lambda share: Budget(reduce_percent=max(0.1, share * reach)))
        | st.integers(1, count).map(lambda size: Budget(drop=size))
    )
    return latency, losses, budget, rng


def brute_force(candidates: Candidates, latency: LatencyTable, budget: Budget) -> float:
    """The least error by going through all sets one at a time."""
    errors = [np.inf]
    for mask in range(1, 2 ** len(candidates.names)):
        names = [name for at, name in enumerate(candidates.names) if mask >> at & 1]
        if budget.drop is not None:
            meets = len(names) == budget.drop
        else:
            meets = predicted_percent(names, latency).low >= budget.reduce_percent
        if meets:
            errors.append(candidates.error_of(names))
    return min(errors)


@given(cases(most=7))
@settings(max_examples=40, deadline=None)
def test_exhaustive_search_finds_the_least_error_that_there_is(case):
    latency, losses, budget, _ = case
    candidates = candidates_of(latency, losses)
    found, least = exhaustive_search(candidates, budget, 1), brute_force(candidates, latency, budget)
    assert bool(found) == np.isfinite(least)
    if found:
        assert candidates.error_of(found[0]) == pytest.approx(least, rel=1e-9)


@given(cases(), st.sampled_from([exhaustive_search, beam_search]), st.booleans())
@settings(max_examples=120, deadline=None)
def test_no_listed_set_misses_the_budget_or_holds_a_better_one(case, search, measured):
    latency, losses, budget, _ = case
    candidates = candidates_of(latency, losses, measured=measured)
    found = search(candidates, budget, 5)
    errors = [candidates.error_of(blocks) for blocks in found]
    assert errors == sorted(errors) or np.allclose(errors, sorted(errors))
    for place, blocks in enumerate(found):
        if budget.drop is not None:
            assert len(blocks) == budget.drop
        else:
            assert assumed_percent(blocks, latency, measured=measured) >= budget.reduce_percent - 1e-9
        assert not any(set(blocks) >= set(better) for better in found[:place])


@given(cases(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_beam_finds_what_the_exhaustive_search_finds(case, measured):
    latency, losses, budget, _ = case
    candidates = candidates_of(latency, losses, measured=measured)
    exact, near = (search(candidates, budget, 1) for search in (exhaustive_search, beam_search))
    assert bool(exact) == bool(near)
    if exact:
        assert candidates.error_of(near[0]) == pytest.approx(candidates.error_of(exact[0]), rel=1e-9)


def test_beam_finds_the_least_error_of_sixteen_blocks_nearly_always():
    missed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        latency = latency_of(rng, 16)
        candidates = candidates_of(latency, losses_of(rng, 16))
        reach = predicted_percent(candidates.names, latency).low
        for budget in (Budget(reduce_percent=0.3 * reach), Budget(reduce_percent=0.6 * reach), Budget(drop=5)):
            missed += exhaustive_search(candidates, budget, 1) != beam_search(candidates, budget, 1)
    assert missed <= 1


@given(cases(), st.floats(0.6, 1.3), st.floats(0.0, 2.0), st.booleans())
@settings(max_examples=80, deadline=None)
def test_plan_measures_no_set_twice_and_reaches_its_target_or_holds_all_blocks(case, truth, half, verified):
    latency, losses, budget, rng = case
    real = {s.block: truth * s.reduction_percent.estimate * float(rng.uniform(0.8, 1.2)) for s in latency.savings}
    measured, judged = [], []

    def measure(blocks: tuple[str, ...]) -> Interval:
        measured.append(blocks)
        return interval(sum(real[name] for name in blocks), half)

    def verify(blocks: tuple[str, ...]) -> Verified:
        judged.append(blocks)
        loss = releases.loss(interval(float(rng.uniform(-1, 9)), 1.0))
        return Verified(rng.uniform(0.5, 2.0, size=9) * len(blocks), loss)

    try:
        plan = choose_set(latency, losses, budget, measure, verify if verified else None)
    except InputError:
        return
    assert len(measured) == len(set(measured)) and len(judged) == len(set(judged))
    assert sorted(measured) == sorted(attempt.dropped for attempt in plan.attempts)
    assert plan.attempts[-1].dropped == plan.dropped == plan.considered[0].dropped
    assert plan.considered[0].reason == "" and all(one.reason for one in plan.considered[1:])
    assert {one.dropped for one in plan.considered} >= {*measured, *judged}
    assert (
        {one.dropped for one in plan.considered if one.loss} == set(judged) >= ({plan.dropped} if verified else set())
    )
    assert len(measured) <= 12 + MAX_CHEAPER_TRIES
    if plan.target_percent is None:
        assert plan.reached and len(plan.dropped) == budget.drop
    elif plan.reached:
        assert plan.measured_percent.low >= plan.target_percent
    else:
        assert plan.dropped == tuple(saving.block for saving in latency.savings)
        assert out_of_reach(plan).message


@given(cases())
@settings(max_examples=60, deadline=None)
def test_shares_of_the_resamples_are_shares_and_neighbours_are_sets_of_candidates(case):
    latency, losses, budget, _ = case
    plan = choose_set(latency, losses, budget, None, None)
    assert set(plan.selection_frequency) == set(plan.scores) == {*plan.dropped, *(kept.block for kept in plan.kept)}
    assert all(0.0 <= share <= 1.0 for share in plan.selection_frequency.values())
    assert plan.set_frequency is not None
    assert plan.set_frequency <= min(plan.selection_frequency[name] for name in plan.dropped) + 1e-9
    if plan.reached:
        found = neighbouring_sets(latency, losses, plan, 10.0)
        assert plan.dropped in found and len(found) == len(set(found))
        assert all(blocks and set(blocks) <= set(plan.scores) for blocks in found)
