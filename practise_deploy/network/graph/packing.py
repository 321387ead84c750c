"""Inputs of any structure as one: a sample's inputs, one after another, as a row of numbers that stands for an image.

All that plans and recovers then has one tensor to deal with, [n, 1, 1, numbers]; the network's first operations take it apart again.
Token numbers up to 2^24 are exact in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from practise_deploy.terms import InputSpec, Preprocessing

LARGEST = 1 << 24
"""Whole numbers up to here are exact in float32."""


def packed_width(inputs: Sequence[InputSpec]) -> int:
    """How many numbers a sample has."""
    return sum(math.prod(spec.shape) for spec in inputs)


def pack(arrays: Mapping[str, npt.NDArray[np.generic]], inputs: Sequence[InputSpec]) -> npt.NDArray[np.float32]:
    """Samples as rows. Shapes: arrays [n, ...] by name -> [n, 1, 1, numbers]."""
    rows = [np.asarray(arrays[spec.name], dtype=np.float32).reshape(len(arrays[spec.name]), -1) for spec in inputs]
    return np.concatenate(rows, 1)[:, None, None]


def packed(tensors: Mapping[str, Tensor], inputs: Sequence[InputSpec]) -> Tensor:
    """The same of tensors. Shapes: [n, ...] by name -> [n, 1, 1, numbers]."""
    return torch.cat([tensors[spec.name].float().flatten(1) for spec in inputs], 1)[:, None, None]


def parts(inputs: Sequence[InputSpec]) -> list[slice]:
    """Where every input lies in a row."""
    ends = accumulate((math.prod(spec.shape) for spec in inputs), initial=0)
    return [slice(*pair) for pair in pairwise(ends)]


def unpack(row: Tensor, begin: int, end: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """One input. Shapes: row [n, 1, 1, numbers] -> [n, *shape]."""
    return row.flatten(1)[:, begin:end].reshape(-1, *shape).to(dtype)


def unpacked(rows: npt.NDArray[np.float32], inputs: Sequence[InputSpec]) -> dict[str, npt.NDArray[np.generic]]:
    """All inputs by name, of their own types. Shapes: rows [n, 1, 1, numbers] -> [n, ...] each."""
    rows = rows.reshape(len(rows), -1)
    return {
        spec.name: np.ascontiguousarray(rows[:, part].reshape(-1, *spec.shape)).astype(spec.dtype)
        for spec, part in zip(inputs, parts(inputs), strict=True)
    }


def mask_place(inputs: Sequence[InputSpec]) -> slice | None:
    """Where a sample's row says which positions count; None where the network is told of no padding."""
    masks = (place for spec, place in zip(inputs, parts(inputs), strict=True) if spec.is_mask and len(spec.shape) == 1)
    return next(masks, None)


def mask_of(rows: Tensor, preprocessing: Preprocessing) -> Tensor | None:
    """Which positions of every sample count. Shapes: [n, 1, 1, numbers] -> [n, positions]."""
    place = mask_place(preprocessing.inputs)
    return None if place is None else rows.flatten(1)[:, place]
