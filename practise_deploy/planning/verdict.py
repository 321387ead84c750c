"""The verdict on a release: its speed, its accuracy, its precision, and the gate. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from practise_backends.choices import Precision
from practise_backends.terms import Comparison, Interval
from practise_deploy.outcome import Answer, Criterion, GateResult, Verdict, Verification
from practise_deploy.planning.gate import lost_points
from practise_deploy.planning.measures import accuracy_name, agreement_text, nothing_to_lose
from practise_deploy.planning.remeasuring import FASTER, UNDECIDED, counted, speed_answer, speedup_for
from practise_deploy.settings import flag_of
from practise_deploy.terms import OF_CLASSES, Plan


def judge(
    plan: Plan,
    verification: Verification,
    bench: Comparison | None,
    gate: GateResult | None,
    precision: Sequence[str] = (),
) -> Verdict:
    """The verdict: the network is faster, by the target if there is one, lost no more accuracy than allowed, computes what
    the student computes, in the requested precision, and passes the gate.

    If the latency table is of a device that is not available, the prediction stands for the measurement, and the verdict says so.
    bench: None if the engine was cross-built and has not run. precision: the problems with the precision.
    """
    if not verification.faithful:
        return Verdict(answer=Answer.BROKEN, exit_code=4, reasons=verification.problems,
                       sentence="The shipped network does not compute what the student computes.")  # fmt: skip
    fast, shortfalls = _predicted(plan) if bench is None or plan.measured_percent is None else _measured(plan, bench)
    failed = [*shortfalls, *precision]
    missed = (
        [] if gate is None else [constraint for constraint in gate.constraints if constraint.answer is not Answer.KEPT]
    )
    reasons = [
        *failed,
        *(f"{flag_of(constraint.name)}{_default(constraint)}: {constraint.reason}" for constraint in missed),
    ]
    if any(
        constraint.name == "max_drop" and constraint.answer is Answer.NOT_PROVEN for constraint in missed
    ) and _before_finetuning(plan):
        reasons.append(_before_finetuning(plan))
    if gate is not None and gate.advice:
        reasons.append(gate.advice)
    answers = {fast, *(constraint.answer for constraint in missed), *([Answer.BROKEN] if precision else [])}
    answer = next(worst for worst in (Answer.BROKEN, Answer.NOT_PROVEN, Answer.KEPT) if worst in answers)
    return Verdict(
        answer=answer,
        exit_code=1 if failed or (gate is not None and gate.fails) else 0,
        sentence=_sentence(answer, plan, bench, verification, missed),
        reasons=tuple(reasons),
    )


def _sentence(
    answer: Answer, plan: Plan, bench: Comparison | None, verification: Verification, missed: Sequence[Criterion]
) -> str:
    """The headline. A loss that is too large comes before the speed-up."""
    answers = {constraint.name: constraint.answer for constraint in missed}
    lost = answers.get("max_drop")
    parts = [_speed(plan, bench), _accuracy(verification, in_doubt=lost is Answer.NOT_PROVEN)]
    if lost is Answer.BROKEN:
        parts.reverse()
    return f"{answer.value.capitalize()}: {', '.join(parts)}{_instead(plan)}."


def _instead(plan: Plan) -> str:
    """A note that the plan saves less than the target, for the sake of accuracy."""
    if plan.within_drop is None:
        return ""
    budget = plan.budget
    target = (
        f"{budget.reduce_percent:g}% less latency" if budget.reduce_percent is not None
        else f"{budget.target_ms:g} ms" if budget.target_ms is not None else f"{budget.drop} blocks fewer"
    )  # fmt: skip
    return f"; the target, {target}, would have cost more than --max-drop {plan.within_drop.demand_points:g} allows"


def _before_finetuning(plan: Plan) -> str:
    """The chosen set's loss before finetuning, cross-validated on the fit images, which outnumber the held-out ones."""
    loss = plan.chosen.loss if plan.chosen else None
    if loss is None:
        return ""
    how = ", estimated without labels," if loss.estimated else ""
    return f"before finetuning: {lost_points(loss.points, of_accuracy=loss.of_accuracy)}{how} on {loss.images:,} {loss.sample}s that the judged fits did not see"


def _default(constraint: Criterion) -> str:
    return f" {constraint.required:g} (the default)" if constraint.by_default else ""


