"""Which blocks go by the paper's recipe: lowest recoverability per surely saved millisecond, until the budget is met.

The score is the paper's s(B) = R(B) / tau(B) (section 3.3), with tau at the bad end of its interval, so that a
block is never ranked by the noise of its measurement. What a plan holds whichever way its blocks were chosen is
here too. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from practise_backends.results.table import WORTH_KNOWING_PERCENT
from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.errors import EnvironmentProblem, InputError, TargetOutOfReach
from practise_deploy.terms import Attempt, Budget, Kept, Plan, Recoverability, surely_saved

MOST_SPARE = 0.05
"""The share of its predicted saving that a set which will be measured may be taken to fall short of it."""

_NOTHING = "no block's saving can be told from none on this device"
_QUIETER = "measure for longer with --measure-budget-s, or on a quieter machine"

Measure = Callable[[tuple[str, ...]], Interval]


def scores_of(latency: LatencyTable, recoverability: Sequence[Recoverability]) -> dict[str, float]:
    """Recoverability per surely saved millisecond, of the blocks whose saving can be told from none; lowest first."""
    saving = {s.block: s for s in latency.savings}
    found = {
        r.block: r.mse.estimate / saving[r.block].saving_ms.low for r in recoverability if _sure(saving.get(r.block))
    }
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def choose_blocks(
    latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget, measure: Measure | None
) -> Plan:
    """Take the best bargains until the measured network meets the budget; plan again where it misses.

    measure: the measured reduction, in percent, of a set of blocks dropped together; None where the table's
    device is not at hand, and the prediction must do. A measured reduction counts as met where its bad end does, with half
    an interval to spare for the final measurement; a predicted one where its bad end does. `reached` is False where
    all blocks together fall short; the plan then holds the best.
    Raises: InputError where more blocks are asked for than can be ranked, or the target is met already.
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
        fewer = try_blocks(ranked[: count - 1], latency, target, measure)  # the table's sum may promise too little
        if not fewer.met:
            attempts.insert(-1, fewer)
            break
        attempts.append(fewer)
        count -= 1
    found = plan_of(latency, budget, scores, tuple(attempts))
    places = {name: f"ranked {place} of {len(ranked)}" for place, name in enumerate(ranked, 1)}
    kept, notes = kept_blocks(latency, recoverability, found, places), noise_notes(latency, found.dropped)
    return replace(found, kept=kept, notes=notes)


def checked_target(budget: Budget, latency: LatencyTable, rankable: int) -> float | None:
    """The reduction that the budget asks for, in percent; None where it is a number of blocks.

    Raises: InputError where more blocks are asked for than can be ranked, or the target is met already; EnvironmentProblem where
    they are too many for the noise alone.
    """
    if budget.drop is not None and budget.drop > rankable:
        told = f"--drop {budget.drop}: only {rankable} blocks have a saving that can be told from none"
        hidden = [one.block for one in latency.savings if _is_hidden(one)]
        if budget.drop <= rankable + len(hidden):
            remedy = f"{_QUIETER}; or ask for at most {rankable}"
            raise EnvironmentProblem(f"{told}; the noise hides that of {', '.join(hidden)}", remedy=remedy)
        raise InputError(told, remedy=f"ask for at most {rankable}")
    target = _target_percent(budget, latency)
    if target is not None and target <= 0:
        raise InputError(
            f"nothing to do: the original runs in {latency.baseline_ms.estimate:.3g} ms, within {budget.target_ms:g} ms",
            remedy="ask for less than that with --target-ms, or for a share with --reduce",
        )
    return target


def _sure(saving: Saving | None) -> bool:
    return saving is not None and saving.distinguishable and saving.saving_ms.low > 0


def _target_percent(budget: Budget, latency: LatencyTable) -> float | None:
    """The budget as a reduction: a latency in ms is turned into one by the baseline of the same measurement."""
    if budget.target_ms is not None:
        return 100 * (1 - budget.target_ms / latency.baseline_ms.estimate)
    return budget.reduce_percent


def predicted_percent(names: Sequence[str], latency: LatencyTable) -> Interval:
    """The reduction when these blocks are dropped together: the sum of theirs, times how far savings add up.

    Its ends are those of all parts at once, since the blocks' intervals share the original's uncertainty.
    """
    parts = [s.reduction_percent for s in latency.savings if s.block in names]
    factor = latency.additivity
    estimate, low, high = (factor.estimate, factor.low, factor.high) if factor else (1.0, 1.0, 1.0)
    sums = [sum(getattr(part, end) for part in parts) for end in ("estimate", "low", "high")]
    ends = (low * sums[1], high * sums[1], low * sums[2], high * sums[2])
    confidence = latency.baseline_ms.confidence
    return Interval(estimate=estimate * sums[0], low=min(ends), high=max(ends), confidence=confidence)


def promised_percent(names: Sequence[str], latency: LatencyTable, *, measured: bool) -> float:
    """In percent, what a set is taken to save in a search: the low end of the prediction.

    measured: it is measured before it is taken, so that a wide interval need not be made up for: at most MOST_SPARE.
    """
    found = predicted_percent(names, latency)
    return max(found.low, (1 - MOST_SPARE) * found.estimate) if measured else found.low


