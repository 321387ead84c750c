"""Operators in the forms that ONNX Runtime computes in integers; no number changes, and no other name than theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from practise_deploy.network.graph.onnx_graph import captured

Opsets = Sequence[onnx.OperatorSetIdProto]


def for_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with padding in its convolutions, and products of matrices that have integer kernels."""
    changed = onnx.shape_inference.infer_shapes(model)
    before = _readers(changed.graph)
    _pad_in_convolutions(changed.graph, changed.opset_import)
    _split_or_join_biases(changed.graph)
    _remove_unread(changed.graph, before)
    return changed


def _pad_in_convolutions(graph: onnx.GraphProto, opsets: Opsets) -> None:
    """Zeros around a convolution's input become its own padding: a Pad whose amounts a file computes would run in float."""
    maker = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    for node in graph.node:
        pad = maker.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad" or readers[pad.output[0]] != 1:
            continue
        amounts = _padding_of(pad, maker, graph, opsets)
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if amounts is None or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        own = attributes.get("pads", [0] * (len(amounts) - 4))
        kept = [each for each in node.attribute if each.name not in ("pads", "auto_pad")]
        del node.attribute[:]
        sides = [*amounts[2 : len(amounts) // 2], *amounts[len(amounts) // 2 + 2 :]]
        node.attribute.extend([*kept, helper.make_attribute("pads", [a + b for a, b in zip(own, sides, strict=True)])])
        node.input[0] = pad.input[0]


def _padding_of(
    pad: onnx.NodeProto, maker: dict[str, onnx.NodeProto], graph: onnx.GraphProto, opsets: Opsets
) -> list[int] | None:
    """What is put around each axis, all starts before all ends; None where it is no zeros, or depends on the images."""
    mode = next((each.s for each in pad.attribute if each.name == "mode"), b"constant")
    inputs = [*pad.input, "", ""]
    amounts, value = (_constant(name, maker, graph, opsets) for name in (inputs[1], inputs[2]))
    if mode != b"constant" or amounts is None or len(pad.input) > 3 or (inputs[2] and (value is None or value.any())):
        return None
    found = [int(amount) for amount in amounts.ravel()]
    half = len(found) // 2
    around_images = half > 2 and not any(found[:2] + found[half : half + 2])
    return found if around_images and min(found) >= 0 else None


def _constant(name: str, maker: dict[str, onnx.NodeProto], graph: onnx.GraphProto, opsets: Opsets) -> np.ndarray | None:
    """A value that does not depend on any input."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    todo, used, nodes = [name], list[onnx.TensorProto](), set[int]()
    while todo:
        each = todo.pop()
        if each in constants:
            used.append(constants[each])
        elif each in maker:
            nodes.add(id(maker[each]))
            todo += [value for value in maker[each].input if value]
        else:
            return None
    output = onnx.ValueInfoProto(name=name)
    part = helper.make_graph([node for node in graph.node if id(node) in nodes], "constant", [], [output], used)
    (value,) = ReferenceEvaluator(helper.make_model(part, opset_imports=opsets)).run([name], {})
    return np.asarray(value)


def _split_or_join_biases(graph: onnx.GraphProto) -> None:
    """Products of matrices with their biases.

    ONNX Runtime joins a product of fixed shape with a bias of [n] to one operator, for whose integers it has no kernel with a bias in float: it would
    multiply in float32. So a bias behind a product of more than two axes becomes [1, 1, n], which stays apart, and a product of two axes with its bias
    becomes a Gemm, whose bias becomes integers.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    axes = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    readers = _readers(graph)
    for node in [node for node in graph.node if node.op_type == "Add" and len(node.input) == 2]:
        product, bias = sorted(node.input, key=lambda name: name not in products)
        if product not in products or bias not in constants or len(constants[bias].dims) != 1 or product not in axes:
            continue
        if axes[product] > 2:
            row = numpy_helper.from_array(numpy_helper.to_array(constants[bias])[None, None], f"{bias}, apart")
            if row.name not in constants:
                constants[row.name] = graph.initializer.add()
                constants[row.name].CopyFrom(row)
            node.input[:] = [product, row.name]
        elif axes[product] == 2 and products[product].input[1] in constants and readers[product] == 1:
            node.op_type, node.input[:] = "Gemm", [*products[product].input, bias]
            graph.node.remove(products[product])


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each value is read, outputs and the bodies of loops included."""
    readers = Counter(name for node in graph.node for name in (*node.input, *captured(node)))
    readers.update(value.name for value in graph.output)
    return readers


def _remove_unread(graph: onnx.GraphProto, before: Counter[str]) -> None:
    """Nodes and constants that nothing reads any more; what nothing read before stays, since it may name the ends of a block."""
    readers = _readers(graph)
    for node in reversed(list(graph.node)):
        if any(before[name] for name in node.output) and not any(readers[name] for name in node.output):
            readers.subtract([*node.input, *captured(node)])
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if before[tensor.name] and not readers[tensor.name]]:
        graph.initializer.remove(tensor)
