"""The gate: requirements on speed and accuracy, judged by the intervals, failing closed. Pure arithmetic.

Each requirement has three answers. A speed-up is kept if the lower bound of its interval reaches the requirement, broken if the upper
bound does not, and otherwise not proven: the device is too noisy. A loss of accuracy is kept if the upper bound of its interval is within
the requirement, broken if the estimate is not, and otherwise not proven: there are too few held-out images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from practise_backends.choices import Precision
from practise_backends.terms import Comparison, Interval
from practise_deploy.outcome import Answer, Criterion, Frontier, FrontierPoint, GateResult, Verification
from practise_deploy.planning.loss import images_to_settle
from practise_deploy.planning.measures import nothing_to_lose, points_of
from practise_deploy.planning.remeasuring import UNDECIDED, counted, speed_answer, speedup_for
from practise_deploy.terms import Loss, Plan

_RECOVERY_TEXT = {
    "none": " before any recovery",
    "closed form": " recovered in closed form, before finetuning",
    "finetuned": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The requirements: a speed-up as a ratio, a loss of accuracy in points; None if not required. precision: of the release.

    by_default: the loss is the default, not requested.
    """

    min_speedup: float | None
    max_drop: float | None
    by_default: bool = False
    precision: Precision = Precision.FP32

    @property
    def any(self) -> bool:
        """Whether there is a gate at all."""
        return self.min_speedup is not None or self.max_drop is not None


def evaluate_gate(
    demands: Criteria, plan: Plan, bench: Comparison | None, verification: Verification, frontier: Frontier
) -> GateResult | None:
    """Which requirements hold, and the nearest set of blocks that meets them all if some do not."""
    if not demands.any:
        return None
    constraints = (*_speed(demands, plan, bench), *_quality(demands, verification.loss))
    passed = not any(constraint.fails for constraint in constraints)
    decidable = demands.min_speedup is None or plan.measured_percent is not None
    nearest = _nearest(demands, plan, frontier) if decidable and not passed else None
    return GateResult(
        constraints=constraints,
        nearest=nearest,
        advice="" if passed else _advice(demands, nearest, plan, frontier) if decidable else _elsewhere(plan),
    )


def speedup_of(reduction_percent: Interval) -> Interval:
    """A reduction of latency as a ratio."""
    ends = (reduction_percent.estimate, reduction_percent.low, reduction_percent.high)
    estimate, low, high = map(speedup_for, ends)
    return Interval(estimate=estimate, low=low, high=high, confidence=reduction_percent.confidence)


def _speed(demands: Criteria, plan: Plan, bench: Comparison | None) -> tuple[Criterion, ...]:
    min_speedup = demands.min_speedup
    if min_speedup is None:
        return ()
    if plan.measured_percent is None or bench is None:
        reason = (
            f"the speed-up was not measured on {plan.device}, which the table is of; "
            f"measure there: practise-measure compare original.onnx model.onnx --precision {demands.precision}, "
            "with the --backend of this build"
        )
        return (
            Criterion(name="min_speedup", required=min_speedup, measured=None, answer=Answer.NOT_PROVEN, reason=reason),
        )
    speedup = counted(plan, bench)
    answer = speed_answer(speedup, min_speedup)
    reason = f"measured {speedup.estimate:.3f}, lower bound {speedup.low:.3f}, required {min_speedup:g}"
    reason += f"; {UNDECIDED}" if answer is Answer.NOT_PROVEN else ""
    return (Criterion(name="min_speedup", required=min_speedup, measured=speedup, answer=answer, reason=reason),)


def _quality(demands: Criteria, loss: Loss | None) -> tuple[Criterion, ...]:
    max_drop = demands.max_drop
    if max_drop is None:
        return ()
    answer = answer_of(loss, max_drop)
    return (
        Criterion(
            name="max_drop",
            required=max_drop,
            measured=loss.points if loss else None,
            answer=answer,
            reason=_loss_reason(loss, answer, max_drop),
            by_default=demands.by_default,
            estimated=loss is not None and loss.estimated,
            of_accuracy=loss is None or loss.of_accuracy,
        ),
    )


def answer_of(loss: Loss | None, demand_points: float) -> Answer:
    """Whether a loss is within the allowed one."""
    if loss is None:
        return Answer.NOT_PROVEN
    if loss.points.high <= demand_points:
        return Answer.KEPT if loss.above_chance else Answer.NOT_PROVEN
    return Answer.BROKEN if loss.points.estimate > demand_points else Answer.NOT_PROVEN


