"""Did the release keep its promise? It promises the network as much as the speed. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from practise_backends.terms import Comparison
from practise_deploy.outcome import Answer, Constraint, Gate, Verdict, Verification
from practise_deploy.planning.gate import FROM_CHANCE, lost_points
from practise_deploy.planning.remeasuring import FASTER, UNDECIDED, speed_answer, speedup_for
from practise_deploy.settings import flag_of
from practise_deploy.terms import Plan


def judge(
    plan: Plan, verification: Verification, bench: Comparison | None, gate: Gate | None, precision: Sequence[str] = ()
) -> Verdict:
    """The promise: the network is faster, by the target where one was given, lost no more accuracy than allowed, computes what
    the student computes, in the precision that was asked, and passes the gate.

    Where the latency table is of a device that is not at hand, the target is judged by the prediction, and said so.
    bench: None where the engine was built ahead and ran nowhere. precision: why it is not kept.
    """
    if not verification.faithful:
        return Verdict(answer=Answer.BROKEN, exit_code=4, reasons=verification.problems,
                       sentence="The shipped network does not compute what the student computes.")  # fmt: skip
    fast, told = _predicted(plan) if bench is None or plan.measured_percent is None else _measured(plan, bench)
    failed = [*told, *precision]
    missed = [] if gate is None else [one for one in gate.constraints if one.answer is not Answer.KEPT]
    reasons = [*failed, *(f"{flag_of(one.name)}{_default(one)}: {one.reason}" for one in missed)]
    if any(one.name == "max_drop" and one.answer is Answer.NOT_PROVEN for one in missed) and _before_finetuning(plan):
        reasons.append(_before_finetuning(plan))
    if gate is not None and gate.advice:
        reasons.append(gate.advice)
    answers = {fast, *(one.answer for one in missed), *([Answer.BROKEN] if precision else [])}
    answer = next(one for one in (Answer.BROKEN, Answer.NOT_PROVEN, Answer.KEPT) if one in answers)
    return Verdict(
        answer=answer,
        exit_code=1 if failed or (gate is not None and gate.fails) else 0,
        sentence=_sentence(answer, plan, bench, verification, missed),
        reasons=tuple(reasons),
    )


def _sentence(
    answer: Answer, plan: Plan, bench: Comparison | None, verification: Verification, missed: Sequence[Constraint]
) -> str:
    """The headline. A loss that is too large comes before the speed that was bought with it."""
    answers = {one.name: one.answer for one in missed}
    lost = answers.get("max_drop")
    parts = [_speed(plan, bench), _accuracy(verification, in_doubt=lost is Answer.NOT_PROVEN)]
    if lost is Answer.BROKEN:
        parts.reverse()
    return f"{answer.value.capitalize()}: {', '.join(parts)}{_instead(plan)}."


def _instead(plan: Plan) -> str:
    """That less was saved than asked, for the sake of the accuracy."""
    if plan.within_drop is None:
        return ""
    asked = plan.budget
    target = (
        f"{asked.reduce_percent:g}% less latency" if asked.reduce_percent is not None
        else f"{asked.target_ms:g} ms" if asked.target_ms is not None else f"{asked.drop} blocks fewer"
    )  # fmt: skip
    return f"; the target, {target}, would have cost more than --max-drop {plan.within_drop.demand_points:g} allows"


def _before_finetuning(plan: Plan) -> str:
    """What images of the fit say of the chosen set, by students that did not see them: they are more than the held-out ones."""
    found = plan.chosen.loss if plan.chosen else None
    if found is None:
        return ""
    how = ", estimated without labels," if found.estimated else ""
    return f"before finetuning: {lost_points(found.points)}{how} on {found.images:,} images that the judged fits did not see"


def _default(one: Constraint) -> str:
    return f" {one.asked:g} (the default)" if one.by_default else ""


def _measured(plan: Plan, bench: Comparison) -> tuple[Answer, list[str]]:
    """Whether the release is faster, by the target where one was given, and why not."""
    ratio, target = bench.speedup, plan.target_percent
    asked = FASTER if target is None else max(FASTER, speedup_for(target))
    answer = speed_answer(ratio, asked)
    if answer is Answer.KEPT:
        return answer, []
    told = (
        f"the speed-up's interval [{ratio.low:.3f}, {ratio.high:.3f}] does not exclude 1"
        if target is None
        else f"asked for {target:.1f}% less latency; measured {_reduction(ratio.estimate):.1f}%, surely {_reduction(ratio.low):.1f}%"
    )
    return answer, [told if answer is Answer.BROKEN else f"{told}; {UNDECIDED}"]


def _predicted(plan: Plan) -> tuple[Answer, list[str]]:
    """The same, by the prediction."""
    found = plan.predicted_percent
    if found.low <= 0:
        told = f"the predicted reduction on {plan.device}, {found.low:.1f} to {found.high:.1f}%, does not exclude none"
        return Answer.BROKEN, [told]
    if plan.target_percent is not None and found.low < plan.target_percent:
        told = (
            f"asked for {plan.target_percent:.1f}% less latency on {plan.device}; predicted {found.estimate:.1f}%, "
            f"surely {found.low:.1f}%"
        )
        return Answer.BROKEN, [told]
    return Answer.KEPT, []


def _reduction(ratio: float) -> float:
    return 100 * (1 - 1 / ratio)


def _speed(plan: Plan, bench: Comparison | None) -> str:
    if bench is None:
        return f"{_foretold(plan)}; the engine was built ahead and has not run"
    ratio = bench.speedup
    kind = bench.conditions.precision
    original = "the original" if kind == "fp32" else f"the original in {kind}"
    said = f"{ratio.estimate:.2f} times as fast as {original} ({100 * ratio.confidence:g}% interval {ratio.low:.2f} to {ratio.high:.2f})"
    if plan.measured_percent is not None:
        return said
    return f"{_foretold(plan)}, not measured there; on {bench.device.name} {said}"


def _foretold(plan: Plan) -> str:
    found = plan.predicted_percent
    return f"{found.estimate:.1f}% less latency predicted for {plan.device} ({found.low:.1f} to {found.high:.1f})"


def _accuracy(verification: Verification, *, in_doubt: bool) -> str:
    """What was lost, as plainly as what was won; where it is in doubt, what could not be excluded."""
    found = verification.loss
    if found is None:
        return "no loss of accuracy can be told, since the output is no classifier's"
    images, accuracies = (
        f"{found.images:,} held-out images",
        [one.percent.estimate for one in verification.accuracy.values()],
    )
    known = f"top-1 {accuracies[0]:.1f}% → {accuracies[-1]:.1f}%" if accuracies else (
        f"estimated without labels, the original's answer on {found.agreement_percent.estimate:.1f}%"
    )  # fmt: skip
    if in_doubt and not found.above_chance:
        return f"{FROM_CHANCE} ({known} on {images})"
    if in_doubt:
        lost, _, _ = lost_points(found.points).partition(" [")
        return f"{lost} ({known}) on {images}, where a loss of up to {found.points.high:.1f} points cannot be excluded"
    return f"{lost_points(found.points)} ({known} {'on' if accuracies else 'of'} {images})"
