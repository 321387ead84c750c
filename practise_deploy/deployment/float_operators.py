"""Which operators of an int8 network stay in float, because 256 levels cannot hold what they give.

- A softmax, and what is added to its scores or scales them: a mask of -1e38 beside scores leaves one level for all of these.
- A layer norm, and the sum that it reads: the streams of transformers hold a few values that are a hundred times the others
  (Bondarenko et al., Understanding and Overcoming the Challenges of Efficient Transformer Quantization, EMNLP 2021).
- What follows the last layers with weights, up to the outputs: boxes in pixels are put beside probabilities there.
- What lies between values in float: the products of matrices are summed in 32 bits and given in float, and a bias, an activation or a sum of such
  values rounds nothing before the next product does.

None of them multiplies by weights, so they cost little time in float (docs/precision.md has what was measured).
"""

from __future__ import annotations

from collections import defaultdict

import onnx

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm")
GIVE_FLOAT = ("MatMul", "Gemm")
"""Layers whose integer products are given in float; convolutions give integers to the next one."""
_LAYERS = (*_WITH_WEIGHTS, "MatMul")
_NORM = "LayerNormalization"


def kept_in_float(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The operators that stay in float, in the graph's order."""
    network = _Graph(graph)
    ends = network.behind_the_last_layers()
    kept, in_float = list[onnx.NodeProto](), set[str]()
    for node in graph.node:
        if (
            _is_of_softmax(network, node)
            or _is_of_norm(network, node)
            or id(node) in ends
            or network.reads_only(in_float, node)
        ):
            kept.append(node)
            in_float |= {*node.output}
        elif node.op_type in GIVE_FLOAT:
            in_float |= {*node.output}
    return kept


def _is_of_softmax(network: _Graph, node: onnx.NodeProto) -> bool:
    reads_no_products = node.op_type != "MatMul" and not network.has_weights(node)
    return node.op_type == "Softmax" or (reads_no_products and "Softmax" in network.readers(node))


def _is_of_norm(network: _Graph, node: onnx.NodeProto) -> bool:
    return node.op_type == _NORM or (node.op_type == "Add" and _NORM in network.readers(node))


class _Graph:
    """A graph by its values: who makes them, who reads them, and which are constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._outputs = [value.name for value in graph.output]
        self._maker = {name: node for node in graph.node for name in node.output if name}
        self._constants = {tensor.name for tensor in graph.initializer}
        self._constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
        self._readers = defaultdict[str, set[str]](set)
        for node in graph.node:
            for name in node.input:
                self._readers[name].add(node.op_type)

    def readers(self, node: onnx.NodeProto) -> set[str]:
        """The kinds of operators that read what a node gives."""
        return set[str]().union(*(self._readers[name] for name in node.output))

    def has_weights(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies by constants, as a layer does."""
        return node.op_type in _WITH_WEIGHTS or (node.op_type == "MatMul" and bool(self._constants & {*node.input}))

    def reads_only(self, values: set[str], node: onnx.NodeProto) -> bool:
        """Whether it is no layer, and all that varies of what it reads is among these values."""
        varying = {name for name in node.input if name} - self._constants
        return bool(varying) and varying <= values and node.op_type not in _LAYERS

    def behind_the_last_layers(self) -> set[int]:
        """The ids of the nodes from the outputs back to the nearest layers with weights, and to sums that such a layer writes into."""
        todo, found = list(self._outputs), dict[int, onnx.NodeProto]()
        while todo:
            node = self._maker.get(todo.pop())
            if node is None or id(node) in found or self.has_weights(node):
                continue
            found[id(node)] = node
            todo += [] if self._is_residual(node) else node.input
        return {*found}

    def _is_residual(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Add" and not self._constants & {*node.input} and any(map(self._is_of_layer, node.input))

    def _is_of_layer(self, value: str) -> bool:
        """Whether a layer with weights gives a value, its bias included."""
        node = self._maker.get(value)
        if node is None or self.has_weights(node):
            return node is not None
        varying = [name for name in node.input if name not in self._constants]
        return node.op_type == "Add" and len(varying) == 1 and self._is_of_layer(varying[0])
