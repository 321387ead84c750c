"""A network's answers: what of its outputs the task is about, a row of numbers for each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from practise_deploy.tasks.detection import boxes_of
from practise_deploy.terms import Scores, Task, TaskKind

ArrayT = TypeVar("ArrayT", Tensor, np.ndarray)
_MOST_NUMBERS = 1 << 16
"""Of an image; larger outputs are looked at in places, evenly spread."""
_SMALLEST = 1e-12


def answers_of(task: Task, outputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor | None:
    """The answers; None where the output is not what the task is about. mask: which positions count; those that do not have NaN.

    Shapes: outputs [n, ...], mask [n, positions] -> [n, numbers]. Logits of classes (two for binary) or labels; numbers of classes by
    position; values; for boxes see `detection.boxes_of`; for a metric all outputs, one after another.
    """
    if task.kind in _ALL_OUTPUTS:
        return _ALL_OUTPUTS[task.kind](outputs)
    output = outputs[task.output].float()
    answers = _ANSWERS[task.kind](output, task.scores)
    if answers is None or mask is None or output.ndim != 3 or output.shape[:2] != mask.shape:
        return answers
    padding = mask <= 0
    if answers.shape != mask.shape:
        padding = thinned(padding.unsqueeze(2).expand(output.shape).flatten(1))
    return answers.masked_fill(padding, math.nan)


def _classes(output: Tensor, scores: Scores) -> Tensor | None:
    """Logits of every class."""
    flat = output.flatten(1) if output.ndim > 2 and math.prod(output.shape[2:]) == 1 else output
    if flat.ndim != 2 or flat.shape[1] < 2:
        return None
    return flat.clamp_min(_SMALLEST).log() if scores is Scores.PROBABILITIES else flat


def _binary(output: Tensor, scores: Scores) -> Tensor | None:
    """Logits of no and yes, half of the one logit against the other half."""
    flat = output.reshape(len(output), -1)
    if flat.shape[1] != 1:
        return None
    half = _logits(flat, scores) / 2
    return torch.cat([-half, half], 1)


def _labels(output: Tensor, scores: Scores) -> Tensor:
    """A logit for every label."""
    return thinned(_logits(output, scores).reshape(len(output), -1))


def _logits(output: Tensor, scores: Scores) -> Tensor:
    if scores is Scores.LOGITS:
        return output
    return torch.logit(output.clamp(0, 1), eps=1e-7)


def _pixels(output: Tensor, scores: Scores) -> Tensor | None:
    """The number of every pixel's class; of a single map whether it is one. Shapes: [n, classes, height, width] -> [n, pixels]."""
    if output.ndim != 4:
        return None
    if output.shape[1] > 1:
        return thinned(output.argmax(1).flatten(1).float())
    return thinned((output > (0.5 if scores is Scores.PROBABILITIES else 0.0)).flatten(1).float())


def _positions(output: Tensor, scores: Scores) -> Tensor | None:
    """The number of every position's class. Shapes: [n, positions, classes] -> [n, positions]."""
    return output.argmax(2).float() if output.ndim == 3 else None


def _values(output: Tensor, scores: Scores) -> Tensor:
    return thinned(output.reshape(len(output), -1))


def _everything(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([output.float().reshape(len(output), -1) for output in outputs], 1)


def thinned(flat: ArrayT) -> ArrayT:
    """At most `_MOST_NUMBERS` of an image, evenly spread by a step that no width divides. Shapes: [n, numbers]."""
    step = -(-flat.shape[1] // _MOST_NUMBERS)
    return flat[:, :: step + (step > 1 and step % 2 == 0)]


_ANSWERS: dict[TaskKind, Callable[[Tensor, Scores], Tensor | None]] = {
    TaskKind.CLASSIFICATION: _classes,
    TaskKind.BINARY: _binary,
    TaskKind.MULTI_LABEL: _labels,
    TaskKind.SEGMENTATION: _pixels,
    TaskKind.SEQUENCE: _positions,
    TaskKind.CTC: _positions,
    TaskKind.REGRESSION: _values,
    TaskKind.EMBEDDING: _values,
}
_ALL_OUTPUTS: dict[TaskKind, Callable[[Sequence[Tensor]], Tensor | None]] = {
    TaskKind.DETECTION: boxes_of,
    TaskKind.CUSTOM: _everything,
}
