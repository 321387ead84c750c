"""A check of the original's outputs on some images before anything is measured: do weights, pixels and labels belong together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from practise_backends.errors import lacks_memory
from practise_backends.interfaces import Progress
from practise_deploy.errors import InputError, first_line
from practise_deploy.images.labels import NUMERIC_ORDER_NOTE, TEXT_ORDER
from practise_deploy.images.tiny_set import Images, TinySet
from practise_deploy.network.graph.activations import batches
from practise_deploy.network.graph.packing import parts
from practise_deploy.planning.loss import above_chance, paired_difference
from practise_deploy.tasks.answers import answers_of
from practise_deploy.terms import CLASSES, Task

_MAX_IMAGES, _BATCH = 64, 16
_ENOUGH_CORRECT = 8
"""Fewer right answers may well be luck, among many images."""
_MIN_IMAGES = 8
"""Fewer images may well be of one class."""

Original = Callable[[Tensor], Tensor | tuple[Tensor, ...]]
ImagesT = TypeVar("ImagesT", bound=Images)


def with_checked_labels(tiny: TinySet, original: Original, task: Task = CLASSES) -> TinySet:
    """The images with labels in the order of the original's outputs, as its answers suggest, and with notes on what looks wrong.

    Raises: InputError where the original does not run on the samples, or puts out NaN or infinity.
    """
    for images in (tiny.fit, tiny.held_out):
        _check_extremes(images, original)
    notes = list(tiny.summary.notes)
    sources = (tiny.fit, tiny.held_out)[: len(tiny.text_orders)]
    orders = [
        _order(images, original, order, notes, task) for images, order in zip(sources, tiny.text_orders, strict=True)
    ]
    return replace(
        tiny,
        fit=_relabelled(tiny.fit, orders[0]),
        held_out=_relabelled(tiny.held_out, orders[-1]),
        summary=replace(tiny.summary, notes=tuple(dict.fromkeys(notes))),
    )


def check_judgeable(
    images: Images, original: Original, points: float, progress: Progress, task: Task = CLASSES
) -> None:
    """Refuse a demand on the accuracy that these labels can never prove: by them the original itself is no better than chance.

    Images are looked at until enough answers are right.
    Raises: InputError.
    """
    if images.labels is None:
        return
    correct = 0
    for part in batches(len(images), _BATCH):
        scores = _scores(images.subset(torch.arange(part.start, part.stop)), original, task)
        if scores is None:
            return
        correct += int((scores.argmax(1) == images.labels[part]).sum())
        is_enough = correct >= _ENOUGH_CORRECT or part.stop == len(images)
        if is_enough and above_chance(correct, part.stop, scores.shape[1]):
            return
        progress.advance(part.stop, len(images))
    raise InputError(
        f"--max-drop {points:g} cannot be judged: the original itself is right on {correct} of {len(images):,} held-out images, "
        "which is indistinguishable from chance",
        remedy="check that the labels are in the order of the network's outputs (--classes), and --weights, --mean and --std; "
        "give more labelled images where these are few; --max-drop none waives the demand",
    )


def _order(
    images: Images, original: Original, text_order: Mapping[int, int], notes: list[str], task: Task
) -> Mapping[int, int]:
    """The mapping by which the images' labels are to be reordered; empty where they stay."""
    sample = images.subsample(_MAX_IMAGES, seed=0)
    scores = _scores(sample, original, task)
    if scores is None:
        return {}
    answers = scores.argmax(1)
    if (
        len(sample) >= _MIN_IMAGES
        and len(set(answers.tolist())) == 1
        and (sample.labels is None or len(set(sample.labels.tolist())) > 1)
    ):
        notes.append(
            f"the original gives one and the same answer, output {int(answers[0])}, for all of {len(sample)} images: are its weights trained, "
            "and do --mean and --std belong to it?"
        )
    if sample.labels is None:
        return {}
    order = _order_by_answers(answers, sample.labels, text_order, notes)
    correct = int((answers == _reorder(sample.labels, order)).sum())
    if not above_chance(correct, len(sample), scores.shape[1]):
        notes.append(
            f"the original is right on {correct} of {len(sample)} images, which is indistinguishable from chance: do the labels, its weights, --mean "
            "and --std belong together?"
        )
    return order


def _scores(images: Images, original: Original, task: Task) -> Tensor | None:
    """The original's scores of classes; None where the task has none. Shapes: [images, classes].

    Raises: InputError where any output is NaN or infinity.
    """
    answered = []
    with torch.inference_mode():
        for part in batches(len(images), _BATCH):
            result = original(images.batch(part))
            outputs = result if isinstance(result, tuple) else (result,)
            _check_finite(outputs, len(images))
            answered.append(answers_of(task, outputs) if task.has_accuracy else None)
    scores = [each for each in answered if each is not None]
    return torch.cat(scores) if scores else None


def _check_extremes(images: Images, original: Original) -> None:
    """Run the original on the samples with the largest and the smallest of its whole numbers: what takes these takes all between.

    Raises: InputError: token numbers that it does not know, for example.
    """
    inputs, rows = images.preprocessing.inputs, images.pixels.flatten(1)
    places = zip(inputs, parts(inputs), strict=True)
    whole = {spec.name: rows[:, part] for spec, part in places if spec.dtype != "float32"}
    if not whole or not len(images):
        return
    extremes = [place for each in whole.values() for place in (each.amax(1).argmax(), each.amin(1).argmin())]
    try:
        with torch.inference_mode():
            original(images.batch(torch.stack(extremes)))
    except (IndexError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        ranges = ", ".join(f"{name} {int(each.min())} to {int(each.max())}" for name, each in whole.items())
        raise InputError(
            f"the network does not run on the samples ({ranges}): {first_line(error)}",
            remedy="give numbers that it takes: token numbers from 0, below the size of its vocabulary",
        ) from None


def _check_finite(outputs: tuple[Tensor, ...], images: int) -> None:
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise InputError(
            f"the original puts out NaN or infinity for the images ({images} were tried), though not for random pixels",
            remedy="give the --mean and --std that it was trained with, and images of the range that they are for",
        )


def _order_by_answers(
    answers: Tensor, labels: Tensor, text_order: Mapping[int, int], notes: list[str]
) -> Mapping[int, int]:
    """For folders named by numbers: text order where the original is significantly more accurate with it, else empty."""
    if not text_order:
        return {}
    by_number, by_text = answers == labels, answers == _reorder(labels, text_order)
    only_number, only_text = int((by_number & ~by_text).sum()), int((by_text & ~by_number).sum())
    difference = paired_difference(only_text, only_number, len(labels))
    if difference.low <= 0 <= difference.high:
        return {}
    notes[:] = [note for note in notes if not note.startswith(NUMERIC_ORDER_NOTE)]
    counts = f"the original is right on {int(by_text.sum())} of {len(labels)} images so, on {int(by_number.sum())} by the numbers"
    if difference.low > 0:
        notes.append(f"folders that are named by numbers were taken {TEXT_ORDER}: {counts}")
    return text_order if difference.low > 0 else {}


def _relabelled(images: ImagesT, order: Mapping[int, int]) -> ImagesT:
    return images if images.labels is None or not order else replace(images, labels=_reorder(images.labels, order))


def _reorder(labels: Tensor, order: Mapping[int, int]) -> Tensor:
    """Shapes: labels [n]."""
    return torch.tensor([order.get(label, label) for label in labels.tolist()], dtype=torch.int64)
