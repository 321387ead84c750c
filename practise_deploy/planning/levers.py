"""Every lever against the original in fp32: which points are on the front, and which ones are built. Pure arithmetic.

A point is a set of dropped blocks in one precision. It is dominated where another is at least as fast and loses no more.
What finetuning wins back differs from network to network, and is known once a point was built. The first one assumes the least remaining
loss that the planner ever does (`within_drop.LEAST_LEFT`); if it loses too much, the next one is chosen by the loss that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from practise_backends.choices import Precision
from practise_backends.terms import LatencyTable
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.outcome import Answer, BuiltPoint, LeverPoint
from practise_deploy.planning.choose import predicted_percent
from practise_deploy.planning.gate import answer_of
from practise_deploy.planning.interactions import Blocks, best_sets, candidates_of
from practise_deploy.terms import Budget, Recoverabilities

MOST_BUILT = 3
"""How many points are built at most."""
STEPS = 10
"""How many reductions sets are looked for at."""
FURTHEST = 0.75
"""The largest of them, as a share of what all blocks together save; beyond it no network was recovered."""


def growing_sets(latency: LatencyTable, recoverability: Recoverabilities) -> tuple[Blocks, ...]:
    """Sets of least predicted error for growing reductions, by ascending saving; the empty one first."""
    candidates = candidates_of(latency, recoverability)
    if not candidates.names:
        return ((),)
    full = FURTHEST * predicted_percent(candidates.names, latency).low
    budgets = [Budget(drop=1), *(Budget(reduce_percent=full * step / STEPS) for step in range(1, STEPS + 1))]
    found = {blocks for budget in budgets for blocks in best_sets(candidates, budget, 1)}
    saved = {blocks: predicted_percent(blocks, latency).estimate for blocks in found}
    return ((), *sorted(found, key=lambda blocks: (saved[blocks], len(blocks), blocks)))


def with_front(points: Sequence[LeverPoint]) -> tuple[LeverPoint, ...]:
    """The points, those on the front marked as such."""
    return tuple(replace(point, on_front=not any(_dominates(other, point) for other in points)) for point in points)


def _dominates(first: LeverPoint, second: LeverPoint) -> bool:
    """Whether the first is as fast and as good, and better in one of the two."""
    ahead = (first.speedup.estimate - second.speedup.estimate, second.lost - first.lost)
    return min(ahead) >= 0 and max(ahead) > 0


def choose_point(
    points: Sequence[LeverPoint], *, max_drop: float | None, min_speedup: float | None, left: float = 1.0
) -> LeverPoint | None:
    """The point to build: of those that reach a required speed-up the one of least loss, else the fastest within the allowed loss.

    A required speed-up is reached at the lower bound with half an interval to spare, for the final measurement. left: the share of the loss that
    is expected after finetuning. None where no point qualifies, or where it would be the original as it is.
    """
    if min_speedup is not None:
        reaching = [point for point in points if _sure_speedup(point) >= min_speedup]
        return min(reaching, key=lambda point: (point.lost, -point.speedup.estimate), default=None)
    within = [point for point in points if max_drop is None or left * point.lost <= max_drop]
    best = max(within, key=lambda point: (point.speedup.estimate, -point.lost), default=None)
    return None if best is None or is_original(best) else best


def next_point(
    points: Sequence[LeverPoint], built: Sequence[BuiltPoint], max_drop: float, *, to_prove: bool
) -> LeverPoint | None:
    """The next point to build: the fastest of the slower ones that the last one lets expect to be within the allowed loss.

    to_prove: the interval must be within it too. None where the last one answers, where no slower point promises to, or after MOST_BUILT.
    """
    last = built[-1]
    answer = answer_of(last.loss, max_drop)
    if last.loss is None or answer is Answer.KEPT or len(built) == MOST_BUILT:
        return None
    if answer is Answer.NOT_PROVEN and not (to_prove and last.loss.above_chance):
        return None
    taken, final = point_of(points, last), last.loss.points
    slower = [point for point in points if point.speedup.estimate < taken.speedup.estimate and not is_original(point)]
    share = {point: _share(point, taken, points) for point in slower}
    beside = (final.high - final.estimate) if to_prove else 0.0
    expected = {point: max(0.0, final.estimate) * share[point] for point in slower}
    provable = [p for p in slower if expected[p] + beside * math.sqrt(share[p]) <= max_drop]
    within = [p for p in slower if expected[p] <= max_drop] if answer is Answer.BROKEN else []
    return max(provable or within, key=lambda point: point.speedup.estimate, default=None)


def _share(point: LeverPoint, taken: LeverPoint, points: Sequence[LeverPoint]) -> float:
    """The share of a built point's loss that a slower one is expected to have.

    Losses grow faster than the time that dropped blocks save, so that the share of that is a bound where too few images changed their
    answer to tell more.
    """
    saved = _saved_by_blocks(taken, points)
    by_time = min(1.0, max(0.0, _saved_by_blocks(point, points)) / saved) if saved > 0 else 1.0
    return min(by_time, max(0.0, point.lost) / taken.lost) if taken.lost > 0 else by_time


def _saved_by_blocks(point: LeverPoint, points: Sequence[LeverPoint]) -> float:
    """The share of the time, in the point's own precision, that its dropped blocks save."""
    whole = next((p for p in points if p.precision == point.precision and not p.dropped), None)
    return 0.0 if whole is None else 1 - whole.speedup.estimate / point.speedup.estimate


