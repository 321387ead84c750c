"""How far two networks agree, and what one lost against the other, by the task that both are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_backends.terms import Interval
from practise_deploy.outcome import Accuracy
from practise_deploy.planning.loss import loss_of as loss_of_classes
from practise_deploy.planning.loss import losses_of as losses_of_classes
from practise_deploy.planning.loss import mean_difference, mean_of_shares, percent
from practise_deploy.tasks.detection import has_boxes, matched
from practise_deploy.tasks.metric import scored
from practise_deploy.tasks.truth import best_constant
from practise_deploy.terms import Loss, Task, TaskKind

Answers = npt.NDArray[np.floating]
Labels = npt.NDArray[Any]
"""int64[n] of classes, or true answers."""
Floats = npt.NDArray[np.float64]
_BLANK = 0
"""The class that separates characters in CTC's outputs."""
_SCORED = (TaskKind.CLASSIFICATION, TaskKind.BINARY)


def shares_of(task: Task, original: Answers, other: Answers) -> Floats:
    """By image, how far two networks' answers agree, from 0 to 1. What is NaN in the original's is padding, and does not count.

    Shapes: answers [n, numbers] -> [n].
    """
    if task.kind is TaskKind.CUSTOM:
        return scored(task, original, other)
    return _SHARES[task.kind](original.astype(np.float64), other.astype(np.float64))


def agreement_of(task: Task, original: Answers, other: Answers) -> Interval:
    """The mean agreement in percent with its interval."""
    shares = shares_of(task, original, other)
    if task.kind in _SCORED:
        return percent(int(shares.sum()), len(shares))
    lost = mean_of_shares(1 - shares)
    return Interval(
        estimate=100 * (1 - lost.estimate),
        low=100 * (1 - lost.high),
        high=100 * (1 - lost.low),
        confidence=lost.confidence,
    )


def loss_of(task: Task, original: Answers, other: Answers, labels: Labels | None = None) -> Loss:
    """What is lost on images that the fit did not use.

    Of classifiers it is of accuracy (`planning.loss`). Of all others it is of how right the answers are, by labels; without any it is
    what does not agree: a network cannot have lost more of a share that is taken over images, pixels, characters or boxes.
    Shapes: answers [n, numbers], labels [n], or [n, numbers] (`tasks.truth`).
    """
    if task.kind in _SCORED:
        return replace(loss_of_classes(original, other, labels), sample=task.sample)
    agreement = agreement_of(task, original, other)
    return Loss(
        points=Interval(
            estimate=100 - agreement.estimate,
            low=100 - agreement.high,
            high=100 - agreement.low,
            confidence=agreement.confidence,
        )
        if labels is None
        else mean_difference(shares_of(task, labels, original) - shares_of(task, labels, other)),
        estimated=False,
        agreement_percent=agreement,
        images=len(original),
        above_chance=_knows_anything(task, original, labels),
        kind=task.kind,
        by_labels=labels is not None,
        sample=task.sample,
    )


def _knows_anything(task: Task, original: Answers, labels: Labels | None) -> bool:
    """Whether there is anything to lose: boxes, or, by labels, more right answers than one and the same answer to everything gives."""
    if labels is None:
        return task.kind is not TaskKind.DETECTION or has_boxes(original.astype(np.float64))
    constant = np.repeat(best_constant(task, labels), len(labels), 0)
    return mean_difference(shares_of(task, labels, original) - shares_of(task, labels, constant)).low > 0


def accuracy_of(task: Task, answers: Answers, labels: Labels) -> Accuracy:
    """How right answers are, by labels. Shapes: answers [n, numbers], labels [n], or [n, numbers] (`tasks.truth`)."""
    if task.kind not in _SCORED:
        return Accuracy(percent=agreement_of(task, labels, answers), correct=None, images=len(labels))
    correct = int((answers.argmax(1) == labels).sum())
    return Accuracy(percent=percent(correct, len(labels)), correct=correct, images=len(labels))


def losses_of(task: Task, original: Answers, others: Sequence[Answers], labels: Labels | None) -> list[Loss]:
    """What several networks lost on the same few images. Shapes: answers [n, numbers] each, labels as in `loss_of`."""
    if labels is None or task.kind not in _SCORED:
        return [loss_of(task, original, other, labels) for other in others]
    return [replace(loss, sample=task.sample) for loss in losses_of_classes(original, others, labels)]


