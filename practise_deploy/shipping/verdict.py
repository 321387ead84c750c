"""Did the release keep its promise? Pure arithmetic, at the bad end of the intervals."""

from __future__ import annotations

from practise_backends.terms import Comparison
from practise_deploy.terms import Gate, Plan, Verdict, Verification


def judge(plan: Plan, verification: Verification, bench: Comparison, gate: Gate | None) -> Verdict:
    """The promise: the network is faster, by the target where one was given, computes what the student computes, and
    passes the gate where there is one.

    Where the latency table is of a device that is not at hand, the target is judged by the prediction, and said so.
    """
    if not verification.faithful:
        return Verdict(kept=False, exit_code=4, sentence="The shipped network does not compute what the student computes.",
                       reasons=verification.problems)  # fmt: skip
    away = plan.measured_percent is None
    reasons = [*(_predicted(plan) if away else _measured(plan, bench))]
    if gate is not None and not gate.passed:
        reasons += [f"{_flag(one.name)}: {one.reason}" for one in gate.constraints if not one.passed]
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
    if plan.target_percent is not None and found.low < plan.target_percent:
        return [
            f"asked for {plan.target_percent:.1f}% less latency on {plan.device}; predicted {found.estimate:.1f}%, "
            f"surely {found.low:.1f}%"
        ]
    return []


def _reduction(ratio: float) -> float:
    return 100 * (1 - 1 / ratio)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _speed(plan: Plan, bench: Comparison) -> str:
    ratio = bench.speedup
    said = f"{ratio.estimate:.2f} times as fast as the original ({100 * ratio.confidence:g}% interval {ratio.low:.2f} to {ratio.high:.2f})"
    if plan.measured_percent is not None:
        return said
    found = plan.predicted_percent
    return (
        f"{found.estimate:.1f}% less latency predicted for {plan.device} ({found.low:.1f} to {found.high:.1f}), "
        f"not measured there; on {bench.device.name} {said}"
    )


def _accuracy(verification: Verification) -> str:
    if verification.accuracy:
        before, after = verification.accuracy["teacher"].percent, verification.accuracy["engine"].percent
        return f"top-1 {after.estimate:.1f}% against {before.estimate:.1f}% on {verification.images} held-out images"
    agreement = verification.links[-1].agreement_percent
    return f"same top-1 class as the original on {agreement.estimate:.1f}% of {verification.images} held-out images (no labels)"
