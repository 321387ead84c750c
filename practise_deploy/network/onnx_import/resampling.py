"""Nodes that make maps smaller or larger: poolings and resizings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn
from torch.nn import functional as F

from practise_deploy.network.onnx_import.known import Array, Untranslatable, evaluator
from practise_deploy.network.onnx_import.nodes import attributes_of
from practise_deploy.network.onnx_import.padding import is_symmetric, padded, padding_of
from practise_deploy.network.onnx_import.translator import Translator

_MAX_POOLS: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOLS: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_ROUNDED = ("round_prefer_floor", "round_prefer_ceil")
_REPEATING = {"half_pixel": _ROUNDED, "pytorch_half_pixel": _ROUNDED, "asymmetric": ("floor",)}
"""How the nearest value is rounded where every value is repeated in resizing by a whole number."""
_MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


def global_pool(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """GlobalAveragePool and GlobalMaxPool."""
    average, rank = node.op_type == "GlobalAveragePool", len(t.shapes(node.input[0])[0])
    if rank != 4:
        return t.call(torch.mean if average else torch.amax, t.value(node.input[0]), tuple(range(2, rank)), True)
    return t.call_module(node, nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1), t.value(node.input[0]))


def pool(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """MaxPool and AveragePool."""
    attributes, sides = attributes_of(node), t.shapes(node.input[0])[0][2:]
    kernel = attributes["kernel_shape"]
    strides, dilations = (attributes.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    if len([name for name in node.output if name]) > 1:
        raise Untranslatable("it gives indices too")
    reach = [dilation * (side - 1) + 1 for dilation, side in zip(dilations, kernel, strict=True)]
    pads, ceil = padding_of(attributes, sides, reach, strides), bool(attributes.get("ceil_mode"))
    half = len(kernel)
    unusual = not is_symmetric(pads) or any(2 * pad > side for pad, side in zip(pads, kernel, strict=False))
    if node.op_type == "AveragePool":
        if dilations != [1] * half or (ceil and (unusual or any(pads))):
            raise Untranslatable("it averages by a rule that torch has not")
        return _average_pool(t, node, pads, unusual)
    source = t.value(node.input[0])
    if unusual:
        source, pads = padded(t, node, source, pads, -float("inf")), [0] * 2 * half
    return t.call_module(node, _MAX_POOLS[half](kernel, strides, tuple(pads[:half]), dilations, ceil_mode=ceil), source)


def _average_pool(t: Translator, node: onnx.NodeProto, pads: list[int], unusual: bool) -> fx.Node:
    """AveragePool. Where torch cannot pad so, the average over padding is put right by how much of it is none."""
    attributes, shape, source = attributes_of(node), t.shapes(node.input[0])[0], t.value(node.input[0])
    kernel, half = attributes["kernel_shape"], len(attributes["kernel_shape"])
    strides, counts_padding = attributes.get("strides", [1] * half), bool(attributes.get("count_include_pad"))
    if not unusual:
        ceil = bool(attributes.get("ceil_mode"))
        layer = _AVERAGE_POOLS[half](kernel, strides, tuple(pads[:half]), ceil, counts_padding)
        return t.call_module(node, layer, source)
    layer = _AVERAGE_POOLS[half](kernel, strides)
    made = t.call_module(node, layer, padded(t, node, source, pads))
    if counts_padding:
        return made
    around = [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)]
    share = layer(torch.from_numpy(np.pad(np.ones((1, 1, *shape[2:]), np.float32), around)))
    return t.call(torch.div, made, t.held(node, share.numpy()))


def resize(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Resize and Upsample of maps."""
    shape = t.shapes(node.input[0])[0]
    rule = _rule(t, node)
    size, scales = _size(t, node, shape)
    images_stay = size[0] in (shape[0], t.batch)  # a file for one image, and more of them
    if len(shape) != 4 or not images_stay or size[1] != shape[1]:
        raise Untranslatable("it resizes other axes than the height and the width of maps")
    arguments = _interpolation(rule, shape, size, scales)
    if arguments is not None:
        return t.call(F.interpolate, t.value(node.input[0]), size=list(size[2:]), **arguments)
    if rule.get("coordinate_transformation_mode") == "align_corners":
        scales = None  # the ends decide
    rows, columns = (
        t.held(node, _resizing_matrix(rule, shape[axis], size[axis], None if scales is None else scales[axis]))
        for axis in (2, 3)
    )
    return t.call(torch.matmul, t.call(torch.matmul, rows, t.value(node.input[0])), t.call("t", columns))


