"""Nodes that put numbers in other places: shapes, orders, parts, copies."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx
from torch.nn import functional as F

from practise_deploy.network.onnx_import.known import BATCHES, Array, Shape, Untranslatable
from practise_deploy.network.onnx_import.nodes import attributes_of
from practise_deploy.network.onnx_import.padding import padded
from practise_deploy.network.onnx_import.translator import Translator

_ALL = 2**31 - 1
"""Where slices end that go to the end of any side."""


def axes_of(t: Translator, node: onnx.NodeProto) -> list[int] | None:
    """The axes of a node: an attribute in old files, its second input in new ones."""
    axes = attributes_of(node).get("axes")
    if axes is None:
        given = t.constant(node, 1)
        axes = None if given is None else given.reshape(-1).tolist()
    return axes


def reshape(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Reshape. What its target holds of the number of images is left open."""
    targets = [_target(t, node, number) for number in range(len(BATCHES))]
    return t.call(torch.reshape, t.value(node.input[0]), _with_images(t, targets, inferred=True))


def _target(t: Translator, node: onnx.NodeProto, number: int) -> Shape:
    """The shape that is asked for, settled, for one of `BATCHES`."""
    before, attributes = t.shapes(node.input[0])[number], attributes_of(node)
    asked = t.known.of_batches(node.input[1])[number].tolist() if len(node.input) > 1 else attributes["shape"]
    keeps_zero, axis = bool(attributes.get("allowzero")), t.image_axis(node.input[0])
    if t.batch is None or axis is None or (len(node.input) > 1 and node.input[1] in t.known.sizes):
        return _settled(asked, before, keeps_zero)
    per_image = before[axis] // BATCHES[number]
    settled = list(_settled(asked, (*before[:axis], per_image * t.batch, *before[axis + 1 :]), keeps_zero))
    place = _place_of_images(settled, int(np.prod(before[:axis])), t.batch)
    settled[place] = settled[place] // t.batch * BATCHES[number]
    return tuple(settled)


def _settled(asked: Sequence[int], before: Shape, keeps_zero: bool) -> Shape:
    """A target of Reshape without its zeros and -1."""
    sides = [before[at] if side == 0 and not keeps_zero else int(side) for at, side in enumerate(asked)]
    if -1 in sides:
        sides[sides.index(-1)] = int(np.prod(before)) // max(1, -int(np.prod(sides)))
    return tuple(sides)


def _place_of_images(sides: Sequence[int], outside: int, batch: int) -> int:
    """The axis that images are in: the first one whose side holds their number, with as much outside of it as before.

    sides: for a fixed number of images. outside: how many values lie outside of them.
    """
    for axis, side in enumerate(sides):
        if int(np.prod(sides[:axis])) == outside and side % batch == 0:
            return axis
    raise Untranslatable("its shape holds the number of images in no axis of its own")


