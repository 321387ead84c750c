"""Nodes with weights as torch's layers, whose weights stay tied to their places in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import fx, nn

from practise_deploy.network.onnx_import.known import Array, Untranslatable
from practise_deploy.network.onnx_import.nodes import Operand, attributes_of, tensor_of
from practise_deploy.network.onnx_import.padding import is_symmetric, padded, padding_of
from practise_deploy.network.onnx_import.translator import Translator

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@dataclass(frozen=True, slots=True)
class _Bias:
    """A bias, and where it stands in the file."""

    array: Array
    operand: Operand


def convolution(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Conv. A constant added for each channel is its bias; padding that is not symmetric becomes a layer of its own."""
    weight, attributes = t.constant(node, 1), attributes_of(node)
    rank, groups = weight.ndim - 2, attributes.get("group", 1)
    strides, dilations = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    reach = [dilation * (side - 1) + 1 for dilation, side in zip(dilations, weight.shape[2:], strict=True)]
    pads, source = padding_of(attributes, t.shapes(node.input[0])[0][2:], reach, strides), t.value(node.input[0])
    if not is_symmetric(pads):
        source, pads = padded(t, node, source, pads), [0] * 2 * rank
    bias = _own_bias(t, node) or _bias_of_reader(t, node, weight.shape[0], axis=-1 - rank, rank=weight.ndim)
    layer = _CONVOLUTIONS[rank](
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        stride=strides,
        padding=pads[:rank],
        dilation=dilations,
        groups=groups,
        bias=bias is not None,
    )
    return _with_sum_behind(t, node, t.layer(node, layer, source, _filled(node, layer, weight, bias)))


