"""A user's own measure of agreement: a function of a Python file."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_deploy.errors import InputError, first_line
from practise_deploy.network.loading.sources import function_of_file
from practise_deploy.terms import Task

Floats = npt.NDArray[np.float64]
HOW = "let it take the original's outputs and the new network's, arrays whose first axis is the images, and return a number from 0 to 1 for each image"


def scored(task: Task, original: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """The user's metric by image.

    It is given the outputs of both networks: an array [n, ...], or a dictionary of them by name where there are several.
    Shapes: original, other [n, numbers], all outputs one after another -> [n].
    Raises: InputError where it fails, or gives anything but a number from 0 to 1 for each image.
    """
    metric = load_metric(task.metric)
    try:
        result = np.asarray(metric(_outputs(task, original), _outputs(task, other)), dtype=np.float64)
    except Exception as error:
        raise InputError(
            f"the metric {task.metric} failed: {type(error).__name__}: {first_line(error)}", remedy=HOW
        ) from error
    if result.shape != (len(original),) or not np.isfinite(result).all() or result.min() < 0 or result.max() > 1:
        span = f" between {result.min():g} and {result.max():g}" if result.size else ""
        raise InputError(
            f"the metric {task.metric} gave numbers of shape {result.shape}{span} for {len(original)} images",
            remedy=HOW,
        )
    return result


def load_metric(name: str) -> Callable[[Any, Any], Any]:
    """The function of FILE.py:FUNCTION.

    Raises: InputError where there is none, or it does not take two arguments.
    """
    path, _, function = name.rpartition(":")
    metric = function_of_file(Path(path), function)
    try:
        inspect.signature(metric).bind(None, None)
    except TypeError as error:
        raise InputError(f"the metric {name} cannot be called with two arguments: {error}", remedy=HOW) from None
    return metric


def _outputs(task: Task, flat: npt.NDArray[Any]) -> Any:
    sizes = [math.prod(shape) for shape in task.shapes]
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
    arrays = [part.reshape(-1, *shape) for part, shape in zip(parts, task.shapes, strict=True)]
    return arrays[0] if len(arrays) == 1 else dict(zip(task.names, arrays, strict=True))
