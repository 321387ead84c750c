"""The rows of a site's least squares problem: patches at random positions, and what the writers should give there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, fx, nn

from practise_deploy.model.execution import Env
from practise_deploy.model.operators import shape_of
from practise_deploy.planning.writers import Site, convolution_at

ROWS, ENOUGH_TO_COMPARE = 20_000, 10_000
"""Rows of a solution that is shipped, and of one that blocks or sets of them are compared by."""
ROOM_FOR_TARGETS = 1 << 31


def rows_in_memory(sites: Sequence[Site], images: int, most: int, beside: int = 1) -> int:
    """So many rows, or as many of every site as leave the targets of all of them ROOM_FOR_TARGETS bytes in memory.

    beside: how many students in the making share it, of about so many images each.
    """
    shapes = [shape for site in sites if (shape := shape_of(site.value))]

    def held(per_image: int) -> int:
        numbers = sum(channels * min(per_image, height * width) for _, channels, height, width in shapes)
        return 4 * numbers * images * beside

    wanted = most // max(1, images)
    if held(wanted) <= ROOM_FOR_TARGETS:
        return most
    return images * (bisect_right(range(1, wanted), ROOM_FOR_TARGETS, key=held) or 1)


class Sampler:
    """Draws the same random positions of every image, so that about so many rows are summed in all."""

    def __init__(self, images: int, seed: int, rows: int = ROWS) -> None:
        self.per_image = max(1, rows // max(1, images))
        self.seed = seed

    def positions(self, value: fx.Node) -> tuple[Tensor, Tensor]:
        """Rows and columns of the drawn positions in a value's height and width."""
        shape = shape_of(value)
        assert shape is not None and len(shape) == 4
        height, width = shape[2], shape[3]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(height * width, generator=generator)[: self.per_image]
        return drawn // width, drawn % width


def patches_of(convolution: nn.Conv2d, x: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """im2col at some output positions. Shapes: x [n, c, h, w] -> [n * positions, c * kernel]."""
    (kh, kw), (sh, sw), (dh, dw) = convolution.kernel_size, convolution.stride, convolution.dilation
    ph, pw = (int(side) for side in convolution.padding)
    padded = nn.functional.pad(x, (pw, pw, ph, ph)) if ph or pw else x
    rows, columns = positions
    taps = [at_positions(padded, (rows * sh + i * dh, columns * sw + j * dw)) for i, j in product(range(kh), range(kw))]
    return torch.stack(taps, 3).flatten(0, 1).flatten(1)


def rows_for(traced: fx.GraphModule, site: Site, env: Env, wanted: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Patches of all writers with the ones column, and what the writers together should give.

    Shapes: wanted [n, positions, channels], the teacher's value at the drawn positions -> [rows, d + 1], [rows, channels].
    """
    at = sampler.positions(site.value)
    rest = wanted - at_positions(env[site.value.name], at)
    parts = []
    for writer in site.writers:
        convolution = convolution_at(traced, writer.convolution)
        parts.append(patches_of(convolution, env[writer.source.name], at))
        rest = rest + at_positions(env[writer.output.name], at)
    ones = parts[0].new_ones(len(parts[0]), 1)
    return torch.cat([*parts, ones], 1), rest.flatten(0, 1)


def at_positions(value: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Shapes: [n, channels, height, width] -> [n, positions, channels]."""
    return value.permute(0, 2, 3, 1)[:, positions[0], positions[1]]  # values are channels last: whole vectors are read


def values_for(site: Site) -> list[fx.Node]:
    """The values that `rows_for` needs."""
    return [site.value, *(w.source for w in site.writers), *(w.output for w in site.writers)]
