"""Values that are others rearranged: axes in another order, windows put together again, maps rolled, cut and reshaped.

What a chain of such operations does is found by executing it on numbers that say where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from practise_deploy.network.graph.execution import execute
from practise_deploy.network.graph.operators import shape_of
from practise_deploy.refit.affine import Places, vectors_at
from practise_deploy.refit.annotation import AnnotatedGraph, Role


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the positions and the channels of a value are.

    sides: sizes along every axis but those of images and channels. windowed: whether windows of an image stand one after
    another along the first axis, as if they were images; then their number is the first of the sides. axis: that of the
    channels in the value.
    """

    sides: tuple[int, ...]
    axis: int
    windowed: bool = False

    def by_image(self, value: Tensor) -> Tensor:
        """A value with windows along an axis of their own. Shapes: [n * windows, ...] -> [n, windows, ...]."""
        return value.reshape(-1, self.sides[0], *value.shape[1:]) if self.windowed else value

    def vectors(self, value: Tensor, places: Places) -> Tensor:
        """The channels at some positions. Shapes: [n, positions, channels]."""
        return vectors_at(self.by_image(value), self.axis + self.windowed, places)


@dataclass(frozen=True, slots=True, eq=False)
class Rearrangement:
    """How a value is another one rearranged: every image alike, its channels kept together.

    index: which position every one was before, in order; None where they are in the same order.
    """

    before: Layout
    after: Layout
    index: Tensor | None = None

    def places_before(self, places: Places) -> Places:
        """Where some positions were before."""
        if self.index is None and self.before.sides == self.after.sides:
            return places
        flat = torch.zeros_like(places[0])
        for place, side in zip(places, self.after.sides, strict=True):
            flat = flat * side + place
        return torch.unravel_index(flat if self.index is None else self.index[flat], self.before.sides)

    def moved(self, value: Tensor) -> Tensor:
        """A value rearranged. Shapes: laid out as `before` says -> as `after` says."""
        before, after, numbers = self.before, self.after, value.movedim(self.before.axis, -1)
        if self.index is not None or (before.sides, before.windowed) != (after.sides, after.windowed):
            images = numbers.reshape(-1, math.prod(before.sides), numbers.shape[-1])
            images = images if self.index is None else images[:, self.index.to(value.device)]
            numbers = images.reshape(-1, *after.sides[after.windowed :], images.shape[-1])
        return numbers.movedim(-1, after.axis)


def followed(graph: AnnotatedGraph, span: Sequence[fx.Node], axis: int) -> tuple[list[int], Rearrangement] | None:
    """Along which axis the channels of each of these values are, and how the last one is the first one rearranged.

    axis: that of the first. None where channels are not kept together, or where images are not treated alike.
    """
    shape = span[0].meta.get("for_two", ())
    if not any(graph[node].role is Role.REARRANGEMENT for node in span[1:]):
        layout = _layout(shape or (2, *(shape_of(span[0]) or ())[1:]), axis)
        return [axis] * len(span), Rearrangement(layout, layout)
    if len(shape) < 2 or shape[0] % 2 or shape[axis] == 1:
        return None
    channels, axes = shape[axis], [axis]
    positions = math.prod(shape) // channels
    rest = [side for each, side in enumerate(shape) if each != axis]
    # number every element position-major, channels fastest: n // channels is its position, n % channels its channel
    numbers = torch.arange(positions * channels).view(*rest, channels).movedim(-1, axis).contiguous()
    for node in span[1:]:
        operation = graph[node]
        if operation.role is not Role.REARRANGEMENT or operation.source is None:
            axes.append(axes[-1])
            continue
        # move the numbers as the operation would, and see along which axis the channels now count
        sizes = {each.name: each.meta["for_two"] for each in node.all_input_nodes}
        try:
            numbers = execute(graph.network, node, sizes | {operation.source.name: numbers})
        except RuntimeError:  # a size that is not of two images
            return None
        axis_now = _axis_of(numbers % channels, channels)
        if axis_now is None:
            return None
        axes.append(axis_now)
    # one channel's numbers are positions of the first value, in the order of the last
    end = tuple(numbers.shape)
    index = _index(numbers.select(axes[-1], 0) // channels, positions // 2)
    if index is None or end[1:] != (shape_of(span[-1]) or ())[1:]:
        return None
    moved = not torch.equal(index, torch.arange(positions // 2))
    return axes, Rearrangement(_layout(shape, axis), _layout(end, axes[-1]), index if moved else None)


def _layout(for_two: tuple[int, ...], axis: int) -> Layout:
    """The layout of a value with this shape for two images."""
    rest = tuple(side for each, side in enumerate(for_two) if each not in (0, axis))
    windows = (for_two[0] // 2,) if for_two[0] > 2 else ()
    return Layout((*windows, *rest), axis, bool(windows))


def _axis_of(channel: Tensor, channels: int) -> int | None:
    """The axis along which channel numbers count, and along no other. Shapes: channel like the value that it numbers."""
    for axis in range(1, channel.ndim):
        if channel.shape[axis] == channels:
            count = torch.arange(channels).view(-1, *(1,) * (channel.ndim - axis - 1))
            if bool((channel == count).all()):
                return axis
    return None


def _index(positions: Tensor, count: int) -> Tensor | None:
    """The index of `Rearrangement` from the positions of two images, each of which had so many; None where images are mixed.

    Shapes: positions [2 * positions of one image] -> [positions of one image].
    """
    if len(positions) % 2:
        return None
    first, second = positions.reshape(2, -1)
    return first if bool((first < count).all()) and torch.equal(second, first + count) else None
