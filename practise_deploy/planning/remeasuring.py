"""Repeat a final measurement whose speed-up interval contains a requirement, which leaves it undecided. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from practise_backends.interfaces import MeasurementSetup
from practise_backends.terms import Comparison, Interval
from practise_deploy.outcome import Answer
from practise_deploy.terms import Plan

MAX_REMEASUREMENTS = 2
"""How often an undecided measurement is repeated, each time for twice as long: 7 budgets in all."""
FASTER = math.nextafter(1.0, 2.0)
"""The smallest speed-up above 1."""
UNDECIDED = (
    "its interval does not tell, although it was measured again for longer: go on on a quieter machine with "
    "practise-deploy bench --fresh --out RUN, or with more --measure-budget-s or --sessions"
)


def speed_answer(speedup: Interval, required: float) -> Answer:
    """Whether a speed-up reaches the required one; not proven if that lies within its interval."""
    if speedup.low >= required:
        return Answer.KEPT
    return Answer.BROKEN if speedup.high < required else Answer.NOT_PROVEN


def speedup_for(reduction_percent: float) -> float:
    """A reduction of latency as a ratio."""
    return 1 / max(1e-9, 1 - reduction_percent / 100)


def required_speedups(plan: Plan, min_speedup: float | None) -> tuple[float, ...]:
    """The speed-ups that the release must reach; empty if the plan's device is not available."""
    if plan.measured_percent is None:
        return ()
    target = () if plan.target_percent is None else (speedup_for(plan.target_percent),)
    return (FASTER, *target, *(() if min_speedup is None else (min_speedup,)))


def counted(plan: Plan, comparison: Comparison) -> Interval:
    """The speed-up that the release is held to: over the original in the same precision, or in fp32 (`Plan.over_fp32`)."""
    return comparison.fp32.speedup if plan.over_fp32 and comparison.fp32 else comparison.speedup


def is_undecided(speedup: Interval, thresholds: Sequence[float]) -> bool:
    """Whether the measurement leaves one of the thresholds undecided."""
    return any(speed_answer(speedup, threshold) is Answer.NOT_PROVEN for threshold in thresholds)


def longer(setup: MeasurementSetup, comparison: Comparison) -> MeasurementSetup:
    """The setup of a repeated measurement: twice the time, and twice the sessions if they dominate the variance.

    The sessions stay the same if each needs a separate build, or if many rounds were discarded: longer rounds are disturbed more often.
    """
    rule = setup.stopping_rule
    costly = setup.backend.capabilities.builds_differ or 2 * len(comparison.discarded) > comparison.rounds
    sessions = rule.sessions * (2 if _is_wide_by_sessions(comparison) and not costly else 1)
    narrow = rule.half_width_percent / 2
    return replace(
        setup, stopping_rule=replace(rule, budget_s=2 * rule.budget_s, half_width_percent=narrow, sessions=sessions)
    )


def _is_wide_by_sessions(comparison: Comparison) -> bool:
    """Whether the variance between sessions is more than half of the speed-up's variance."""
    ratio = comparison.speedup
    standard_error = (
        100 * (ratio.high - ratio.low) / (2 * ratio.estimate * NormalDist().inv_cdf((1 + ratio.confidence) / 2))
    )
    return 2 * comparison.session_percent**2 / comparison.sessions > standard_error**2 / 2


def last_of(comparisons: Sequence[Comparison], failed: str = "") -> Comparison:
    """The last measurement, the only one that counts, with a note on the undecided ones. failed: why a further one failed."""
    *before, last = comparisons
    undecided = ", then ".join(
        f"{comparison.speedup.estimate:.3f} [{comparison.speedup.low:.3f}, {comparison.speedup.high:.3f}]"
        for comparison in before
    )
    notes = (
        *(
            [
                f"measured again for longer, and that alone counts: {undecided} did not tell whether what was asked is met"
            ]
            if before
            else []
        ),
        *([f"measured again for longer, in vain: {failed}"] if failed else []),
    )
    return replace(last, notes=(*last.notes, *notes))