def _measured(plan: Plan, bench: Comparison) -> tuple[Answer, list[str]]:
    """Whether the release is measurably faster, by the target if there is one, and why not."""
    ratio, target = counted(plan, bench), plan.target_percent
    required = FASTER if target is None else max(FASTER, speedup_for(target))
    answer = speed_answer(ratio, required)
    if answer is Answer.KEPT:
        return answer, []
    shortfall = (
        f"the speed-up's interval [{ratio.low:.3f}, {ratio.high:.3f}] does not exclude 1"
        if target is None
        else f"required: {target:.1f}% less latency; measured {_reduction(ratio.estimate):.1f}%, lower bound {_reduction(ratio.low):.1f}%"
    )
    return answer, [shortfall if answer is Answer.BROKEN else f"{shortfall}; {UNDECIDED}"]


def _predicted(plan: Plan) -> tuple[Answer, list[str]]:
    """The same by the prediction, at the lower bound of its interval."""
    predicted = plan.predicted_percent
    if predicted.low <= 0:
        shortfall = f"the predicted reduction on {plan.device}, {predicted.low:.1f} to {predicted.high:.1f}%, does not exclude none"
        return Answer.BROKEN, [shortfall]
    if plan.target_percent is not None and predicted.low < plan.target_percent:
        shortfall = (
            f"required: {plan.target_percent:.1f}% less latency on {plan.device}; predicted {predicted.estimate:.1f}%, "
            f"lower bound {predicted.low:.1f}%"
        )
        return Answer.BROKEN, [shortfall]
    return Answer.KEPT, []


def _reduction(ratio: float) -> float:
    return 100 * (1 - 1 / ratio)


def _speed(plan: Plan, bench: Comparison | None) -> str:
    if bench is None:
        return f"{_prediction(plan)}; the engine was built ahead and has not run"
    precision, fp32 = bench.conditions.precision, bench.fp32
    level = f"{100 * bench.speedup.confidence:g}% interval "
    if fp32 is None:
        original = "the original" if precision == Precision.FP32 else f"the original in {precision}"
        sentence = _times(bench.speedup, original, level)
    elif plan.over_fp32:
        alone = _times(bench.speedup, f"the original in {precision}") if plan.dropped else f"all of it by {precision}"
        sentence = f"{_times(fp32.speedup, 'the original in fp32', level)}, {alone}"
    else:
        sentence = f"{_times(bench.speedup, f'the original in {precision}', level)} and {_times(fp32.speedup, 'the original in fp32')}"
    if plan.measured_percent is not None:
        return sentence
    return f"{_prediction(plan)}, not measured there; on {bench.device.name} {sentence}"


def _times(ratio: Interval, original: str, level: str = "") -> str:
    return f"{ratio.estimate:.2f} times as fast as {original} ({level}{ratio.low:.2f} to {ratio.high:.2f})"


def _prediction(plan: Plan) -> str:
    predicted = plan.predicted_percent
    return f"{predicted.estimate:.1f}% less latency predicted for {plan.device} ({predicted.low:.1f} to {predicted.high:.1f})"


def _accuracy(verification: Verification, *, in_doubt: bool) -> str:
    """The loss of accuracy; where it is in doubt, the loss that cannot be excluded."""
    loss = verification.loss
    if loss is None:
        return "no loss can be measured, since the output is not what the task is about (see --task)"
    images, accuracies = (
        f"{loss.images:,} held-out {loss.sample}s",
        [accuracy.percent.estimate for accuracy in verification.accuracy.values()],
    )
    summary = f"{accuracy_name(loss.kind)} {accuracies[0]:.1f}% → {accuracies[-1]:.1f}%" if accuracies else (
        f"{'estimated without labels, ' if loss.estimated else ''}{agreement_text(loss.kind, f'{loss.agreement_percent.estimate:.1f}%')}"
    )  # fmt: skip
    if in_doubt and not loss.above_chance:
        return f"{nothing_to_lose(loss.kind)} ({summary} on {images})"
    if in_doubt:
        lost, _, _ = lost_points(loss.points, of_accuracy=loss.of_accuracy).partition(" [")
        return f"{lost} ({summary}) on {images}, where a loss of up to {loss.points.high:.1f} points cannot be excluded"
    of = "of" if loss.kind in OF_CLASSES and not accuracies else "on"
    return f"{lost_points(loss.points, of_accuracy=loss.of_accuracy)} ({summary} {of} {images})"
