"""Padding: how much of it, and where."""

from __future__ import annotations

import math
from typing import Any

import onnx
from torch import fx, nn
from torch.nn import functional as F

from practise_deploy.network.onnx_import.translator import Translator


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


def is_symmetric(pads: list[int]) -> bool:
    """Whether every side has as much before it as behind it."""
    return pads[: len(pads) // 2] == pads[len(pads) // 2 :]


def padded(t: Translator, node: onnx.NodeProto, source: fx.Node, pads: list[int], value: float = 0.0) -> fx.Node:
    """A value with padding around it. pads: all starts before all ends, of the last axes."""
    half = len(pads) // 2
    sides = [amount for pair in zip(pads[:half][::-1], pads[half:][::-1], strict=True) for amount in pair]
    if value == 0 and len(sides) == 4:
        return t.call_module(node, nn.ZeroPad2d(tuple(sides)), source)  # type: ignore[arg-type]
    return t.call(F.pad, source, sides, "constant", value)