def _same_class(original: Floats, other: Floats) -> Floats:
    finite = np.isfinite(original).all(1) & np.isfinite(other).all(1)
    return np.asarray((original.argmax(1) == other.argmax(1)) & finite, dtype=np.float64)


def _same_labels(original: Floats, other: Floats) -> Floats:
    return _mean((original > 0) == (other > 0), original)


def _same_numbers(original: Floats, other: Floats) -> Floats:
    return _mean(original == other, original)


def _mean(shares: npt.NDArray[np.generic], original: Floats) -> Floats:
    """The mean over what counts. Shapes: [n, numbers] each -> [n]."""
    counts = ~np.isnan(original)
    return np.asarray((shares * counts).sum(1) / np.maximum(counts.sum(1), 1), dtype=np.float64)


def _same_characters(original: Floats, other: Floats) -> Floats:
    """1 - the edit distance of the texts over the longer one's length."""
    counts = ~np.isnan(original)
    pairs = ((one[at], two[at]) for one, two, at in zip(original, other, counts, strict=True))
    return np.array([_likeness(*map(_text, pair)) for pair in pairs])


def _text(classes: Floats) -> tuple[int, ...]:
    """The classes that are left once repetitions are one and blanks are gone."""
    firsts = classes[np.insert(classes[1:] != classes[:-1], 0, True)] if len(classes) else classes
    return tuple(int(each) for each in firsts if each != _BLANK)


def _likeness(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    longer = max(len(first), len(second))
    return 1 - _edits(first, second) / longer if longer else 1.0


def _edits(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Levenshtein's distance, row by row."""
    if first == second:
        return 0
    row = list(range(len(second) + 1))
    for at, one in enumerate(first, 1):
        before, row[0] = row[0], at
        for column, two in enumerate(second, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (one != two))
    return row[-1]


def _explained(original: Floats, other: Floats) -> Floats:
    """1 - the squared difference over the variance of the original's values, which is taken number by number over the images.

    Where there are few numbers or images the variance is of all of them.
    """
    counts = ~np.isnan(original)
    known = np.ma.masked_array(original, ~counts)
    spread = known.var(0) if len(original) > 1 else np.ma.zeros(original.shape[1])
    # each number's variance over the images, by how many images it counts in
    variance = max(float(np.ma.average(spread, weights=counts.sum(0))), 1e-12)
    return np.clip(1 - _mean(np.square(np.where(counts, original - other, 0.0)), original) / variance, 0.0, 1.0)


def _cosine(original: Floats, other: Floats) -> Floats:
    original, other = np.nan_to_num(original), np.where(np.isnan(original), 0.0, other)
    norms = np.linalg.norm(original, axis=1) * np.linalg.norm(other, axis=1)
    return np.clip((original * other).sum(1) / np.maximum(norms, 1e-300), 0.0, 1.0)


def neighbours_kept(original: Answers, other: Answers, nearest: int = 5) -> float | None:
    """The share of every image's nearest others, by cosine, that are the same in both; None where there are too few images."""
    if len(original) <= 2 * nearest:
        return None
    found = []
    for answers in (np.nan_to_num(original), np.where(np.isnan(original), 0.0, other)):
        unit = answers / np.maximum(np.linalg.norm(answers, axis=1, keepdims=True), 1e-30)
        likeness = unit @ unit.T
        np.fill_diagonal(likeness, -np.inf)
        found.append(np.argsort(-likeness, axis=1, kind="stable")[:, :nearest])
    return float(np.mean([len({*a} & {*b}) / nearest for a, b in zip(*found, strict=True)]))


_SHARES: dict[TaskKind, Callable[[Floats, Floats], Floats]] = {
    TaskKind.CLASSIFICATION: _same_class,
    TaskKind.BINARY: _same_class,
    TaskKind.MULTI_LABEL: _same_labels,
    TaskKind.SEGMENTATION: _same_numbers,
    TaskKind.SEQUENCE: _same_numbers,
    TaskKind.CTC: _same_characters,
    TaskKind.REGRESSION: _explained,
    TaskKind.EMBEDDING: _cosine,
    TaskKind.DETECTION: matched,
}
