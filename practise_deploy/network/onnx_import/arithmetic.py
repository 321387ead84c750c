"""Nodes that compute without weights: sums, products, activations, reductions, poolings."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from practise_deploy.network.onnx_import.known import Untranslatable
from practise_deploy.network.onnx_import.nodes import attributes_of
from practise_deploy.network.onnx_import.rearranging import axes_of
from practise_deploy.network.onnx_import.translator import Translator

_MOST = 3.0e38
"""What as good as no bound is to those who write files."""
_BINARY: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Pow": torch.pow,
    "Max": torch.maximum,
    "Min": torch.minimum,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}


def _l1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.abs().sum(axes, keep)


def _l2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.square().sum(axes, keep).sqrt()


def _sum_square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.square().sum(axes, keep)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keep).log()


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep)
    return x


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _prod,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": _sum_square,
}


def _binary(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Two operands; Max, Min and Sum take any number of them."""
    if attributes_of(node).get("broadcast"):
        raise Untranslatable("it broadcasts as files before opset 7 do")
    function, operands = _BINARY[node.op_type], [t.operand(node, index) for index in range(len(node.input))]
    if node.op_type in ("Max", "Min", "Pow"):
        operands = [_tensor(t, node, index, each) for index, each in enumerate(operands)]
    made = operands[0]
    for other in operands[1:]:
        made = t.call(function, made, other)
    return made


def _tensor(t: Translator, node: onnx.NodeProto, index: int, operand: Any) -> Any:
    """An operand as a tensor where the function takes no number: everywhere but in exponents."""
    if isinstance(operand, fx.Node) or (node.op_type == "Pow" and index == 1):
        return operand
    return t.value(node.input[index])


def _sum(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return functools.reduce(lambda first, second: t.call(operator.add, first, second), map(t.value, node.input))


def _div(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Div; integers are rounded towards zero."""
    if any(not t.is_float(name) for name in node.input):
        return t.call(torch.div, t.value(node.input[0]), t.value(node.input[1]), rounding_mode="trunc")
    return t.call(operator.truediv, t.operand(node, 0), t.operand(node, 1))


def _unary(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(_UNARY[node.op_type], t.value(node.input[0]))


def _same(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Identity and Dropout, a node of its own: the file's values stay apart."""
    if node.op_type == "Dropout" and np.any(t.constant(node, 2, False)):
        raise Untranslatable("it is in training mode, and draws random numbers")
    return t.call_module(node, nn.Identity(), t.value(node.input[0]))


def _cast(t: Translator, node: onnx.NodeProto) -> fx.Node:
    kind = onnx.helper.tensor_dtype_to_np_dtype(attributes_of(node)["to"])
    return t.call("to", t.value(node.input[0]), getattr(torch, str(kind)))


def _clip(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Clip: a rectifier where it is one."""
    attributes = attributes_of(node)
    given = [attributes.get(name, t.constant(node, at)) for at, name in ((1, "min"), (2, "max"))]
    bounds = [None if each is None else np.asarray(each).item() for each in given]
    low, high = (None if each is None or abs(each) > _MOST else each for each in bounds)
    source = t.value(node.input[0])
    if low == 0 and high in (None, 6.0):
        return t.call(F.relu6 if high else torch.relu, source)
    return source if low is None and high is None else t.call(torch.clamp, source, low, high)


def _hard_sigmoid(t: Translator, node: onnx.NodeProto) -> fx.Node:
    attributes, source = attributes_of(node), t.value(node.input[0])
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if offset == 0.5 and abs(slope - 1 / 6) < 1e-6:
        return t.call(F.hardsigmoid, source)
    return t.call(torch.clamp, t.call(operator.add, t.call(operator.mul, source, slope), offset), 0.0, 1.0)


def _leaky_relu(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(F.leaky_relu, t.value(node.input[0]), attributes_of(node).get("alpha", 0.01))


def _elu(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(F.elu, t.value(node.input[0]), attributes_of(node).get("alpha", 1.0))


def _thresholded_relu(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(F.threshold, t.value(node.input[0]), attributes_of(node).get("alpha", 1.0), 0.0)


def _gelu(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(F.gelu, t.value(node.input[0]), approximate=attributes_of(node).get("approximate", "none"))


def _softmax(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Softmax and LogSoftmax; before opset 13 over all axes from the given one on."""
    function = torch.softmax if node.op_type == "Softmax" else torch.log_softmax
    rank, old = len(t.shapes(node.input[0])[0]), t.opset < 13
    axis = attributes_of(node).get("axis", 1 if old else -1) % rank
    source = t.value(node.input[0])
    if t.image_axis(node.input[0]) in range(axis, rank if old else axis + 1):
        raise Untranslatable("it mixes the images")
    if not old or axis == rank - 1 or all(side == 1 for side in t.shapes(node.input[0])[0][axis + 1 :]):
        return t.call(function, source, axis)
    sides = t.shapes(node.input[0])[0][axis:]
    return t.call("unflatten", t.call(function, t.call(torch.flatten, source, axis), axis), axis, sides)


def _reduce(t: Translator, node: onnx.NodeProto) -> fx.Node:
    attributes, axes = attributes_of(node), axes_of(t, node)
    rank = len(t.shapes(node.input[0])[0])
    if not axes and attributes.get("noop_with_empty_axes"):
        return t.call_module(node, nn.Identity(), t.value(node.input[0]))
    over = [axis % rank for axis in axes] if axes else list(range(rank))
    if t.image_axis(node.input[0]) in over:
        raise Untranslatable("it mixes the images")
    return t.call(_REDUCTIONS[node.op_type], t.value(node.input[0]), tuple(over), bool(attributes.get("keepdims", 1)))


def _arg_max(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """ArgMax, the first of several."""
    attributes = attributes_of(node)
    if attributes.get("select_last_index"):
        raise Untranslatable("it selects the last of several")
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    return t.call(torch.argmax, t.value(node.input[0]), axis, keep)


def _einsum(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(torch.einsum, attributes_of(node)["equation"], *map(t.value, node.input))


def _where(t: Translator, node: onnx.NodeProto) -> fx.Node:
    return t.call(torch.where, *map(t.value, node.input))


def _prelu(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """PRelu: max(0, x) + slope min(0, x)."""
    return t.call(_leaky, t.value(node.input[0]), t.value(node.input[1]))


def _leaky(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


OPERATIONS: dict[str, Callable[[Translator, onnx.NodeProto], fx.Node]] = {
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    "ArgMax": _arg_max,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _div,
    "Einsum": _einsum,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Sum": _sum,
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
}
