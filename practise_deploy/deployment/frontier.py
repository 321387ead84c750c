"""Latency against accuracy around the plan's set: what dropping fewer or more blocks would have given.

It uses held-out images, so nothing is chosen by it: the plan and the weights are final by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from practise_backends.interfaces import Progress
from practise_backends.terms import Comparison, Interval
from practise_deploy.deployment.verify import Runner, look_at
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.outcome import FrontierPoint, Verification
from practise_deploy.tasks.judging import accuracy_of
from practise_deploy.terms import CLASSES, Plan, Task

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
    teacher: Runner,
    neighbours: Sequence[Neighbour],
    chosen: tuple[str, ...],
    images: HeldOutImages,
    progress: Progress,
    task: Task = CLASSES,
) -> tuple[FrontierPoint, ...]:
    """Accuracy and agreement of every neighbour, on the same images."""
    names = [str(index) for index in range(len(neighbours))]
    runners = {"": teacher, **{name: neighbour.form for name, neighbour in zip(names, neighbours, strict=True)}}
    looked_at = look_at(runners, [("", name) for name in names], images, progress, task)
    truth = None if images.labels is None else images.labels.numpy()
    answers, links = looked_at.answers, looked_at.links
    return tuple(
        FrontierPoint(
            dropped=neighbour.dropped,
            recovery=neighbour.recovery,
            reduction_percent=neighbour.reduction_percent,
            accuracy=accuracy_of(task, answers[name], truth) if name in answers and truth is not None else None,
            agreement_percent=link.agreement_percent,
            loss=looked_at.loss("", name, truth),
            chosen=set(neighbour.dropped) == set(chosen),
        )
        for name, neighbour, link in zip(names, neighbours, links, strict=True)
    )


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
