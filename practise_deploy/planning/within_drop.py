"""The best set within the allowed loss of accuracy, where the latency target costs more than that. Pure arithmetic.

Finetuning recovers a part of the loss that the closed form leaves. How much remains was measured on four networks
(benchmarks/reproduce/losses.py; docs/accuracy.md has the table): a set whose loss would exceed the allowed one even at the best
recovery measured there is refused before any finetuning. The alternative that is offered counts on no recovery at all, since
finetuning gains nothing on some networks.
"""

from __future__ import annotations

from dataclasses import replace

from practise_backends.terms import LatencyTable
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.planning.choose import Measure, kept_blocks, out_of_reach, predicted_percent, try_blocks
from practise_deploy.planning.interactions import Blocks, Candidates, best_sets, candidates_of
from practise_deploy.planning.sets import Verified, Verify
from practise_deploy.planning.stability import mean_error
from practise_deploy.terms import Budget, Considered, Loss, Plan, Recoverabilities, WithinDrop

LEAST_LEFT = 0.25
"""The smallest share of the closed form's loss that was ever left after finetuning."""
STEPS = 6


def is_beyond_recovery(loss: Loss | None, demand_points: float, *, finetuned: bool) -> bool:
    """Whether the lower bound of a verified loss exceeds the allowed one, and would after the best finetuning measured."""
    if loss is None:
        return False
    left = (LEAST_LEFT if finetuned else 1.0) * loss.points.estimate
    return left > demand_points and loss.points.low > demand_points


def find_within(
    latency: LatencyTable,
    recoverability: Recoverabilities,
    plan: Plan,
    verify: Verify,
    demand_points: float,
    *,
    finetuned: bool,
) -> WithinDrop | None:
    """The set that saves most within the allowed loss, and the sets evaluated to find it; None if the plan's set is not refused."""
    chosen = plan.chosen
    if chosen is None or not is_beyond_recovery(chosen.loss, demand_points, finetuned=finetuned):
        return None
    candidates, best = candidates_of(latency, recoverability), None
    evaluated: list[Considered] = []
    left = smaller_sets(candidates, latency, plan)
    while left:  # bisection: what saves more nearly always costs more
        middle = len(left) // 2
        evaluated.append(_considered(left[middle], candidates, latency, verify(left[middle])))
        loss = evaluated[-1].loss
        if loss is not None and loss.points.estimate <= demand_points:
            best, left = evaluated[-1], left[:middle]
        else:
            left = left[middle + 1 :]
    evaluated.sort(key=lambda candidate: -candidate.predicted_percent.estimate)
    return WithinDrop(demand_points=demand_points, target_set=chosen, sets=tuple(evaluated), best=best)


def smaller_sets(candidates: Candidates, latency: LatencyTable, plan: Plan) -> list[Blocks]:
    """Sets of least predicted error that save less than the plan's, down to single blocks, by descending saving."""
    full = predicted_percent(plan.dropped, latency)
    fewer = [Budget(drop=size) for size in range(len(plan.dropped) - 1, 0, -1)]
    less = [Budget(reduce_percent=full.low * step / STEPS) for step in range(STEPS - 1, 0, -1)]
    sets = (blocks for budget in (*less, *fewer) for blocks in best_sets(candidates, budget, 1))
    # compare estimates: on a busy machine the bounds of the intervals need not grow with the set
    saved = {blocks: predicted_percent(blocks, latency).estimate for blocks in sets}
    less_saving = (blocks for blocks, percent in saved.items() if percent < full.estimate)
    return sorted(less_saving, key=lambda blocks: -saved[blocks])


def _considered(blocks: Blocks, candidates: Candidates, latency: LatencyTable, verified: Verified) -> Considered:
    return Considered(
        dropped=blocks,
        predicted_error=candidates.error_of(blocks),
        verified_error=mean_error(verified.errors),
        predicted_percent=predicted_percent(blocks, latency),
        measured_percent=None,
        reason="saves less than asked",
        loss=verified.loss,
    )


def reduced_plan(
    plan: Plan, within: WithinDrop, latency: LatencyTable, recoverability: Recoverabilities, measure: Measure | None
) -> Plan:
    """The plan of the set that saves most within the allowed loss, replacing one that costs more; it has no target."""
    best = within.best
    assert best is not None
    attempt = try_blocks(best.dropped, latency, None, measure)
    taken = replace(best, measured_percent=attempt.measured_percent, reason="")
    refused = replace(within.target_set, reason="costs more accuracy than --max-drop allows")
    others = [candidate for candidate in plan.considered if candidate.dropped not in (best.dropped, refused.dropped)]
    smaller = [candidate for candidate in within.sets if candidate.dropped != best.dropped]
    reduced = replace(
        plan,
        target_percent=None,
        dropped=best.dropped,
        predicted_ms=plan.baseline_ms * (1 - attempt.predicted_percent.estimate / 100),
        predicted_percent=attempt.predicted_percent,
        measured_percent=attempt.measured_percent,
        attempts=(*plan.attempts, attempt),
        reached=True,
        selection_frequency={},
        set_frequency=None,
        considered=(taken, refused, *smaller, *others),
        within_drop=within,
        notes=(*plan.notes, f"{_cost(within.target_set)}; --best-within-drop takes the most that costs less"),
    )
    kept_reasons = (
        replace(kept, reason="more blocks would cost more accuracy than --max-drop allows")
        if kept.block in plan.scores
        else kept
        for kept in kept_blocks(latency, recoverability.of, reduced, {})
    )
    return replace(reduced, kept=tuple(kept_reasons))


def costs_too_much(plan: Plan, within: WithinDrop, *, by_default: bool) -> TargetOutOfReach:
    """The error for a target that costs more accuracy than allowed, with the best alternative."""
    demand = f"--max-drop {within.demand_points:g}{', the default' if by_default else ''}"
    limit = (
        f"the target is out of reach within {demand}"
        if plan.reached
        else f"{out_of_reach(plan).message}; within {demand}"
    )
    message = f"{limit}: {_cost(within.target_set)}, and finetuning is not known to win back so much"
    verified = [candidate for candidate in within.sets if candidate.loss is not None]
    smallest = min(verified, key=lambda candidate: candidate.predicted_percent.estimate, default=None)
    if within.best is None:
        tried = f"; even {_cost(smallest)}" if smallest else ""
        return TargetOutOfReach(
            message + tried,
            remedy="give more images, or allow more with --max-drop (none waives the demand); this network has little to spare",
        )
    return TargetOutOfReach(
        f"{message}; {_cost(within.best)}",
        remedy=f"take that with --best-within-drop, or ask for {_asking_for(within.best)}; --max-drop none drops the blocks all the same",
    )


def _cost(candidate: Considered) -> str:
    """A sentence on what a set saves and loses."""
    saved, loss = candidate.measured_percent or candidate.predicted_percent, candidate.loss
    assert loss is not None
    points = loss.points
    how = "estimated without labels, " if loss.estimated else ""
    return (
        f"{saved.estimate:.1f}% less latency ({', '.join(candidate.dropped)}) costs {points.estimate:.1f} points of {'accuracy' if loss.of_accuracy else 'agreement'} "
        f"[{points.low:.1f}, {points.high:.1f}] after recovery in closed form ({how}on {loss.images:,} {loss.sample}s that the fit did not see)"
    )


def _asking_for(candidate: Considered) -> str:
    lower_bound = int(10 * candidate.predicted_percent.low) / 10
    return f"--reduce {lower_bound:g}%" if lower_bound > 0 else f"--drop {len(candidate.dropped)}"
