"""Does a measured speed-up tell on which side of what was asked it is? A final one that does not is measured again. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from practise_backends.terms import Bench, Comparison, Interval
from practise_deploy.outcome import Answer
from practise_deploy.terms import Plan

MOST_AGAIN = 2
"""How often a measurement that cannot decide is made again, each time for twice as long: 7 budgets in all."""
FASTER = math.nextafter(1.0, 2.0)
"""The least speed-up that is one."""
UNDECIDED = (
    "its interval does not tell, although it was measured again for longer: go on on a quieter machine with "
    "practise-deploy bench --fresh --out RUN, or with more --measure-budget-s or --sessions"
)


def speed_answer(speedup: Interval, asked: float) -> Answer:
    """Whether a speed-up is at least what was asked; not proven where that is within its interval."""
    if speedup.low >= asked:
        return Answer.KEPT
    return Answer.BROKEN if speedup.high < asked else Answer.NOT_PROVEN


def speedup_for(reduction_percent: float) -> float:
    """A reduction of latency as a ratio."""
    return 1 / max(1e-9, 1 - reduction_percent / 100)


def speedups_asked(plan: Plan, min_speedup: float | None) -> tuple[float, ...]:
    """What the release's speed-up is held against; nothing where the plan's device is not at hand."""
    if plan.measured_percent is None:
        return ()
    target = () if plan.target_percent is None else (speedup_for(plan.target_percent),)
    return (FASTER, *target, *(() if min_speedup is None else (min_speedup,)))


def is_undecided(found: Comparison, asked: Sequence[float]) -> bool:
    """Whether some of it is neither met nor missed, as far as this measurement can tell."""
    return any(speed_answer(found.speedup, one) is Answer.NOT_PROVEN for one in asked)


def longer(stand: Bench, found: Comparison) -> Bench:
    """Where a measurement is made again: with twice the time, and twice the sessions where they are what makes it wide.

    Sessions stay as many where each takes a build of its own, and where many rounds were discarded: the more runs a round has, the more
    rounds are hit.
    """
    patience = stand.patience
    costly = getattr(stand.backend, "builds_differ", False) or 2 * len(found.discarded) > found.rounds
    sessions = patience.sessions * (2 if _is_wide_by_sessions(found) and not costly else 1)
    narrow = patience.enough_percent / 2
    return replace(
        stand, patience=replace(patience, budget_s=2 * patience.budget_s, enough_percent=narrow, sessions=sessions)
    )


def _is_wide_by_sessions(found: Comparison) -> bool:
    """Whether most of the speed-up's variance is how far sessions of one file differ."""
    ratio = found.speedup
    whole = 100 * (ratio.high - ratio.low) / (2 * ratio.estimate * NormalDist().inv_cdf((1 + ratio.confidence) / 2))
    return 2 * found.session_percent**2 / found.sessions > whole**2 / 2


def last_of(made: Sequence[Comparison], failed: str = "") -> Comparison:
    """The last measurement, which counts alone, with a word on those that did not decide. failed: why a further one came to nothing."""
    *before, last = made
    told = ", then ".join(
        f"{one.speedup.estimate:.3f} [{one.speedup.low:.3f}, {one.speedup.high:.3f}]" for one in before
    )
    notes = (
        *(
            [f"measured again for longer, and that alone counts: {told} did not tell whether what was asked is met"]
            if before
            else []
        ),
        *([f"measured again for longer, in vain: {failed}"] if failed else []),
    )
    return replace(last, notes=(*last.notes, *notes))
