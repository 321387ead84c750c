"""Latency against accuracy around the plan's set: what dropping fewer or more blocks would have given.

It uses held-out images, so nothing is chosen by it: the plan and the weights are final by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from practise_backends.interfaces import Progress
from practise_backends.terms import Comparison, Interval
from practise_deploy.deployment.verify import Outputs, Runner, accuracy, is_classifier, outputs_of
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.outcome import Accuracy, FrontierPoint, Verification
from practise_deploy.planning.loss import loss_of, percent
from practise_deploy.terms import Plan

NEAR = 2
MOST_JUDGED = 400


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A set of dropped blocks: how the network was recovered, what it saves, and its runner."""

    dropped: tuple[str, ...]
    recovery: str
    reduction_percent: Interval
    form: Runner


def neighbours_of(plan: Plan, needed: int | None = None) -> list[tuple[str, ...]]:
    """Sets along the ranking of recipe paper: the plan's, up to two blocks fewer and more, and half of the plan's.

    needed: a number of blocks that a required speed-up calls for, included too.
    """
    ranked, chosen = tuple(plan.scores), len(plan.dropped)
    counts = {*range(chosen - NEAR, chosen + NEAR + 1), chosen // 2, needed or chosen}
    return [ranked[:count] for count in sorted(counts) if 1 <= count <= len(ranked)]


def evaluation_sample(images: HeldOutImages, seed: int) -> HeldOutImages:
    """A random sample of at most 400 held-out images."""
    return images.subsample(MOST_JUDGED, seed)


def judge_neighbours(
    teacher: Runner, neighbours: Sequence[Neighbour], chosen: tuple[str, ...], images: HeldOutImages, progress: Progress
) -> tuple[FrontierPoint, ...]:
    """Accuracy and agreement of every neighbour, on the same images."""
    runners: Mapping[str, Runner] = {
        "": teacher,
        **{str(index): neighbour.form for index, neighbour in enumerate(neighbours)},
    }
    outputs = outputs_of(runners, images, progress)
    before = outputs.pop("")
    classifies = is_classifier(before)
    truth = images.labels.numpy() if classifies and images.labels is not None else None
    points = []
    for neighbour, after in zip(neighbours, outputs.values(), strict=True):
        top1: Accuracy | None = None if truth is None else accuracy(after, truth)
        agree = int((_top(before) == _top(after)).sum())
        points.append(
            FrontierPoint(
                dropped=neighbour.dropped,
                recovery=neighbour.recovery,
                reduction_percent=neighbour.reduction_percent,
                accuracy=top1,
                agreement_percent=percent(agree, len(after)) if classifies else None,
                loss=loss_of(before, after, truth) if classifies else None,
                chosen=set(neighbour.dropped) == set(chosen),
            )
        )
    return tuple(points)


def released_point(plan: Plan, bench: Comparison, verification: Verification) -> FrontierPoint:
    """The release itself, as verified and measured."""
    ratio = bench.speedup
    ends = [100 * (1 - 1 / end) for end in (ratio.estimate, ratio.low, ratio.high)]
    return FrontierPoint(
        dropped=plan.dropped,
        recovery="finetuned",
        reduction_percent=Interval(estimate=ends[0], low=ends[1], high=ends[2], confidence=ratio.confidence),
        accuracy=next(reversed(verification.accuracy.values()), None),
        agreement_percent=verification.links[-1].agreement_percent,
        loss=verification.loss,
        chosen=True,
    )


def _top(outputs: Outputs) -> Outputs:
    return np.asarray(outputs.reshape(len(outputs), -1).argmax(1))
