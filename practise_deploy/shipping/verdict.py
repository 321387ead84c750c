"""Did the release keep its promise? Pure arithmetic, at the bad end of the intervals."""

from __future__ import annotations

from collections.abc import Sequence

from practise_backends.terms import Comparison
from practise_deploy.settings import flag_of
from practise_deploy.terms import Gate, Plan, Verdict, Verification


def judge(
    plan: Plan, verification: Verification, bench: Comparison | None, gate: Gate | None, precision: Sequence[str] = ()
) -> Verdict:
    """The promise: the network is faster, by the target where one was given, computes what the student computes, in the
    precision that was asked, and passes the gate where there is one.

    Where the latency table is of a device that is not at hand, the target is judged by the prediction, and said so.
    bench: None where the engine was built ahead and ran nowhere. precision: why it is not kept.
    """
    if not verification.faithful:
        return Verdict(kept=False, exit_code=4, sentence="The shipped network does not compute what the student computes.",
                       reasons=verification.problems)  # fmt: skip
    told = _predicted(plan) if bench is None or plan.measured_percent is None else _measured(plan, bench)
    reasons = [*told, *precision]
    if gate is not None and not gate.passed:
        reasons += [f"{flag_of(one.name)}: {one.reason}" for one in gate.constraints if not one.passed]
        reasons.append(gate.advice)
    return Verdict(
        kept=not reasons,
        exit_code=1 if reasons else 0,
        sentence=f"{'Kept' if not reasons else 'Broken'}: {_speed(plan, bench)}, {_accuracy(verification)}.",
        reasons=tuple(reasons),
    )


def _measured(plan: Plan, bench: Comparison) -> list[str]:
    ratio = bench.speedup
    if ratio.low <= 1:
        return [f"the speed-up's interval [{ratio.low:.3f}, {ratio.high:.3f}] does not exclude 1"]
    if plan.target_percent is not None and _reduction(ratio.low) < plan.target_percent:
        return [
            f"asked for {plan.target_percent:.1f}% less latency; measured {_reduction(ratio.estimate):.1f}%, "
            f"surely {_reduction(ratio.low):.1f}%"
        ]
    return []


def _predicted(plan: Plan) -> list[str]:
    found = plan.predicted_percent
    if found.low <= 0:
        return [
            f"the predicted reduction on {plan.device}, {found.low:.1f} to {found.high:.1f}%, does not exclude none"
        ]
    if plan.target_percent is not None and found.low < plan.target_percent:
        return [
            f"asked for {plan.target_percent:.1f}% less latency on {plan.device}; predicted {found.estimate:.1f}%, "
            f"surely {found.low:.1f}%"
        ]
    return []


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


def _accuracy(verification: Verification) -> str:
    if verification.accuracy:
        found = list(verification.accuracy.values())
        before, after = found[0].percent, found[-1].percent
        return f"top-1 {after.estimate:.1f}% against {before.estimate:.1f}% on {verification.images} held-out images"
    agreement = verification.links[-1].agreement_percent
    return f"same top-1 class as the original on {agreement.estimate:.1f}% of {verification.images} held-out images (no labels)"