def transposed_convolution(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """ConvTranspose. Padding that is not symmetric is cut off behind it."""
    weight, bias, attributes = t.constant(node, 1), _own_bias(t, node), attributes_of(node)
    rank, groups = weight.ndim - 2, attributes.get("group", 1)
    pads, extra = _transposed_padding(t, node, weight, attributes)
    symmetric = is_symmetric(pads)
    layer = _TRANSPOSED[rank](
        weight.shape[0],
        weight.shape[1] * groups,
        weight.shape[2:],
        stride=attributes.get("strides", 1),
        padding=pads[:rank] if symmetric else 0,
        output_padding=extra,
        groups=groups,
        bias=bias is not None,
        dilation=attributes.get("dilations", 1),
    )
    made = t.layer(node, layer, t.value(node.input[0]), _filled(node, layer, weight, bias))
    if symmetric:
        return made
    return padded(t, node, made, [-pad for pad in pads])


def _transposed_padding(
    t: Translator, node: onnx.NodeProto, weight: Array, attributes: dict[str, Any]
) -> tuple[list[int], list[int]]:
    """The padding that is cut off, all starts before all ends, and what is added at the ends."""
    rank, sides = weight.ndim - 2, t.shapes(node.input[0])[0][2:]
    kind, extra = attributes.get("auto_pad", "NOTSET"), list(attributes.get("output_padding", [0] * rank))
    strides, dilations = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    same = [side * stride for side, stride in zip(sides, strides, strict=True)]
    asked = attributes.get("output_shape", same if kind.startswith("SAME") else None)
    if asked is None:
        return list(attributes.get("pads", [0] * 2 * rank) if kind == "NOTSET" else [0] * 2 * rank), extra
    starts, ends = [], []
    for axis, size in enumerate(asked[-rank:]):
        reach = dilations[axis] * (weight.shape[2 + axis] - 1) + 1
        total = max(0, strides[axis] * (sides[axis] - 1) + extra[axis] + reach - size)
        starts.append(total // 2 if kind == "SAME_UPPER" else total - total // 2)
        ends.append(total - starts[-1])
    return starts + ends, extra


def gemm(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Gemm, as a linear layer where it is one."""
    attributes = attributes_of(node)
    factors, transposed = [attributes.get(name, 1.0) for name in ("alpha", "beta")], attributes.get("transB", 0)
    if attributes.get("transA") or factors != [1.0, 1.0] or not t.is_constant(node, 1):
        return _product(t, node)
    weight = t.constant(node, 1)
    outputs, has_bias = weight.shape[0 if transposed else 1], len(node.input) > 2 and node.input[2]
    if has_bias and not (t.is_constant(node, 2) and t.constant(node, 2).shape in ((outputs,), (1, outputs))):
        return _product(t, node)
    return _linear(t, node, weight, _own_bias(t, node), transposed=not transposed)


def _product(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Gemm by its definition: alpha A' B' + beta C."""
    attributes = attributes_of(node)
    first, second = (t.value(node.input[index]) for index in (0, 1))
    first = t.call("transpose", first, 0, 1) if attributes.get("transA") else first
    second = t.call("transpose", second, 0, 1) if attributes.get("transB") else second
    made = t.call(torch.mul, t.call(torch.matmul, first, second), attributes.get("alpha", 1.0))
    if len(node.input) < 3 or not node.input[2]:
        return made
    return t.call(torch.add, made, t.call(torch.mul, t.value(node.input[2]), attributes.get("beta", 1.0)))


def matmul(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """MatMul, as a linear layer where its second operand is a constant matrix; a constant added behind it is its bias."""
    if not t.is_constant(node, 1) or t.constant(node, 1).ndim != 2:
        return t.call(torch.matmul, t.operand(node, 0), t.operand(node, 1))
    weight = t.constant(node, 1)
    bias = _bias_of_reader(t, node, weight.shape[1], axis=-1, rank=len(t.shapes(node.input[0])[0]))
    return _with_sum_behind(t, node, _linear(t, node, weight, bias, transposed=True))


def _linear(t: Translator, node: onnx.NodeProto, weight: Array, bias: _Bias | None, *, transposed: bool) -> fx.Node:
    """A linear layer. transposed: whether the weight is [inputs, outputs], as against torch's."""
    outputs, inputs = weight.shape[::-1] if transposed else weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    return t.layer(node, layer, t.value(node.input[0]), _filled(node, layer, weight, bias, transposed=transposed))


def batch_norm(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """BatchNormalization with its own statistics."""
    values = [t.constant(node, index) for index in range(1, 5)]
    attributes, shape = attributes_of(node), t.shapes(node.input[0])[0]
    if attributes.get("training_mode") or len([name for name in node.output if name]) > 1:
        raise Untranslatable("it is in training mode")
    layer = _NORMS[len(shape)](len(values[0]), eps=attributes.get("epsilon", 1e-5))
    operands = {}
    for index, (name, array) in enumerate(zip(("weight", "bias", "running_mean", "running_var"), values, strict=True)):
        getattr(layer, name).data = tensor_of(array).float()
        operands[name] = Operand(value=node.output[0], index=index + 1, shape=array.shape)
    return t.layer(node, layer, t.value(node.input[0]), operands)


def layer_norm(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """LayerNormalization."""
    attributes, shape = attributes_of(node), t.shapes(node.input[0])[0]
    weight, bias = t.constant(node, 1), _own_bias(t, node)
    sides = shape[attributes.get("axis", -1) :]
    if weight.shape != sides or (bias is not None and bias.array.shape != sides):
        raise Untranslatable(f"its scale is of shape {weight.shape}, for {sides}")
    layer = nn.LayerNorm(sides, eps=attributes.get("epsilon", 1e-5), bias=bias is not None)
    return t.layer(node, layer, t.value(node.input[0]), _filled(node, layer, weight, bias))


def _filled(
    node: onnx.NodeProto, layer: Any, weight: Array, bias: _Bias | None, *, transposed: bool = False
) -> dict[str, Operand]:
    """Give a layer its weights. The result says where they stand in the file, by the names of the layer's state."""
    operands = {"weight": Operand(value=node.output[0], index=1, shape=weight.shape, transposed=transposed)}
    layer.weight.data = tensor_of(weight.T if transposed else weight).float()
    if bias is not None:
        layer.bias.data = tensor_of(bias.array).reshape(layer.bias.shape).float()
        operands["bias"] = bias.operand
    return operands


def _own_bias(t: Translator, node: onnx.NodeProto) -> _Bias | None:
    """A node's third operand."""
    array = t.constant(node, 2)
    return None if array is None else _Bias(array, Operand(value=node.output[0], index=2, shape=array.shape))


def _bias_of_reader(t: Translator, node: onnx.NodeProto, outputs: int, *, axis: int, rank: int) -> _Bias | None:
    """The constant that the only reader adds along the axis of the outputs. axis: from the end. rank: of what is given."""
    reader = t.only_reader(node)
    if reader is None or reader.op_type != "Add":
        return None
    index = 1 - list(reader.input).index(node.output[0])
    array = t.constant(reader, index) if t.is_constant(reader, index) else None
    if array is None or array.size != outputs or not -axis <= array.ndim <= rank or array.shape[axis] != outputs:
        return None
    return _Bias(array, Operand(value=reader.output[0], index=index, shape=array.shape))


def _with_sum_behind(t: Translator, node: onnx.NodeProto, made: fx.Node) -> fx.Node:
    """The layer, standing for the sum behind it too where its bias is from there."""
    bias, reader = t.operands.get(f"{made.target}.bias"), t.only_reader(node)
    if reader is not None and bias and bias[0].value == reader.output[0]:
        t.fuse(reader, made)
    return made