def lost_points(points: Interval, *, of_accuracy: bool = True) -> str:
    """A loss and its interval as text; a negative loss is a gain."""
    low, estimate, high = (round(end, 1) + 0.0 for end in (points.low, points.estimate, points.high))  # never -0.0
    if estimate < 0:
        return f"{-estimate:.1f} {points_of(of_accuracy=of_accuracy)} gained [{-high + 0.0:.1f}, {-low + 0.0:.1f}]"
    return f"{estimate:.1f} {points_of(of_accuracy=of_accuracy)} lost [{low:.1f}, {high:.1f}]"


def _loss_reason(loss: Loss | None, answer: Answer, max_drop: float) -> str:
    if loss is None:
        return "the output is not what the task is about, so no loss can be measured (see --task)"
    points = loss.points
    how = " (estimated without labels)" if loss.estimated else ""
    lost = f"{lost_points(points, of_accuracy=loss.of_accuracy)}{how}, at most {max_drop:g} allowed"
    if answer is not Answer.NOT_PROVEN:
        return lost
    if not loss.above_chance:
        return f"{nothing_to_lose(loss.kind)} on {loss.images:,} held-out {loss.sample}s, so no loss can be measured"
    needed = images_to_settle(loss, max_drop)
    enough = f"; about {needed:,} such {loss.sample}s would settle it" if needed else ""
    return f"{lost}, on {loss.images:,} held-out {loss.sample}s{enough}"


def _passes(point: FrontierPoint, demands: Criteria) -> bool:
    fast = demands.min_speedup is None or speedup_of(point.reduction_percent).low >= demands.min_speedup
    answer = Answer.KEPT if demands.max_drop is None else answer_of(point.loss, demands.max_drop)
    return fast and (answer is Answer.KEPT or (answer is Answer.NOT_PROVEN and demands.by_default))


def _nearest(demands: Criteria, plan: Plan, frontier: Frontier) -> FrontierPoint | None:
    """The passing set whose size is nearest to the plan's; of two as near, the smaller."""
    passing = [point for point in frontier.points if point.dropped and _passes(point, demands)]
    count = len(plan.dropped)
    return min(passing, key=lambda point: (abs(len(point.dropped) - count), len(point.dropped)), default=None)


def _elsewhere(plan: Plan) -> str:
    return f"which set passes is unknown here: every speed-up was measured on another device than {plan.device}"


def _advice(demands: Criteria, nearest: FrontierPoint | None, plan: Plan, frontier: Frontier) -> str:
    evaluated = sorted({len(point.dropped) for point in frontier.points if point.dropped})
    if nearest is None and not evaluated:
        return "no neighbouring set was looked at: ask for less, give more images, or more labelled ones"
    if nearest is None:
        counts = ", ".join(str(count) for count in evaluated) or "no"
        return (
            f"no set that was looked at passes ({counts} blocks dropped): ask for less, give more images, "
            "or give more labelled images, which narrow the interval"
        )
    speedup = speedup_of(nearest.reduction_percent)
    lost = "" if nearest.loss is None else (
        f", {nearest.loss.points.estimate:.2f} {points_of(of_accuracy=nearest.loss.of_accuracy)} lost, at most {nearest.loss.points.high:.2f}"
    )  # fmt: skip
    how = _RECOVERY_TEXT[nearest.recovery]
    how += "" if demands.precision == Precision.FP32 else f" (judged in fp32, the release in {demands.precision})"
    same = " (the same blocks)" if set(nearest.dropped) == set(plan.dropped) else ""
    return (
        f"the nearest set that passes drops {len(nearest.dropped)}{same}: {', '.join(nearest.dropped)}; "
        f"{speedup.estimate:.3f} times as fast, lower bound {speedup.low:.3f}{lost}{how}; {_command(demands, nearest, plan)}"
    )


def _command(demands: Criteria, nearest: FrontierPoint, plan: Plan) -> str:
    """The option that leads to the set: a number of blocks, or the reduction that it meets with half an interval to spare.

    A search for a reduction ends with a set as good, not necessarily this one.
    """
    saved = nearest.reduction_percent
    needed = 100 * (1 - 1 / demands.min_speedup) if demands.min_speedup else 0.0
    reduction = max(math.floor(10 * (saved.low - (saved.high - saved.low) / 2)), math.ceil(10 * needed)) / 10
    if plan.set_frequency is None or plan.budget.drop is not None or reduction <= 0:
        return f"build it with --drop {len(nearest.dropped)}"
    return f"build one like it with --reduce {reduction:g}"