def count_reaching(plan: Plan, latency: LatencyTable, reduction_percent: float) -> int:
    """How many blocks, the best bargains first, are surely predicted to save so much; all where none are enough."""
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
    """The predicted and, where the device is at hand, the measured reduction of a set, against the target."""
    predicted = predicted_percent(names, latency)
    measured = measure(names) if measure else None
    met = target is None or surely_saved(predicted, measured) >= target
    return Attempt(dropped=names, predicted_percent=predicted, measured_percent=measured, met=met)


def plan_of(latency: LatencyTable, budget: Budget, scores: Mapping[str, float], attempts: tuple[Attempt, ...]) -> Plan:
    """The plan that the last attempt makes, without the reasons of the blocks that stay."""
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
    """Why each of the other blocks stays. places: in a ranking, of every rankable block."""
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
        elif not _sure(saving):
            low, high = saving.saving_ms.low, saving.saving_ms.high
            reason = f"no measurable saving: {low:.3f} to {high:.3f} ms, noise floor {latency.resolution_ms:.3f} ms"
        else:
            reason = "recoverability not measured" if name not in judged else "not ranked"
        kept.append(Kept(block=name, reason=reason))
    return tuple(kept)


def noise_notes(latency: LatencyTable, dropped: Sequence[str]) -> tuple[str, ...]:
    """Which blocks were left out of the choice by noise alone: they may save as much as one that goes."""
    least = min((one.saving_ms.estimate for one in latency.savings if one.block in dropped), default=0.0)
    hidden = [
        one for one in latency.savings if not _sure(one) and one.saving_ms.high > max(least, latency.resolution_ms)
    ]
    if not hidden:
        return ()
    told = ", ".join(f"{one.block} (up to {one.saving_ms.high:.3f} ms)" for one in hidden)
    return (
        f"noise decided: {told} may save as much as a block that goes, but no saving can be told from none; "
        "plan again on a quieter machine, or with a larger --measure-budget-s",
    )


def empty_plan(latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget) -> Plan:
    """Nothing goes, since no block has a saving that can be told from none."""
    none = Interval(estimate=0.0, low=0.0, high=0.0, confidence=latency.baseline_ms.confidence)
    empty = Attempt(dropped=(), predicted_percent=none, measured_percent=none, met=False)
    found = plan_of(latency, budget, {}, (empty,))
    return replace(found, kept=kept_blocks(latency, recoverability, found, {}))


def _target_said(plan: Plan) -> str:
    asked = plan.budget.target_ms
    return f"{asked:g} ms" if asked else f"{plan.target_percent:.1f}% less latency"


def _all_save(plan: Plan) -> str:
    """What is left of the latency without any rankable block, and how surely."""
    found = plan.measured_percent or plan.predicted_percent
    save = "saves" if plan.measured_percent else "is predicted to save"
    spare = ", half an interval to spare" if plan.measured_percent else ""
    return (
        f"dropping all {len(plan.dropped)} rankable blocks {save} {found.estimate:.1f}% [{found.low:.1f}, {found.high:.1f}], "
        f"surely {plan.surely_percent:.1f}%{spare}"
    )


def too_disturbed(plan: Plan, latency: LatencyTable) -> EnvironmentProblem | None:
    """The error for a plan that misses its target for the noise of the device: without it the network may well meet it.

    It may where what all blocks save by the estimates, with the most that those may whose saving the noise hides, reaches the target.
    """
    hidden = [one for one in latency.savings if _is_hidden(one)]
    found, target = plan.measured_percent or plan.predicted_percent, plan.target_percent or 0.0
    could = found.estimate + sum(one.reduction_percent.high for one in hidden)
    if (plan.reached and plan.dropped) or could < target or not (hidden or plan.dropped):
        return None
    told = f"{_all_save(plan)}, where {_target_said(plan)} was asked for" if plan.dropped else _NOTHING
    names = ", ".join(one.block for one in hidden)
    more = f"; the noise hides what is saved without {names}, up to {could - found.estimate:.1f}%" if hidden else ""
    return EnvironmentProblem(
        f"{plan.device} is too disturbed to plan on: {told}{more}; "
        f"{len(latency.discarded):,} of {latency.rounds:,} rounds of the latency table were discarded",
        remedy=f"see practise-deploy doctor, and {_QUIETER}"
        + (f"; or ask for at most --reduce {int(plan.surely_percent)}%" if plan.surely_percent >= 1 else ""),
    )


def _is_hidden(one: Saving) -> bool:
    """Whether there may be a saving worth knowing that the noise hides."""
    return not _sure(one) and one.reduction_percent.high > WORTH_KNOWING_PERCENT


def out_of_reach(plan: Plan) -> TargetOutOfReach:
    """The error for a plan that misses its target, with the best that can be had."""
    if not plan.dropped:
        return TargetOutOfReach(
            f"{_NOTHING}, so nothing is dropped",
            remedy=_QUIETER,
        )
    found, baseline = plan.measured_percent or plan.predicted_percent, plan.baseline_ms
    surely = plan.surely_percent
    return TargetOutOfReach(
        f"the target of {_target_said(plan)} is out of reach: {_all_save(plan)}; {baseline * (1 - found.estimate / 100):.3f} ms of {baseline:.3f} ms remain",
        remedy=f"ask for at most --reduce {int(surely)}%, or --target-ms {baseline * (1 - surely / 100):.3g}"
        if surely >= 1
        else "nothing of note can be saved on this device by dropping blocks",
    )
