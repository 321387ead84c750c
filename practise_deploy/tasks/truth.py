"""True answers: labels in the form that a network's answers have (`tasks.answers`), so that both can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from practise_deploy.errors import InputError
from practise_deploy.tasks.answers import thinned
from practise_deploy.terms import Task, TaskKind

Floats = npt.NDArray[np.float64]
_VOID = 255
"""The number of pixels without a class (Pascal VOC, Cityscapes)."""


def takes_labels(task: Task) -> bool:
    """Whether labels beside classes can say how right a network is. Boxes, embeddings, texts and the user's metric have none here."""
    return task.kind in _TRUTHS


def truth_of(task: Task, labels: npt.NDArray[np.generic]) -> Floats:
    """The true answers; NaN where nothing is known.

    Shapes: labels [n, ...] as the output that is judged, of segmentation and sequences without the axis of classes -> [n, numbers].
    Raises: InputError for labels of another shape, or of numbers that mean nothing.
    """
    expected = _shape_of(task)
    if labels.shape[1:] != expected and not labels.size == len(labels) * math.prod(expected) == len(labels):
        raise InputError(
            f"{labels.dtype}{list(labels.shape)}; as {task.kind.value} the network answers {['n', *expected]}".replace(
                "'", ""
            ),
            remedy="write labels of that shape, or leave them out",
        )
    values = labels.astype(np.float64).reshape(len(labels), -1)
    return thinned(_TRUTHS[task.kind](task, values))


def best_constant(task: Task, truth: Floats) -> Floats:
    """The answer that is right most often if it is given to every sample: what a network must surpass that knows anything.

    Shapes: truth [n, numbers] -> [1, numbers].
    """
    counts = ~np.isnan(truth)
    if task.kind in (TaskKind.SEGMENTATION, TaskKind.SEQUENCE):
        values, frequencies = np.unique(truth[counts], return_counts=True)
        return np.full((1, truth.shape[1]), values[frequencies.argmax()] if len(values) else 0.0)
    return np.asarray(np.where(counts, truth, 0.0).sum(0, keepdims=True) / np.maximum(counts.sum(0), 1))


def _shape_of(task: Task) -> tuple[int, ...]:
    shape = task.shapes[task.output]
    if task.kind is TaskKind.SEGMENTATION:
        return shape[1:]
    return shape[:-1] if task.kind is TaskKind.SEQUENCE else shape


def _labels(task: Task, values: Floats) -> Floats:
    """1 and 0 as logits are, above and below 0; what is negative is unknown."""
    known = values[values >= 0]
    if not np.isin(known, (0, 1)).all():
        raise InputError(
            f"numbers from {known.min():g} to {known.max():g}; a label holds or does not",
            remedy="write 1 where a label holds, 0 where not, -1 where it is unknown",
        )
    return np.where(values >= 0, values - 0.5, np.nan)


def _classes(task: Task, values: Floats) -> Floats:
    """Numbers of classes; what is negative has none, of pixels 255 too."""
    classes = task.shapes[task.output][0 if task.kind is TaskKind.SEGMENTATION else -1]
    classes = max(classes, 2)  # a single map says whether a pixel is of it
    void = (values < 0) | ((values == _VOID) & (task.kind is TaskKind.SEGMENTATION))
    if not (np.isin(values, np.arange(classes)) | void).all():
        raise InputError(
            f"numbers from {values.min():g} to {values.max():g}; the network has {classes} classes",
            remedy=f"write whole numbers from 0 to {classes - 1}, and -1 where there is no class",
        )
    return np.where(void, np.nan, values)


def _values(task: Task, values: Floats) -> Floats:
    """As they are; NaN is unknown."""
    if np.isinf(values).any():
        raise InputError(
            f"{np.isinf(values).sum()} of the values are infinity", remedy="write NaN where a value is unknown"
        )
    return values


_TRUTHS: dict[TaskKind, Callable[[Task, Floats], Floats]] = {
    TaskKind.MULTI_LABEL: _labels,
    TaskKind.SEGMENTATION: _classes,
    TaskKind.SEQUENCE: _classes,
    TaskKind.REGRESSION: _values,
}
