"""Nodes of an ONNX graph: what they are called, what they hold, and who reads them."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.onnx_graph import captured
from practise_deploy.network.onnx_import.known import Array, Shape

_MASKING = 1e4
"""Constants as large as this mask values out; they are no weights."""
SCOPES, KINDS = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
"""Keys of the metadata in which torch's exporter keeps the modules that a node was in, and their classes."""
Readers = dict[str, list[onnx.NodeProto]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """Where a weight stands in the file: an input of the node that gives a value.

    shape: that of the constant in the file. transposed: whether the network holds its transpose.
    """

    value: str
    index: int
    shape: Shape
    transposed: bool = False


def identifier(name: str) -> str:
    """A name of the file as one of Python."""
    return re.sub(r"\W", "_", name).strip("_") or "value"


def unused(name: str, taken: Container[str]) -> str:
    """The name, with a number behind it where it is taken."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
    return next(each for each in numbered if each not in taken)


def tensor_of(array: Array) -> Tensor:
    """A copy of an array."""
    return torch.from_numpy(np.array(array))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes, texts as such."""
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def label_of(node: onnx.NodeProto) -> str:
    """A node's name, else that of the first value that it gives."""
    return node.name or next((name for name in node.output if name), "")


def freeze(module: nn.Module) -> None:
    """Let no weight be trained, as none is tied to its place in the file."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                del part._parameters[name]
                part.register_buffer(name, weight.detach())


def is_weight(array: Array) -> bool:
    """Whether a constant may be a trained weight, and no mask."""
    return array.dtype == np.float32 and array.size > 1 and bool(np.abs(array).max() < _MASKING)


def readers_of(graph: onnx.GraphProto) -> Readers:
    """The nodes that read every value, once for each time that they do; an output of the graph is read by what is no node."""
    readers: Readers = {}
    for node in graph.node:
        for name in reads_of(node):
            readers.setdefault(name, []).append(node)
    for output in graph.output:
        readers.setdefault(output.name, []).extend([onnx.NodeProto()] * 2)
    return readers


def reads_of(node: onnx.NodeProto) -> list[str]:
    """What a node reads, and what the graphs in it do."""
    return [*node.input, *captured(node)]


def scope_of(node: onnx.NodeProto) -> dict[str, tuple[str, str]]:
    """The modules that a node was in, in the form of torch's tracers: as its exporter's metadata say, else by the node's own name."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    try:
        scopes, kinds = (ast.literal_eval(metadata[key]) for key in (SCOPES, KINDS))
        modules = list(zip(scopes, kinds, strict=True))[1:-1]
        return {path: (path, str(kind).rpartition(".")[2]) for path, kind in modules if path}
    except (KeyError, ValueError, SyntaxError, TypeError):
        path, _, _ = node.name.rpartition("/")
        return {path: (path, "residual unit")} if path else {}


def untranslatable(node: onnx.NodeProto, error: Exception) -> InputError:
    """The refusal of a node."""
    return InputError(
        f"the node {node.op_type} '{label_of(node)}' has no counterpart in torch: {first_line(error)}",
        remedy="give the network's Python as FILE.py:FUNCTION, or export it again without this operator",
    )
