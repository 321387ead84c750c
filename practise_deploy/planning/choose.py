"""The paper's recipe: drop blocks of lowest recoverability per saved millisecond until the budget is met.

The score is the paper's s(B) = R(B) / tau(B) (section 3.3), with tau at the lower bound of its interval, so that noise
never ranks a block. The parts that plans of both recipes share are here too. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from practise_backends.errors import EnvironmentProblem
from practise_backends.results.table import WORTH_KNOWING_PERCENT
from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.errors import InputError, TargetOutOfReach
from practise_deploy.terms import Attempt, Budget, Kept, Plan, Recoverability, saving_lower_bound

MAX_SHORTFALL = 0.05
"""How far below its predicted saving, as a share, a set that will be measured is assumed to be at most."""

_NO_SAVING = "no block's saving on this device is distinguishable from zero"
_NOISE_REMEDY = "measure for longer with --measure-budget-s, or on a quieter machine"

Measure = Callable[[tuple[str, ...]], Interval]


def scores_of(latency: LatencyTable, recoverability: Sequence[Recoverability]) -> dict[str, float]:
    """Recoverability per millisecond at the saving's lower bound, of blocks whose saving is statistically distinguishable from
    zero; lowest first.
    """
    saving = {s.block: s for s in latency.savings}
    scores = {
        r.block: r.mse.estimate / saving[r.block].saving_ms.low
        for r in recoverability
        if _has_saving(saving.get(r.block))
    }
    return dict(sorted(scores.items(), key=lambda item: (item[1], item[0])))


def choose_blocks(
    latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget, measure: Measure | None
) -> Plan:
    """Drop the blocks of lowest score until the measured network meets the budget; plan again if it misses.

    measure: the measured reduction, in percent, of a set of blocks dropped together; None if the table's
    device is not available, so that the prediction must do. A measured reduction meets the target if its lower bound does, with
    half an interval to spare for the final measurement; a predicted one if its lower bound does. `reached` is False if
    all blocks together fall short; the plan then holds the best.
    Raises: InputError where more blocks are requested than can be ranked, or the target is met already.
    """
    scores = scores_of(latency, recoverability)
    if not scores:
        return empty_plan(latency, recoverability, budget)
    target, ranked = checked_target(budget, latency, len(scores)), tuple(scores)
    attempts: list[Attempt] = []
    count = budget.drop or _count_for(ranked, latency, target or 0.0)
    while True:
        attempts.append(try_blocks(ranked[:count], latency, target, measure))
        if attempts[-1].met or budget.drop is not None or count == len(ranked):
            break
        count += 1
    first = len(attempts) == 1
    while budget.drop is None and first and attempts[-1].met and count > 1:
        fewer = try_blocks(ranked[: count - 1], latency, target, measure)  # the table's sum may be too pessimistic
        if not fewer.met:
            attempts.insert(-1, fewer)
            break
        attempts.append(fewer)
        count -= 1
    plan = plan_of(latency, budget, scores, tuple(attempts))
    places = {name: f"ranked {place} of {len(ranked)}" for place, name in enumerate(ranked, 1)}
    kept, notes = kept_blocks(latency, recoverability, plan, places), noise_notes(latency, plan.dropped)
    return replace(plan, kept=kept, notes=notes)


def checked_target(budget: Budget, latency: LatencyTable, rankable: int) -> float | None:
    """The reduction that the budget requires, in percent; None if it is a number of blocks.

    Raises: InputError where more blocks are requested than can be ranked, or the target is met already; EnvironmentProblem where
    only noise keeps the rest from being ranked.
    """
    if budget.drop is not None and budget.drop > rankable:
        problem = f"--drop {budget.drop}: only {rankable} blocks have a saving distinguishable from zero"
        hidden = [saving.block for saving in latency.savings if _is_hidden(saving)]
        if budget.drop <= rankable + len(hidden):
            remedy = f"{_NOISE_REMEDY}; or ask for at most {rankable}"
            raise EnvironmentProblem(f"{problem}; the noise hides that of {', '.join(hidden)}", remedy=remedy)
        raise InputError(problem, remedy=f"ask for at most {rankable}")
    target = _target_percent(budget, latency)
    if target is not None and target <= 0:
        raise InputError(
            f"nothing to do: the original runs in {latency.baseline_ms.estimate:.3g} ms, within {budget.target_ms:g} ms",
            remedy="ask for less than that with --target-ms, or for a share with --reduce",
        )
    return target


def _has_saving(saving: Saving | None) -> bool:
    return saving is not None and saving.distinguishable and saving.saving_ms.low > 0


def _target_percent(budget: Budget, latency: LatencyTable) -> float | None:
    """The budget as a reduction in percent; a latency in ms is relative to the baseline of the same measurement."""
    if budget.target_ms is not None:
        return 100 * (1 - budget.target_ms / latency.baseline_ms.estimate)
    return budget.reduce_percent


def predicted_percent(names: Sequence[str], latency: LatencyTable) -> Interval:
    """The reduction when these blocks are dropped together: the sum of theirs times the additivity.

    The bounds add up too, since the blocks' intervals share the uncertainty of the original's latency.
    """
    parts = [s.reduction_percent for s in latency.savings if s.block in names]
    factor = latency.additivity
    estimate, low, high = (factor.estimate, factor.low, factor.high) if factor else (1.0, 1.0, 1.0)
    sums = [sum(getattr(part, end) for part in parts) for end in ("estimate", "low", "high")]
    ends = (low * sums[1], high * sums[1], low * sums[2], high * sums[2])
    confidence = latency.baseline_ms.confidence
    return Interval(estimate=estimate * sums[0], low=min(ends), high=max(ends), confidence=confidence)


def assumed_percent(names: Sequence[str], latency: LatencyTable, *, measured: bool) -> float:
    """The saving, in percent, that a search assumes of a set: the lower bound of the prediction.

    measured: the set is measured before it is chosen, so the assumption is at most MAX_SHORTFALL below the estimate.
    """
    predicted = predicted_percent(names, latency)
    return max(predicted.low, (1 - MAX_SHORTFALL) * predicted.estimate) if measured else predicted.low


def count_reaching(plan: Plan, latency: LatencyTable, reduction_percent: float) -> int:
    """How many blocks of lowest score reach a reduction at the lower bound of the prediction; all if none are enough."""
    ranked = tuple(plan.scores)
    for count in range(1, len(ranked)):
        if predicted_percent(ranked[:count], latency).low >= reduction_percent:
            return count
    return len(ranked)


def _count_for(ranked: tuple[str, ...], latency: LatencyTable, target: float) -> int:
    for count in range(1, len(ranked)):
        if predicted_percent(ranked[:count], latency).estimate >= target:
            return count
    return len(ranked)


def try_blocks(names: tuple[str, ...], latency: LatencyTable, target: float | None, measure: Measure | None) -> Attempt:
    """The predicted and, if the device is available, the measured reduction of a set, against the target."""
    predicted = predicted_percent(names, latency)
    measured = measure(names) if measure else None
    met = target is None or saving_lower_bound(predicted, measured) >= target
    return Attempt(dropped=names, predicted_percent=predicted, measured_percent=measured, met=met)


def plan_of(latency: LatencyTable, budget: Budget, scores: Mapping[str, float], attempts: tuple[Attempt, ...]) -> Plan:
    """The plan of the last attempt, without the reasons of the kept blocks."""
    chosen = attempts[-1]
    baseline = latency.baseline_ms.estimate
    return Plan(
        budget=budget,
        target_percent=_target_percent(budget, latency),
        baseline_ms=baseline,
        dropped=chosen.dropped,
        kept=(),
        scores=dict(scores),
        device=latency.device.name,
        predicted_ms=baseline * (1 - chosen.predicted_percent.estimate / 100),
        predicted_percent=chosen.predicted_percent,
        measured_percent=chosen.measured_percent,
        attempts=attempts,
        reached=chosen.met,
    )


def kept_blocks(
    latency: LatencyTable, recoverability: Sequence[Recoverability], plan: Plan, places: Mapping[str, str]
) -> tuple[Kept, ...]:
    """Why each of the other blocks is kept. places: the rank of every rankable block."""
    judged = {r.block for r in recoverability}
    counted = plan.budget.drop is not None
    enough = f"--drop {len(plan.dropped)} was asked for" if counted else "the target is met without it"
    kept = []
    for saving in latency.savings:
        name = saving.block
        if name in plan.dropped:
            continue
        if name in places:
            reason = f"{places[name]}; {enough}"
        elif name in plan.scores:
            reason = enough
        elif not _has_saving(saving):
            low, high = saving.saving_ms.low, saving.saving_ms.high
            reason = f"no measurable saving: {low:.3f} to {high:.3f} ms, noise floor {latency.resolution_ms:.3f} ms"
        else:
            reason = "recoverability not measured" if name not in judged else "not ranked"
        kept.append(Kept(block=name, reason=reason))
    return tuple(kept)


def noise_notes(latency: LatencyTable, dropped: Sequence[str]) -> tuple[str, ...]:
    """A note on blocks that only noise excluded: they may save as much as a dropped one."""
    smallest = min((saving.saving_ms.estimate for saving in latency.savings if saving.block in dropped), default=0.0)
    hidden = [
        saving
        for saving in latency.savings
        if not _has_saving(saving) and saving.saving_ms.high > max(smallest, latency.resolution_ms)
    ]
    if not hidden:
        return ()
    listed = ", ".join(f"{saving.block} (up to {saving.saving_ms.high:.3f} ms)" for saving in hidden)
    return (
        f"noise decided: {listed} may save as much as a block that goes, but no saving is distinguishable from zero; "
        "plan again on a quieter machine, or with a larger --measure-budget-s",
    )


def empty_plan(latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget) -> Plan:
    """A plan that drops nothing, since no block's saving is distinguishable from zero."""
    none = Interval(estimate=0.0, low=0.0, high=0.0, confidence=latency.baseline_ms.confidence)
    empty = Attempt(dropped=(), predicted_percent=none, measured_percent=none, met=False)
    plan = plan_of(latency, budget, {}, (empty,))
    return replace(plan, kept=kept_blocks(latency, recoverability, plan, {}))


