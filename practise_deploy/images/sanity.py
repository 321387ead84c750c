"""What the original says of a few of the images, before anything is measured: do weights, pixels and labels belong together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from practise_deploy.errors import InputError
from practise_deploy.images.labels import BY_NUMBER, TEXT_ORDER
from practise_deploy.images.tiny_set import Images, TinySet
from practise_deploy.network.activations import batches
from practise_deploy.planning.loss import above_chance, paired_difference

_SHOWN, _BATCH = 64, 16
_LEAST = 8
"""Fewer images may well be of one class."""

Original = Callable[[Tensor], Tensor]
Some = TypeVar("Some", bound=Images)


def settled(tiny: TinySet, original: Original) -> TinySet:
    """The images with labels in the order of the original's outputs, as far as its answers tell, and with remarks on what looks wrong.

    Raises: InputError where the original puts out NaN or infinity.
    """
    notes = list(tiny.facts.notes)
    sources = (tiny.fit, tiny.held_out)[: len(tiny.text_orders)]
    orders = [_order(images, original, order, notes) for images, order in zip(sources, tiny.text_orders, strict=True)]
    return replace(
        tiny,
        fit=_relabelled(tiny.fit, orders[0]),
        held_out=_relabelled(tiny.held_out, orders[-1]),
        facts=replace(tiny.facts, notes=tuple(dict.fromkeys(notes))),
    )


def _order(images: Images, original: Original, text_order: Mapping[int, int], notes: list[str]) -> Mapping[int, int]:
    """Which other order their labels are to be put in; empty where they stay."""
    few = images.some(_SHOWN, seed=0)
    outputs = _outputs(few, original)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return {}
    answers = outputs.argmax(1)
    if (
        len(few) >= _LEAST
        and len(set(answers.tolist())) == 1
        and (few.labels is None or len(set(few.labels.tolist())) > 1)
    ):
        notes.append(
            f"the original gives one and the same answer, output {int(answers[0])}, for all of {len(few)} images: are its weights trained, "
            "and do --mean and --std belong to it?"
        )
    if few.labels is None:
        return {}
    order = _by_answers(answers, few.labels, text_order, notes)
    right = int((answers == _mapped(few.labels, order)).sum())
    if not above_chance(right, len(few), outputs.shape[1]):
        notes.append(
            f"the original is right on {right} of {len(few)} images, which cannot be told from chance: do the labels, its weights, --mean "
            "and --std belong together?"
        )
    return order


def _outputs(images: Images, original: Original) -> Tensor:
    """The original's outputs. Shapes: [images, ...]."""
    with torch.inference_mode():
        found = torch.cat([original(images.batch(part)) for part in batches(len(images), _BATCH)])
    if not torch.isfinite(found).all():
        raise InputError(
            f"the original puts out NaN or infinity for the images ({len(images)} were tried), though not for random pixels",
            remedy="give the --mean and --std that it was trained with, and images of the range that they are for",
        )
    return found


def _by_answers(answers: Tensor, labels: Tensor, text_order: Mapping[int, int], notes: list[str]) -> Mapping[int, int]:
    """Folders named by numbers: the numbers' order, or that of text where the original is surely right more often so."""
    if not text_order:
        return {}
    by_number, by_text = answers == labels, answers == _mapped(labels, text_order)
    only_number, only_text = int((by_number & ~by_text).sum()), int((by_text & ~by_number).sum())
    gained = paired_difference(only_text, only_number, len(labels))
    if gained.low <= 0 <= gained.high:
        return {}
    notes[:] = [note for note in notes if not note.startswith(BY_NUMBER)]
    counts = f"the original is right on {int(by_text.sum())} of {len(labels)} images so, on {int(by_number.sum())} by the numbers"
    if gained.low > 0:
        notes.append(f"folders that are named by numbers were taken {TEXT_ORDER}: {counts}")
    return text_order if gained.low > 0 else {}


def _relabelled(images: Some, order: Mapping[int, int]) -> Some:
    return images if images.labels is None or not order else replace(images, labels=_mapped(images.labels, order))


def _mapped(labels: Tensor, order: Mapping[int, int]) -> Tensor:
    """Shapes: labels [n]."""
    return torch.tensor([order.get(label, label) for label in labels.tolist()], dtype=torch.int64)