def point_of(points: Sequence[LeverPoint], built: BuiltPoint) -> LeverPoint:
    """The point that was built."""
    return next(p for p in points if (p.dropped, p.precision) == (built.dropped, built.precision))


def best_built(points: Sequence[LeverPoint], built: Sequence[BuiltPoint], max_drop: float | None) -> int:
    """Which of the built points is released: one that is within the allowed loss, else the fastest that may be, else the one that loses least."""
    if max_drop is None:
        return 0

    def worth(number: int) -> tuple[int, float]:
        loss = built[number].loss
        answer = answer_of(loss, max_drop)
        if answer is Answer.BROKEN and loss is not None:
            return 0, -loss.points.estimate
        return (1 if answer is Answer.NOT_PROVEN else 2), point_of(points, built[number]).speedup.estimate

    return max(range(len(built)), key=worth)


def _sure_speedup(point: LeverPoint) -> float:
    return point.speedup.low - (point.speedup.high - point.speedup.low) / 2


def no_point(points: Sequence[LeverPoint], *, max_drop: float | None, min_speedup: float | None) -> TargetOutOfReach:
    """The error where no point meets the demands, with the nearest."""
    if min_speedup is not None:
        fastest = max(points, key=_sure_speedup)
        return TargetOutOfReach(
            f"no set of blocks in any precision is {min_speedup:g} times as fast as the original in fp32: the fastest, {described(fastest)}",
            remedy=f"ask for at most --min-speedup {math.floor(100 * _sure_speedup(fastest)) / 100:g}",
        )
    others = [point for point in points if not is_original(point) and math.isfinite(point.lost)]
    nearest = min(others, key=lambda point: point.lost, default=None)
    return TargetOutOfReach(
        f"no set of blocks in any precision is faster than the original in fp32 within --max-drop {max_drop:g}"
        + (f": least is lost by {described(nearest)}" if nearest else ""),
        remedy="allow more with --max-drop, or give more images",
    )


def described(point: LeverPoint) -> str:
    """A point in words."""
    count = len(point.dropped)
    blocks = f"{count} {'block' if count == 1 else 'blocks'} fewer" if count else "all blocks"
    lost = f", loses {point.lost:.1f} points" if math.isfinite(point.lost) else ""
    return f"{blocks} in {point.precision}, is {point.speedup.estimate:.2f} times as fast{lost}"


def advice(points: Sequence[LeverPoint], taken: LeverPoint) -> str:
    """What to build where the taken point misses a demand: the fastest of the slower ones that drops fewer blocks or was estimated to lose less."""
    slower = [
        point
        for point in points
        if point.speedup.estimate < taken.speedup.estimate
        and (len(point.dropped) < len(taken.dropped) or point.lost < taken.lost)
        and not is_original(point)
    ]
    best = max(slower, key=lambda point: point.speedup.estimate, default=None)
    if best is None:
        return "no slower point was measured: allow more with --max-drop, or give more labelled images, which narrow the interval"
    asked = f"--precision {best.precision} --drop {len(best.dropped)}" if best.dropped else (
        f"--precision auto --max-drop none --min-speedup {math.floor(100 * _sure_speedup(best)) / 100:g}"
    )  # fmt: skip
    return f"the next slower point, {described(best)} by the estimate before finetuning: {asked}"


def is_original(point: LeverPoint) -> bool:
    """Whether no lever was pulled."""
    return not point.dropped and point.precision == Precision.FP32


def alone(points: Sequence[LeverPoint], max_drop: float | None) -> dict[str, LeverPoint | None]:
    """What each lever alone gives within the allowed loss: the fastest such point, or None."""
    kinds = {
        "dropped blocks alone": [p for p in points if p.dropped and p.precision == Precision.FP32],
        "precision alone": [p for p in points if not p.dropped and p.precision != Precision.FP32],
        "both": [p for p in points if p.dropped and p.precision != Precision.FP32],
    }
    return {
        kind: max(
            (p for p in held if max_drop is None or p.lost <= max_drop), key=lambda p: p.speedup.estimate, default=None
        )
        for kind, held in kinds.items()
    }
