"""Which blocks go: lowest recoverability per surely saved millisecond, until the budget is met. Pure arithmetic.

The score is the paper's s(B) = R(B) / tau(B) (section 3.3), with tau at the bad end of its interval, so that a
block is never ranked by the noise of its measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from practise_backends.terms import Interval
from practise_deploy.errors import InputError, TargetOutOfReach
from practise_deploy.terms import Attempt, Budget, Kept, LatencyTable, Plan, Recoverability, Saving

Measure = Callable[[tuple[str, ...]], Interval]


def scores_of(latency: LatencyTable, recoverability: Sequence[Recoverability]) -> dict[str, float]:
    """Recoverability per surely saved millisecond, of the blocks whose saving can be told from none; lowest first."""
    saving = {s.block: s for s in latency.savings}
    found = {
        r.block: r.mse.estimate / saving[r.block].saving_ms.low for r in recoverability if _sure(saving.get(r.block))
    }
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def choose_blocks(
    latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget, measure: Measure
) -> Plan:
    """Take the best bargains until the measured network meets the budget; plan again where it misses.

    measure: the measured reduction, in percent, of a set of blocks dropped together. A reduction counts as met
    where its bad end does, with half an interval to spare for the final measurement. `reached` is False where all blocks together fall short; the plan then holds the best.
    Raises: InputError where more blocks are asked for than can be ranked, or the target is met already.
    """
    scores = scores_of(latency, recoverability)
    target = _target_percent(budget, latency)
    if not scores:
        return _nothing(latency, recoverability, budget, target)
    ranked = tuple(scores)
    if budget.drop is not None and budget.drop > len(ranked):
        raise InputError(
            f"--drop {budget.drop}: only {len(ranked)} blocks have a saving that can be told from none",
            remedy=f"ask for at most {len(ranked)}",
        )
    if target is not None and target <= 0:
        raise InputError(
            f"nothing to do: the original runs in {latency.baseline_ms.estimate:.3g} ms, within {budget.target_ms:g} ms",
            remedy="ask for less than that with --target-ms, or for a share with --reduce",
        )
    attempts: list[Attempt] = []
    count = budget.drop or _count_for(ranked, latency, target or 0.0)
    while True:
        attempts.append(_attempt(ranked[:count], latency, target, measure))
        if attempts[-1].met or budget.drop is not None or count == len(ranked):
            break
        count += 1
    while budget.drop is None and attempts[-1].met and count > 1 and len(attempts) == 1:
        fewer = _attempt(ranked[: count - 1], latency, target, measure)  # the table's sum may promise too little
        if not fewer.met:
            attempts.insert(0, fewer)
            break
        attempts, count = [fewer], count - 1
    return _plan(latency, recoverability, budget, target, scores, tuple(attempts))


def _sure(saving: Saving | None) -> bool:
    return saving is not None and saving.distinguishable and saving.saving_ms.low > 0


def _target_percent(budget: Budget, latency: LatencyTable) -> float | None:
    """The budget as a reduction: a latency in ms is turned into one by the baseline of the same measurement."""
    if budget.target_ms is not None:
        return 100 * (1 - budget.target_ms / latency.baseline_ms.estimate)
    return budget.reduce_percent


def _predicted(names: Sequence[str], latency: LatencyTable) -> float:
    return sum(s.reduction_percent.estimate for s in latency.savings if s.block in names)


def _count_for(ranked: tuple[str, ...], latency: LatencyTable, target: float) -> int:
    for count in range(1, len(ranked)):
        if _predicted(ranked[:count], latency) >= target:
            return count
    return len(ranked)


def _surely(measured: Interval) -> float:
    """What another measurement will hardly fall short of at its own bad end: the low end less half an interval."""
    return measured.low - (measured.high - measured.low) / 2


def _attempt(names: tuple[str, ...], latency: LatencyTable, target: float | None, measure: Measure) -> Attempt:
    measured = measure(names)
    met = target is None or _surely(measured) >= target
    return Attempt(dropped=names, predicted_percent=_predicted(names, latency), measured_percent=measured, met=met)


def _plan(
    latency: LatencyTable,
    recoverability: Sequence[Recoverability],
    budget: Budget,
    target: float | None,
    scores: dict[str, float],
    attempts: tuple[Attempt, ...],
) -> Plan:
    chosen = attempts[-1]
    baseline = latency.baseline_ms.estimate
    return Plan(
        budget=budget,
        target_percent=target,
        baseline_ms=baseline,
        dropped=chosen.dropped,
        kept=_kept(latency, recoverability, scores, chosen.dropped, counted=budget.drop is not None),
        scores=scores,
        predicted_ms=baseline * (1 - chosen.predicted_percent / 100),
        measured_percent=chosen.measured_percent,
        attempts=attempts,
        reached=chosen.met,
    )


def _kept(
    latency: LatencyTable,
    recoverability: Sequence[Recoverability],
    scores: dict[str, float],
    dropped: Sequence[str],
    *,
    counted: bool,
) -> tuple[Kept, ...]:
    rank = {name: place for place, name in enumerate(scores, 1)}
    judged = {r.block for r in recoverability}
    enough = f"--drop {len(dropped)} was asked for" if counted else "the target is met without it"
    kept = []
    for saving in latency.savings:
        name = saving.block
        if name in dropped:
            continue
        if name in rank:
            reason = f"ranked {rank[name]} of {len(rank)}; {enough}"
        elif not _sure(saving):
            low, high = saving.saving_ms.low, saving.saving_ms.high
            reason = f"no measurable saving: {low:.3f} to {high:.3f} ms, noise floor {latency.resolution_ms:.3f} ms"
        else:
            reason = "recoverability not measured" if name not in judged else "not ranked"
        kept.append(Kept(block=name, reason=reason))
    return tuple(kept)


def _nothing(
    latency: LatencyTable, recoverability: Sequence[Recoverability], budget: Budget, target: float | None
) -> Plan:
    none = Interval(estimate=0.0, low=0.0, high=0.0, confidence=latency.baseline_ms.confidence)
    empty = Attempt(dropped=(), predicted_percent=0.0, measured_percent=none, met=False)
    return _plan(latency, recoverability, budget, target, {}, (empty,))


def out_of_reach(plan: Plan) -> TargetOutOfReach:
    """The error for a plan that misses its target, with the best that can be had."""
    if not plan.dropped:
        return TargetOutOfReach(
            "no block's saving can be told from none on this device, so nothing is dropped",
            remedy="measure for longer with --measure-budget-s, or on a quieter machine",
        )
    found, baseline = plan.measured_percent, plan.baseline_ms
    surely = _surely(found)
    asked = plan.budget.target_ms
    target = f"{asked:g} ms" if asked else f"{plan.target_percent:.1f}% less latency"
    return TargetOutOfReach(
        f"the target of {target} is out of reach: dropping all {len(plan.dropped)} rankable blocks saves "
        f"{found.estimate:.1f}% [{found.low:.1f}, {found.high:.1f}], {baseline * (1 - found.estimate / 100):.3f} ms of {baseline:.3f} ms",
        remedy=f"ask for at most --reduce {int(surely)}%, or --target-ms {baseline * (1 - surely / 100):.3g}"
        if surely >= 1
        else "nothing of note can be saved on this device by dropping blocks",
    )