def plan_for(
    blocks: tuple[str, ...], latency: LatencyTable, recoverability: Sequence[Recoverability], measure: Measure | None
) -> Plan:
    """The plan of blocks that were chosen together with the precision; there may be none."""
    none = Interval(estimate=0.0, low=0.0, high=0.0, confidence=latency.baseline_ms.confidence)
    unchanged = Attempt(dropped=(), predicted_percent=none, measured_percent=none, met=True)
    attempt = try_blocks(blocks, latency, None, measure) if blocks else unchanged
    plan = plan_of(latency, Budget(drop=len(blocks)), scores_of(latency, recoverability), (attempt,))
    kept = kept_blocks(latency, recoverability, plan, {})
    reasons = tuple(
        replace(each, reason="not of the set that was chosen with the precision") if each.block in plan.scores else each
        for each in kept
    )
    return replace(plan, kept=reasons, over_fp32=True)


def _target_text(plan: Plan) -> str:
    target_ms = plan.budget.target_ms
    return f"{target_ms:g} ms" if target_ms else f"{plan.target_percent:.1f}% less latency"


def _all_save(plan: Plan) -> str:
    """A sentence on the reduction without any rankable block, with its lower bound."""
    reduction = plan.measured_percent or plan.predicted_percent
    save = "saves" if plan.measured_percent else "is predicted to save"
    spare = "with half an interval to spare" if plan.measured_percent else "at the lower bound"
    return (
        f"dropping all {len(plan.dropped)} rankable blocks {save} {reduction.estimate:.1f}% [{reduction.low:.1f}, {reduction.high:.1f}], "
        f"{plan.lower_bound_percent:.1f}% {spare}"
    )


