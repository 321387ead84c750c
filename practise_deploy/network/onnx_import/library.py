"""Operators that are rare in networks with residual units, as the package onnx2torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from torch import fx

from practise_backends.errors import EnvironmentProblem
from practise_deploy.network.onnx_import.known import Untranslatable
from practise_deploy.network.onnx_import.nodes import freeze
from practise_deploy.network.onnx_import.translator import Translator


def by_library(t: Translator, node: onnx.NodeProto) -> fx.Node:
    """A node as a module of onnx2torch; its constants are not trained.

    Raises: EnvironmentProblem where the package is missing; Untranslatable where it lacks the operator.
    """
    converters = _converters(node.op_type)
    graph = converters["OnnxGraph"](_alone(t, node))
    converter = _converter(converters["get_converter"], node.op_type, t.opset)
    module, mapping = converter(next(iter(graph.nodes.values())), graph)
    arguments = [t.value(name) if name else None for name in mapping.inputs]
    freeze(module)
    return t.call_module(node, module, *arguments)


def _converter(get_converter: Callable[..., Any], operator: str, opset: int) -> Callable[..., Any]:
    """That of an opset, else of the newest before: what an operator computes is compared with ONNX Runtime afterwards."""
    for version in range(opset, 0, -1):
        try:
            return get_converter(domain="", operation_type=operator, version=version)
        except NotImplementedError:
            continue
    raise Untranslatable(f"onnx2torch does not know {operator} of opset {opset} either")


def _converters(operator: str) -> dict[str, Any]:
    try:
        from onnx2torch.node_converters.registry import get_converter
        from onnx2torch.onnx_graph import OnnxGraph
    except ImportError:
        raise EnvironmentProblem(
            f"the operator {operator} needs the package onnx2torch, which is not installed",
            remedy='pip install "practise-deploy[onnx]"',
        ) from None
    return {"get_converter": get_converter, "OnnxGraph": OnnxGraph}


def _alone(t: Translator, node: onnx.NodeProto) -> onnx.GraphProto:
    """A graph of this node alone, with its constants."""
    constants = {name: t.known.constants[name] for name in node.input if name in t.known.constants}
    computed = [name for name in dict.fromkeys(node.input) if name and name not in constants]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, t.shapes(name)[0]) for name in computed]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    return onnx.helper.make_graph([node], "node", inputs, outputs, weights)
