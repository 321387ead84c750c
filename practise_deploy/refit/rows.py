"""The rows of a point's least squares problem: patches at random positions, and what the writers should give there."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.operators import shape_of
from practise_deploy.network.graph.packing import mask_of
from practise_deploy.refit.affine import Places, patches_of
from practise_deploy.refit.writers import ReconstructionPoint
from practise_deploy.terms import Preprocessing

ROWS, ENOUGH_TO_COMPARE = 20_000, 10_000
"""Rows of a solution that is shipped, and of one that blocks or sets of them are compared by."""
ROOM_FOR_TARGETS = 1 << 31


def rows_in_memory(points: Sequence[ReconstructionPoint], images: int, most: int, students: int = 1) -> int:
    """So many rows, or as many of every point as leave the targets of all of them ROOM_FOR_TARGETS bytes in memory.

    students: how many in the making share it, of about so many images each.
    """
    widths = [(channels_of(point), math.prod(point.layout.sides)) for point in points]

    def held(per_image: int) -> int:
        numbers = sum(channels * min(per_image, positions) for channels, positions in widths)
        return 4 * numbers * images * students

    rows_per_image = most // max(1, images)
    if held(rows_per_image) <= ROOM_FOR_TARGETS:
        return most
    return images * (bisect_right(range(1, rows_per_image), ROOM_FOR_TARGETS, key=held) or 1)


class Sampler:
    """Draws the same random positions of every image, so that about so many rows are summed in all."""

    def __init__(self, images: int, seed: int, rows: int = ROWS, preprocessing: Preprocessing | None = None) -> None:
        """preprocessing: of the images, where padding may be among their positions."""
        self.per_image = max(1, rows // max(1, images))
        self.seed, self.preprocessing = seed, preprocessing

    def places(self, point: ReconstructionPoint) -> Places:
        """The drawn positions of a point's value; of a sequence the first is always among them, mostly the class token."""
        generator, sides = torch.Generator().manual_seed(self.seed), point.layout.sides
        drawn = torch.randperm(math.prod(sides), generator=generator)
        if len(sides) == 1:
            drawn = torch.cat([drawn[drawn == 0], drawn[drawn != 0]])
        return torch.unravel_index(drawn[: self.per_image], sides)

    def vectors(self, point: ReconstructionPoint, value: Tensor) -> Tensor:
        """A value of the point's shape at the drawn positions. Shapes: [n, positions, channels]."""
        return point.layout.vectors(value, self.places(point))

    def counted(self, point: ReconstructionPoint, x: Tensor) -> Tensor | None:
        """A weight of 1 for every row whose position counts, 0 for padding; None where all count.

        Shapes: x the network's input [n, ...] -> [n * positions].
        """
        mask = None if self.preprocessing is None else mask_of(x, self.preprocessing)
        if mask is None or point.layout.sides != mask.shape[1:]:
            return None
        return (mask[:, self.places(point)[0]] > 0).float().flatten()


def channels_of(point: ReconstructionPoint) -> int:
    """How many channels a point's value has."""
    return (shape_of(point.value) or ())[point.axis]


def rows_for(point: ReconstructionPoint, env: Env, teacher_vectors: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Patches of all writers with the ones column, and what the writers together should give.

    Shapes: wanted [n, positions, channels], the teacher's value at the drawn positions -> [rows, d + 1], [rows, channels].
    """
    places = sampler.places(point)
    rest = teacher_vectors - point.layout.vectors(env[point.value.name], places)
    parts = []
    for writer in point.writers:
        source = writer.from_operator.before.by_image(env[writer.source.name])
        at = writer.from_operator.places_before(places)
        parts.append(patches_of(writer.layer, source, at))
        at = writer.from_output.places_before(places)
        given = writer.from_output.before.vectors(env[writer.output.name], at)
        rest = rest + given * writer.constant_behind.to(given)
    ones = parts[0].new_ones(len(parts[0]), 1)
    return torch.cat([*parts, ones], 1), rest.flatten(0, 1)


def values_for(point: ReconstructionPoint) -> list[fx.Node]:
    """The values that `rows_for` needs."""
    return [point.value, *(w.source for w in point.writers), *(w.output for w in point.writers)]