def too_disturbed(plan: Plan, latency: LatencyTable) -> EnvironmentProblem | None:
    """The error for a plan that misses its target only because the device is noisy; None otherwise.

    That is so if the estimated saving of all blocks, plus the upper bounds of the savings hidden by noise, reaches the target.
    """
    hidden = [saving for saving in latency.savings if _is_hidden(saving)]
    reduction, target = plan.measured_percent or plan.predicted_percent, plan.target_percent or 0.0
    could = reduction.estimate + sum(saving.reduction_percent.high for saving in hidden)
    if (plan.reached and plan.dropped) or could < target or not (hidden or plan.dropped):
        return None
    shortfall = f"{_all_save(plan)}, where {_target_text(plan)} was asked for" if plan.dropped else _NO_SAVING
    names = ", ".join(saving.block for saving in hidden)
    more = f"; the noise hides what is saved without {names}, up to {could - reduction.estimate:.1f}%" if hidden else ""
    return EnvironmentProblem(
        f"{plan.device} is too disturbed to plan on: {shortfall}{more}; "
        f"{len(latency.discarded):,} of {latency.rounds:,} rounds of the latency table were discarded",
        remedy=f"see practise-deploy doctor, and {_NOISE_REMEDY}"
        + (f"; or ask for at most --reduce {int(plan.lower_bound_percent)}%" if plan.lower_bound_percent >= 1 else ""),
    )


def _is_hidden(saving: Saving) -> bool:
    """Whether noise may hide a relevant saving."""
    return not _has_saving(saving) and saving.reduction_percent.high > WORTH_KNOWING_PERCENT


def out_of_reach(plan: Plan) -> TargetOutOfReach:
    """The error for a plan that misses its target, with the best alternative."""
    if not plan.dropped:
        return TargetOutOfReach(
            f"{_NO_SAVING}, so nothing is dropped",
            remedy=_NOISE_REMEDY,
        )
    reduction, baseline = plan.measured_percent or plan.predicted_percent, plan.baseline_ms
    lower_bound = plan.lower_bound_percent
    return TargetOutOfReach(
        f"the target of {_target_text(plan)} is out of reach: {_all_save(plan)}; {baseline * (1 - reduction.estimate / 100):.3f} ms of {baseline:.3f} ms remain",
        remedy=f"ask for at most --reduce {int(lower_bound)}%, or --target-ms {baseline * (1 - lower_bound / 100):.3g}"
        if lower_bound >= 1
        else "nothing of note can be saved on this device by dropping blocks",
    )
