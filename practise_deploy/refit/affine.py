"""Affine operators, whose weights alone say what they compute of each patch of their input: convolutions and linear layers."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

Affine = nn.Conv2d | nn.Linear
Places = tuple[Tensor, ...]
"""Some positions of a value: their indices along every axis but those of images and channels."""


def channel_axis(operator: Affine, rank: int) -> int:
    """The axis of the channels, in what the operator takes and gives. rank: of its input."""
    return 1 if isinstance(operator, nn.Conv2d) else rank - 1


def patches_of(operator: Affine, x: Tensor, places: Places) -> Tensor:
    """What some output positions are computed of: im2col, or the vectors there.

    Shapes: x [n, c, h, w] -> [n * positions, c * kernel]; of a linear layer [n, ..., d] -> [n * positions, d].
    """
    if isinstance(operator, nn.Linear):
        return vectors_at(x, x.ndim - 1, places).flatten(0, 1)
    (kh, kw), (sh, sw), (dh, dw) = operator.kernel_size, operator.stride, operator.dilation
    ph, pw = (int(side) for side in operator.padding)
    padded = nn.functional.pad(x, (pw, pw, ph, ph)) if ph or pw else x
    rows, columns = places
    taps = [
        vectors_at(padded, 1, (rows * sh + i * dh, columns * sw + j * dw)) for i, j in product(range(kh), range(kw))
    ]
    return torch.stack(taps, 3).flatten(0, 1).flatten(1)


def vectors_at(value: Tensor, axis: int, places: Places) -> Tensor:
    """The channels at some positions. axis: that of the channels. Shapes: [n, positions, channels]."""
    index: tuple[slice | Tensor, ...] = (slice(None), *places)
    return value.movedim(axis, -1)[index]  # convolutions' values are channels last: whole vectors are read


def applied(operator: Affine, weight: Tensor, x: Tensor) -> Tensor:
    """What the operator would give with another weight and no bias.

    Shapes: weight like the operator's own; x [n, inputs, ...] of a convolution, [n, ..., inputs] of a linear layer.
    """
    if isinstance(operator, nn.Linear):
        return nn.functional.linear(x, weight)
    return nn.functional.conv2d(x, weight, None, operator.stride, operator.padding, operator.dilation)