def _rule(t: Translator, node: onnx.NodeProto) -> dict[str, Any]:
    """How a node resizes, in the attributes of Resize-13: Upsample, and Resize before opset 11, have a rule without a name."""
    attributes = attributes_of(node)
    if node.op_type == "Upsample" or t.opset < 11:
        implied = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return {"mode": attributes.get("mode", "nearest"), **implied}
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Untranslatable("it crops too")
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Untranslatable("it keeps the ratio of the sides")
    return {name: value for name, value in attributes.items() if name not in ("axes", "keep_aspect_ratio_policy")}


def _size(
    t: Translator, node: onnx.NodeProto, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The shape that is made, and the scales where it is made by them."""
    attributes = attributes_of(node)
    axes = [axis % len(shape) for axis in attributes.get("axes", range(len(shape)))]
    if len(node.input) > 3 and node.input[3]:
        sizes = t.known.of_batches(node.input[3])[0].tolist()
        made = dict(zip(axes, sizes, strict=True))
        return tuple(int(made.get(axis, side)) for axis, side in enumerate(shape)), None
    given = attributes.get("scales")
    if given is None:
        given = t.constant(node, 1 if len(node.input) == 2 else 2).tolist()
    scale_of = dict(zip(axes, given, strict=True))
    scales = tuple(float(scale_of.get(axis, 1.0)) for axis in range(len(shape)))
    return tuple(int(np.floor(side * scale)) for side, scale in zip(shape, scales, strict=True)), scales


def _interpolation(
    rule: dict[str, Any], shape: tuple[int, ...], size: tuple[int, ...], scales: tuple[float, ...] | None
) -> dict[str, Any] | None:
    """How torch's own function computes the same; None where it does not."""
    mode, place = rule.get("mode", "nearest"), rule.get("coordinate_transformation_mode", "half_pixel")
    exact = scales is None or all(side * scale == int(side * scale) for side, scale in zip(shape, scales, strict=True))
    special = rule.get("antialias") or rule.get("exclude_outside") or rule.get("cubic_coeff_a", -0.75) != -0.75
    if special or 1 in size[2:]:
        return None
    if mode == "nearest":
        repeats = all(after % before == 0 for before, after in zip(shape[2:], size[2:], strict=True))
        rounding = rule.get("nearest_mode", "round_prefer_floor")
        if not repeats or not exact or rounding not in _REPEATING.get(place, ()):
            return None
    elif place != "align_corners" and (not exact or place not in ("half_pixel", "pytorch_half_pixel")):
        return None
    corners = {} if mode == "nearest" else {"align_corners": place == "align_corners"}
    return {"mode": _MODES[mode], **corners}


def _resizing_matrix(rule: dict[str, Any], before: int, after: int, scale: float | None) -> Array:
    """What ONNX's own implementation makes of every unit vector. Shapes: [after, before]."""
    how = [onnx.numpy_helper.from_array(np.array([before, after], np.int64), "sizes")]
    inputs = ["unit", "", "", "sizes"]
    if scale is not None:
        how, inputs = [onnx.numpy_helper.from_array(np.array([1, scale], np.float32), "scales")], ["unit", "", "scales"]
    node = onnx.helper.make_node("Resize", inputs, ["resized"], **rule)
    feeds = {"unit": np.eye(before, dtype=np.float32), how[0].name: onnx.numpy_helper.to_array(how[0])}
    (resized,) = evaluator(node, 18).run(None, feeds)
    return np.ascontiguousarray(np.asarray(resized).T)


OPERATIONS: dict[str, Callable[[Translator, onnx.NodeProto], fx.Node]] = {
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
    **dict.fromkeys(("AveragePool", "MaxPool"), pool),
    **dict.fromkeys(("Resize", "Upsample"), resize),
}