def _with_images(t: Translator, shapes: Sequence[Shape], *, inferred: bool = False) -> tuple[Any, ...]:
    """A shape for any number of images. inferred: a side that depends on it may be -1."""
    sides: list[Any] = []
    for side, other in zip(*shapes, strict=True):
        if side == other:
            sides.append(side)
        elif side * BATCHES[1] != other * BATCHES[0]:
            raise Untranslatable("its shape is not in proportion to the number of images")
        else:
            sides.append(-1 if inferred and -1 not in sides else t.images(side // BATCHES[0]))
    return tuple(sides)


def flatten(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Flatten to two axes."""
    axis, rank = attributes_of(node).get("axis", 1), len(t.shapes(node.input[0])[0])
    source = t.value(node.input[0])
    if axis % rank == 1:
        return t.call(torch.flatten, source, 1)
    shapes = t.shapes(node.input[0])
    parts = [(int(np.prod(shape[: axis % rank])), int(np.prod(shape[axis % rank :]))) for shape in shapes]
    return t.call(torch.reshape, source, _with_images(t, parts, inferred=True))


def transpose(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Transpose."""
    rank = len(t.shapes(node.input[0])[0])
    return t.call(torch.permute, t.value(node.input[0]), tuple(attributes_of(node).get("perm", range(rank)[::-1])))


def squeeze(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Squeeze; without axes, of every axis of one that is not the images'."""
    shape, axes = t.shapes(node.input[0])[0], axes_of(t, node)
    if axes is None:
        axes = [axis for axis, side in enumerate(shape) if side == 1]
    made = t.value(node.input[0])
    for axis in sorted((axis % len(shape) for axis in axes), reverse=True):
        made = t.call(torch.squeeze, made, axis)
    return made


def unsqueeze(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Unsqueeze."""
    axes = axes_of(t, node) or []
    rank, made = len(t.shapes(node.input[0])[0]) + len(axes), t.value(node.input[0])
    for axis in sorted(axis % rank for axis in axes):
        made = t.call(torch.unsqueeze, made, axis)
    return made


def concat(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Concat; what a file for one image holds once is repeated for every image."""
    shapes = [t.shapes(name)[0] for name in node.input]
    rank, axis = len(shapes[0]), attributes_of(node)["axis"]
    parts = [t.value(name) for name in node.input]
    if axis % rank in [t.image_axis(name) for name in node.input]:
        raise Untranslatable("it adds images")
    if any(t.image_axis(name) == 0 for name in node.input):
        parts = [
            t.call("repeat", part, t.images(), *(1,) * (rank - 1)) if shape[0] == 1 else part
            for part, shape in zip(parts, shapes, strict=True)
        ]
    return t.call(torch.cat, parts, axis)


def split(t: Translator, node: onnx.NodeProto) -> tuple[fx.Node, ...]:
    """Split."""
    attributes = attributes_of(node)
    axis, sizes = attributes.get("axis", 0), attributes.get("split")
    if axis % len(t.shapes(node.input[0])[0]) == t.image_axis(node.input[0]):
        raise Untranslatable("it takes some of the images")
    if sizes is None:
        given = t.constant(node, 1)
        side = t.shapes(node.input[0])[0][axis]
        step = -(-side // len(node.output))
        sizes = [min(step, side - step * at) for at in range(len(node.output))] if given is None else given.tolist()
    parts = t.call(torch.split, t.value(node.input[0]), list(sizes), axis)
    return tuple(t.call(operator.getitem, parts, number) for number in range(len(node.output)))


def slice_(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Slice along any axes but the images'."""
    attributes, shape = attributes_of(node), t.shapes(node.input[0])[0]
    names = ("starts", "ends", "axes", "steps")
    given = [attributes.get(name, t.constant(node, at + 1)) for at, name in enumerate(names)]
    starts, ends = (np.asarray(each).reshape(-1).tolist() for each in given[:2])
    axes = range(len(starts)) if given[2] is None else np.asarray(given[2]).reshape(-1).tolist()
    steps = [1] * len(starts) if given[3] is None else np.asarray(given[3]).reshape(-1).tolist()
    index, made = [slice(None)] * len(shape), t.value(node.input[0])
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % len(shape) == t.image_axis(node.input[0]):
            if step != 1 or start != 0 or end < (t.batch or _ALL):
                raise Untranslatable("it takes some of the images")
            continue
        part = range(shape[axis])[_bounded(start, shape[axis]) : _end(end, step, shape[axis]) : step]
        if step < 0:
            made = t.call(torch.index_select, made, axis % len(shape), t.held(node, np.array(list(part))))
        elif len(part) != shape[axis]:
            index[axis] = slice(part.start, part.stop, step)
    whole = all(each == slice(None) for each in index)
    return made if whole else t.call(operator.getitem, made, tuple(index))


def _bounded(at: int, side: int) -> int:
    return max(-side, min(at, side))


def _end(at: int, step: int, side: int) -> int | None:
    """Where a slice ends, in Python's terms: backwards past the first is no end."""
    return None if step < 0 and at < -side else _bounded(at, side)


def gather(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Gather: one index, or several in any shape."""
    rank = len(t.shapes(node.input[0])[0])
    axis = attributes_of(node).get("axis", 0) % rank
    if node.input[1] not in t.known:  # rows of a table
        if axis == 0 and t.is_constant(node, 0):
            return t.call(F.embedding, t.call("long", t.value(node.input[1])), t.operand(node, 0))
        raise Untranslatable("its indices are computed")
    if axis == t.image_axis(node.input[0]):
        return _gathered_within_images(t, node)
    indices: Array = t.constant(node, 1)
    if indices.ndim == 0:
        return t.call(torch.select, t.value(node.input[0]), axis, int(indices))
    side = t.shapes(node.input[0])[0][axis]
    made = t.call(torch.index_select, t.value(node.input[0]), axis, t.held(node, indices.reshape(-1) % side))
    return made if indices.ndim == 1 else t.call("unflatten", made, axis, indices.shape)


def _gathered_within_images(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Gather of a row that holds all images one after another, the same places of each: torch's exporter writes strides so."""
    length = t.shapes(node.input[0])[0][0] // BATCHES[0]
    arrays = t.known.of_batches(node.input[1])
    fixed = t.is_constant(node, 1)
    one = arrays[0] if fixed else arrays[0][: len(arrays[0]) // BATCHES[0]]
    same = all(
        np.array_equal(array, np.concatenate([one + number * length for number in range(1 if fixed else batch)]))
        for array, batch in zip(arrays, BATCHES, strict=True)
    )
    whole = fixed and t.batch == 1 and length > 1 and one.ndim > 0
    if len(t.shapes(node.input[0])[0]) != 1 or not same or (fixed and not whole):
        raise Untranslatable("it takes some of the images")
    rows = t.call("unflatten", t.value(node.input[0]), 0, (-1, length))
    made = t.call(torch.index_select, rows, 1, t.held(node, one.reshape(-1) % length))
    return t.call(torch.reshape, made, (-1, *one.shape[1:]))


def expand(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Expand."""
    shapes = []
    for before, target in zip(t.shapes(node.input[0]), t.known.of_batches(node.input[1]), strict=True):
        asked = target.tolist()
        if t.batch and len(asked) == len(before) and before[0] > asked[0] > 1 and before[0] % asked[0] == 0:
            asked[0] = before[0]  # a file for a fixed number of images, and more of them
        shapes.append(np.broadcast_shapes(before, tuple(asked)))
    return t.call("expand", t.value(node.input[0]), *_with_images(t, shapes))


def pad(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Pad. Copies of what is there are taken axis by axis."""
    attributes, rank = attributes_of(node), len(t.shapes(node.input[0])[0])
    pads, mode = _pads(t, node, rank), attributes.get("mode", "constant")
    first = next((axis for axis in range(rank) if pads[axis] or pads[axis + rank]), rank)
    images = t.image_axis(node.input[0])
    if images is not None and (pads[images] or pads[images + rank]):
        raise Untranslatable("it adds images")
    made = t.value(node.input[0])
    if mode == "constant":
        value = np.asarray(attributes.get("value", t.constant(node, 2, 0.0))).item()
        kept = min(first, max(1, rank - 2))
        return made if first == rank else padded(t, node, made, pads[kept:rank] + pads[rank + kept :], value)
    for axis in range(first, rank):
        if pads[axis] or pads[axis + rank]:
            places = np.pad(np.arange(t.shapes(node.input[0])[0][axis]), (pads[axis], pads[axis + rank]), mode)
            made = t.call(torch.index_select, made, axis, t.held(node, places))
    return made


def _pads(t: Translator, node: onnx.NodeProto, rank: int) -> list[int]:
    """The padding of every axis, all starts before all ends: an attribute in old files, of some axes only in new ones."""
    given = attributes_of(node).get("pads")
    pads = [int(each) for each in (t.constant(node, 1) if given is None else given)]
    axes = t.constant(node, 3)
    if axes is None:
        return pads
    spread = [0] * 2 * rank
    for at, axis in enumerate(int(each) % rank for each in axes):
        spread[axis], spread[axis + rank] = pads[at], pads[at + len(axes)]
    return spread


def depth_to_space(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """DepthToSpace."""
    attributes, source = attributes_of(node), t.value(node.input[0])
    side, channels = attributes["blocksize"], t.shapes(node.input[0])[0][1]
    if attributes.get("mode", "DCR") == "DCR":
        blocks = t.call("unflatten", source, 1, (side * side, channels // side**2))
        source = t.call("flatten", t.call("transpose", blocks, 1, 2), 1, 2)
    return t.call(F.pixel_shuffle, source, side)


OPERATIONS = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
