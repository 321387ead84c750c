"""Nodes with weights as torch's layers, whose weights stay tied to their places in the file."""

from __future__ import annotations

import math
from typing import Any

import onnx
import torch
from torch import fx, nn
from torch.nn import functional as F

from practise_deploy.network.onnx_import.known import Array, Untranslatable
from practise_deploy.network.onnx_import.translator import Operand, Translator, attributes_of, tensor_of

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def convolution(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Conv. A constant added for each channel is its bias; padding that is not symmetric becomes a layer of its own."""
    weight, attributes = t.constant(node, 1), attributes_of(node)
    rank = weight.ndim - 2
    strides, dilations = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    reach = [dilation * (side - 1) + 1 for dilation, side in zip(dilations, weight.shape[2:], strict=True)]
    pads = padding_of(attributes, t.shapes(node.input[0])[0][2:], reach, strides)
    source, symmetric = t.value(node.input[0]), pads[:rank] == pads[rank:]
    if not symmetric:
        source = padded(t, node, source, pads)
    bias, bias_operand = _bias(t, node, weight.shape[0], axis=1, rank=weight.ndim)
    groups = attributes.get("group", 1)
    layer = _CONVOLUTIONS[rank](
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        stride=strides,
        padding=pads[:rank] if symmetric else 0,
        dilation=dilations,
        groups=groups,
        bias=bias is not None,
    )
    return _with_bias_of_reader(t, node, _set(t, node, layer, source, weight, bias, bias_operand))


def transposed_convolution(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """ConvTranspose."""
    weight, bias, attributes = t.constant(node, 1), t.constant(node, 2), attributes_of(node)
    rank, groups = weight.ndim - 2, attributes.get("group", 1)
    pads = attributes.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] or attributes.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes:
        raise Untranslatable("it does not pad alike on both sides")
    layer = _TRANSPOSED[rank](
        weight.shape[0],
        weight.shape[1] * groups,
        weight.shape[2:],
        stride=attributes.get("strides", 1),
        padding=pads[:rank],
        output_padding=attributes.get("output_padding", 0),
        groups=groups,
        bias=bias is not None,
        dilation=attributes.get("dilations", 1),
    )
    operand = None if bias is None else Operand(value=node.output[0], index=2, shape=bias.shape)
    return _set(t, node, layer, t.value(node.input[0]), weight, bias, operand)


def gemm(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """Gemm, as a linear layer where it is one."""
    attributes = attributes_of(node)
    factors, transposed = [attributes.get(name, 1.0) for name in ("alpha", "beta")], attributes.get("transB", 0)
    if attributes.get("transA") or factors != [1.0, 1.0] or not t.is_constant(node, 1):
        return _product(t, node, attributes)
    weight, bias = t.constant(node, 1), t.constant(node, 2)
    outputs = weight.shape[0] if transposed else weight.shape[1]
    if bias is not None and bias.size != outputs:
        return _product(t, node, attributes)
    operand = None if bias is None else Operand(value=node.output[0], index=2, shape=bias.shape)
    return _linear(t, node, weight, bias, operand, transposed=not transposed)


def _product(t: Translator, node: onnx.NodeProto, attributes: dict[str, Any]) -> fx.Node:
    """Gemm by its definition: alpha A' B' + beta C."""
    first, second = (t.operand(node, index) for index in (0, 1))
    first = t.call("transpose", first, 0, 1) if attributes.get("transA") else first
    second = t.call("transpose", second, 0, 1) if attributes.get("transB") else second
    product = t.call(torch.mul, t.call(torch.matmul, first, second), attributes.get("alpha", 1.0))
    if len(node.input) < 3 or not node.input[2]:
        return product
    return t.call(torch.add, product, t.call(torch.mul, t.value(node.input[2]), attributes.get("beta", 1.0)))


def matmul(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """MatMul, as a linear layer where its second operand is a constant matrix; a constant added behind it is its bias."""
    if not t.is_constant(node, 1) or t.constant(node, 1).ndim != 2 or t.is_constant(node, 0):
        return t.call(torch.matmul, t.operand(node, 0), t.operand(node, 1))
    weight = t.constant(node, 1)
    return _with_bias_of_reader(t, node, _linear(t, node, weight, *_bias_of_reader(t, node, weight.shape[1], -1)))


def _linear(
    t: Translator,
    node: onnx.NodeProto,
    weight: Array,
    bias: Array | None,
    bias_operand: Operand | None,
    transposed: bool = True,
) -> fx.Node:
    """A linear layer. transposed: whether the weight is [inputs, outputs], as against torch's."""
    shape = weight.T.shape if transposed else weight.shape
    layer = nn.Linear(shape[1], shape[0], bias=bias is not None)
    source = t.value(node.input[0])
    return _set(t, node, layer, source, weight, bias, bias_operand, transposed=transposed)


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
    weight, bias = t.constant(node, 1), t.constant(node, 2)
    sides = shape[attributes.get("axis", -1) :]
    if weight.shape != sides or (bias is not None and bias.shape != sides):
        raise Untranslatable(f"its scale is of shape {weight.shape}, for {sides}")
    layer = nn.LayerNorm(sides, eps=attributes.get("epsilon", 1e-5), bias=bias is not None)
    return _set(
        t,
        node,
        layer,
        t.value(node.input[0]),
        weight,
        bias,
        None if bias is None else Operand(value=node.output[0], index=2, shape=bias.shape),
    )


def _set(
    t: Translator,
    node: onnx.NodeProto,
    layer: Any,
    source: fx.Node,
    weight: Array,
    bias: Array | None,
    bias_operand: Operand | None,
    *,
    transposed: bool = False,
) -> fx.Node:
    """A layer with these weights, tied to their places."""
    operands = {"weight": Operand(value=node.output[0], index=1, shape=weight.shape, transposed=transposed)}
    layer.weight.data = tensor_of(weight.T if transposed else weight)
    if bias is not None and bias_operand is not None:
        layer.bias.data = tensor_of(bias).reshape(layer.bias.shape)
        operands["bias"] = bias_operand
    return t.layer(node, layer, source, operands)


def _bias(t: Translator, node: onnx.NodeProto, outputs: int, axis: int, rank: int) -> tuple[Array | None, Operand | None]:
    """A node's own bias, else what is added behind it, with its place."""
    bias = t.constant(node, 2)
    if bias is not None:
        return bias, Operand(value=node.output[0], index=2, shape=bias.shape)
    return _bias_of_reader(t, node, outputs, axis - rank)


def _bias_of_reader(t: Translator, node: onnx.NodeProto, outputs: int, axis: int) -> tuple[Array | None, Operand | None]:
    """The constant that the only reader adds along the axis of the outputs, with its place. axis: from the end."""
    reader = t.only_reader(node)
    if reader is None or reader.op_type != "Add":
        return None, None
    index = 1 - list(reader.input).index(node.output[0])
    array = t.constant(reader, index) if t.is_constant(reader, index) else None
    if array is None or array.size != outputs or array.ndim < -axis or array.shape[axis] != outputs:
        return None, None
    return array, Operand(value=reader.output[0], index=index, shape=array.shape)


def _with_bias_of_reader(t: Translator, node: onnx.NodeProto, made: fx.Node) -> fx.Node:
    """The layer, standing for the sum behind it too where its bias is from there."""
    bias = t.operands.get(f"{made.target}.bias")
    if bias is not None and bias[0].value != node.output[0]:
        reader = t.only_reader(node)
        assert reader is not None
        t.fuse(reader, made)
    return made


def padding_of(attributes: dict[str, Any], sides: tuple[int, ...], reach: list[int], strides: list[int]) -> list[int]:
    """The padding of every side, all starts before all ends. reach: of the kernel, with its dilation."""
    kind = attributes.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", "VALID"):
        return list(attributes.get("pads", [0] * 2 * len(sides)) if kind == "NOTSET" else [0] * 2 * len(sides))
    starts, ends = [], []
    for side, size, stride in zip(sides, reach, strides, strict=True):
        total = max(0, (math.ceil(side / stride) - 1) * stride + size - side)
        starts.append(total // 2 if kind == "SAME_UPPER" else total - total // 2)
        ends.append(total - starts[-1])
    return starts + ends


def padded(t: Translator, node: onnx.NodeProto, source: fx.Node, pads: list[int], value: float = 0.0) -> fx.Node:
    """A value with padding around it. pads: all starts before all ends, of the last axes."""
    sides = [amount for pair in zip(pads[: len(pads) // 2][::-1], pads[len(pads) // 2 :][::-1], strict=True) for amount in pair]
    if value == 0 and len(sides) == 4:
        return t.call_module(node, nn.ZeroPad2d(tuple(sides)), source)  # type: ignore[arg-type]
    return t.call(F.pad, source, sides, "constant", value)
