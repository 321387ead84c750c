"""Random tensors for an engine's inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from practise_backends.errors import MeasureError
from practise_backends.interfaces import MeasurementSetup
from practise_backends.machine.memory import available_memory
from practise_backends.terms import Tensors, TensorSpec

Shapes = Mapping[str, tuple[int, ...]]
Array = npt.NDArray[np.generic]

_MOST_NUMBERS = 2**31  # of one input: above it, runtimes that count in 32 bits fail in ways of their own
_MOST_DIMENSIONS = 32  # what every version of numpy takes
_DRAWN_BYTES = 8  # of a number as it is drawn, whatever it is kept in


def random_feeds(
    inputs: Sequence[TensorSpec], batch: int = 1, seed: int = 0, shapes: Shapes | None = None
) -> dict[str, Array]:
    """One random tensor an input: floats are standard normal, uint8 is 0 to 255, other integers are 0 or 1.

    Shapes: a dynamic first dimension becomes `batch`; `shapes` names the other dynamic dimensions.
    Raises: MeasureError where a shape cannot be settled or does not fit the memory, or no input can hold the batch.
    """
    settled = {spec.name: _settle(spec, batch, (shapes or {}).get(spec.name)) for spec in inputs}
    _check_names(inputs, shapes or {})
    if settled and all(not shape or shape[0] != batch for shape in settled.values()):
        raise MeasureError(
            f"no input of the network takes a batch of {batch}: {settled}",
            remedy="ask for the batch that the network was exported with, or export it with a dynamic batch",
        )
    _check_sizes(settled)
    rng = np.random.default_rng(seed)
    return {spec.name: _random(spec, settled[spec.name], rng) for spec in inputs}


def shared_feeds(engines: Mapping[str, Sequence[TensorSpec]], setup: MeasurementSetup) -> dict[str, Array]:
    """One set of random tensors for several networks; each takes those that it names (`select_feeds`).

    engines: the inputs of every network, by its name. Floats of several widths are kept in the widest.
    Raises: MeasureError where two networks want different tensors under one name, or a shape is for nobody.
    """
    feeds: dict[str, Array] = {}
    for name, inputs in engines.items():
        shapes = {spec.name: setup.shapes[spec.name] for spec in inputs if spec.name in setup.shapes}
        tensors = random_feeds(inputs, setup.conditions.batch, setup.conditions.seed, shapes)
        for key, array in tensors.items():
            if key in feeds and not _alike(feeds[key], array):
                raise MeasureError(
                    f"input '{key}' is {array.dtype} {array.shape} in '{name}', but {feeds[key].dtype} "
                    f"{feeds[key].shape} in an earlier network",
                    remedy="compare networks of the same input",
                )
            if key not in feeds or array.itemsize > feeds[key].itemsize:
                feeds[key] = array
    unknown = sorted(set(setup.shapes) - set(feeds))
    if unknown:
        raise MeasureError(
            f"no network has an input '{unknown[0]}'", remedy=f"the inputs are {sorted(feeds)}"
        )
    return feeds


def select_feeds(inputs: Sequence[TensorSpec], feeds: Tensors, name: str = "network") -> dict[str, Array]:
    """What a network of that name takes of shared feeds: the inputs that it names, floats in the width that it asks for.

    Raises: MeasureError where one is missing.
    """
    missing = [spec.name for spec in inputs if spec.name not in feeds]
    if missing:
        raise MeasureError(
            f"'{name}' has an input '{missing[0]}' that is not fed",
            remedy=f"feed it; fed now: {sorted(feeds)}",
        )
    return {spec.name: _in_width(feeds[spec.name], spec.dtype) for spec in inputs}


def _alike(first: Array, second: Array) -> bool:
    """Whether two tensors are one, but for the width of floats."""
    both_float = {first.dtype.kind, second.dtype.kind} == {"f"}
    return first.shape == second.shape and (both_float or first.dtype == second.dtype)


def _in_width(array: Array, dtype: str) -> Array:
    target = np.dtype(dtype)
    return array.astype(target, copy=False) if array.dtype.kind == target.kind == "f" else array


def _settle(spec: TensorSpec, batch: int, requested: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape to feed: the fixed dimensions as they are, the dynamic ones as asked."""
    shape = requested or tuple(batch if at == 0 and dim == -1 else dim for at, dim in enumerate(spec.shape))
    fits = len(shape) == len(spec.shape) and all(
        dim in (-1, size) for dim, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise MeasureError(
            f"shape {shape} does not fit input '{spec.name}' of shape {spec.shape}",
            remedy="change only dynamic dimensions (-1), or export the network with that shape",
        )
    if any(dim < 1 for dim in shape):
        example = "x".join(str(dim) if dim > 0 else "224" for dim in shape)
        raise MeasureError(
            f"input '{spec.name}' has dynamic dimensions: {spec.shape}",
            remedy=f"name its shape, for instance --shape {spec.name}={example}",
        )
    return shape


def _check_sizes(settled: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse shapes that no memory holds, before any is asked for."""
    for name, shape in settled.items():
        if len(shape) > _MOST_DIMENSIONS:
            _refuse(f"input '{name}' has {len(shape)} dimensions, more than {_MOST_DIMENSIONS}")
        if math.prod(shape) > _MOST_NUMBERS:
            _refuse(f"input '{name}' of shape {shape} holds more than {_MOST_NUMBERS} numbers")
    needed, free = _DRAWN_BYTES * sum(map(math.prod, settled.values())), available_memory()
    if free is not None and needed > free:
        _refuse(
            f"drawing the inputs takes {needed / 2**20:.0f} MiB of memory, of which {free / 2**20:.0f} MiB are free"
        )


def _refuse(what: str) -> NoReturn:
    raise MeasureError(
        what, remedy="use a smaller --batch or --shape, or export the network with smaller inputs"
    )


def _check_names(inputs: Sequence[TensorSpec], shapes: Shapes) -> None:
    """Refuse a shape for an input that does not exist."""
    names = [spec.name for spec in inputs]
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise MeasureError(f"the network has no input '{unknown[0]}'", remedy=f"its inputs are {names}")


def _random(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One random tensor."""
    if spec.dtype in ("float16", "float32", "float64"):
        return rng.standard_normal(shape).astype(spec.dtype)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if spec.dtype == "bool" or spec.dtype.lstrip("u").startswith("int"):
        return rng.integers(0, 2, shape).astype(spec.dtype)
    raise MeasureError(
        f"input '{spec.name}' is of type {spec.dtype}, for which no random values are defined",
        remedy="pass your own tensors to measure_rounds",
    )
