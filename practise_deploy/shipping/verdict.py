"""Did the release keep its promise? Pure arithmetic, at the bad end of the intervals."""

from __future__ import annotations

from practise_deploy.terms import Plan, Speedup, Verdict, Verification


def judge(plan: Plan, verification: Verification, bench: Speedup) -> Verdict:
    """The promise: the network is faster, by the target where one was given, and computes what the student computes."""
    if not verification.faithful:
        return Verdict(kept=False, exit_code=4, sentence="The shipped network does not compute what the student computes.",
                       reasons=verification.problems)  # fmt: skip
    reasons = []
    ratio = bench.speedup
    if ratio.low <= 1:
        reasons.append(f"the speed-up's interval [{ratio.low:.3f}, {ratio.high:.3f}] does not exclude 1")
    elif plan.target_percent is not None and _reduction(ratio.low) < plan.target_percent:
        reasons.append(
            f"asked for {plan.target_percent:.1f}% less latency; measured {_reduction(ratio.estimate):.1f}%, "
            f"surely {_reduction(ratio.low):.1f}%"
        )
    sentence = f"{ratio.estimate:.2f} times as fast as the original ({100 * ratio.confidence:g}% interval {ratio.low:.2f} to {ratio.high:.2f})"
    return Verdict(
        kept=not reasons,
        exit_code=1 if reasons else 0,
        sentence=f"{'Kept' if not reasons else 'Broken'}: {sentence}, {_accuracy(verification)}.",
        reasons=tuple(reasons),
    )


def _reduction(ratio: float) -> float:
    return 100 * (1 - 1 / ratio)


def _accuracy(verification: Verification) -> str:
    if verification.accuracy:
        before, after = verification.accuracy["teacher"].percent, verification.accuracy["engine"].percent
        return f"top-1 {after.estimate:.1f}% against {before.estimate:.1f}% on {verification.images} held-out images"
    agreement = verification.links[-1].agreement_percent
    return f"same top-1 class as the original on {agreement.estimate:.1f}% of {verification.images} held-out images (no labels)"
