"""An ONNX graph as a torch graph, node by node, with the file's own names.

Every operation is executed on noise as soon as it is translated, for two numbers of images: shapes are known at once, and a graph that
computes shapes as it runs becomes one that does not. The number of images is free in the result, whatever the file says.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.execution import Env, execute
from practise_deploy.network.onnx_import.known import BATCHES, Array, KnownValues, Shape, Untranslatable
from practise_deploy.network.operators import FILE_NAME

VALUE = "onnx value"
"""The key in a node's meta of the name of the file's value that it is."""
_TRAINED_BY = {"Add", "Mul", "Sub", "Div", "MatMul", "Gemm"}
_MASKING = 1e4
"""Constants as large as this mask values out; they are no weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """Where a weight stands in the file: an input of the node that gives a value.

    shape: that of the constant in the file. transposed: whether the network holds its transpose.
    """

    value: str
    index: int
    shape: Shape
    transposed: bool = False


class Translator:
    """A translation in progress.

    known: the values that no image is needed for. operands: where the weights stand in the file, by state key. layers: the value that
    the file's node of a layer with weights gives, by the module's name.
    """

    def __init__(self, model: onnx.ModelProto, *, opset: int, batch: int | None) -> None:
        """batch: the number of images that the file is for; None for any."""
        self.opset, self.batch = opset, batch
        self.operands: dict[str, tuple[Operand, ...]] = {}
        self.layers: dict[str, str] = {}
        self.graph, self.root = fx.Graph(), nn.Module()
        self.weights = nn.Module()
        self.root.add_module("weights", self.weights)
        initializers = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        self.known = KnownValues(initializers, opset, self._shapes)
        self._readers = _readers(model.graph)
        self._unread = Counter(name for node in model.graph.node for name in node.input)
        self._nodes: dict[str, fx.Node] = {}
        self._shape_of: dict[str, tuple[Shape, ...]] = {}
        self._fused: set[str] = set()
        self._envs: tuple[Env, ...] = tuple({} for _ in BATCHES)
        self._executed = 0

    # Reading operands

    def constant(self, node: onnx.NodeProto, index: int, default: Any = None) -> Any:
        """A constant operand as an array; the default where the node has none.

        Raises: Untranslatable where it is computed.
        """
        name = node.input[index] if index < len(node.input) else ""
        if name and name not in self.known.constants:
            raise Untranslatable(f"its input '{name}' is computed, not constant")
        return self.known.constants[name] if name else default

    def is_constant(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether the node has this operand, and it is a constant."""
        return index < len(node.input) and node.input[index] in self.known.constants

    def shapes(self, name: str) -> tuple[Shape, ...]:
        """A value's shapes for each of `BATCHES`."""
        if name in self.known:
            return tuple(array.shape for array in self.known.of_batches(name))
        return self._shapes(name)

    def image_axis(self, name: str) -> int | None:
        """The first axis whose length depends on the number of images."""
        first, second = self.shapes(name)
        return next((axis for axis, sides in enumerate(zip(first, second, strict=True)) if len({*sides}) > 1), None)

    def operand(self, node: onnx.NodeProto, index: int) -> Any:
        """An operand: a number where it is a constant of one element, a parameter where it may be a weight, else any node."""
        array = self.known.constants.get(node.input[index])
        if array is not None and array.size == 1 and array.dtype.kind in "fiu":
            return array.item()
        if array is not None and node.op_type in _TRAINED_BY and _is_weight(array):
            return self._weight(node, index)
        return self.value(node.input[index])

    def value(self, name: str) -> fx.Node:
        """A value as a node of the graph, made where it is a constant, or repeated for every image."""
        if name in self._nodes:
            return self._nodes[name]
        if name in self.known.constants:
            made = self._buffer(name, self.known.constants[name])
        elif name in self.known.sizes:
            one = self.known.one_image(name)
            made = self.call("repeat", self._buffer(name, one), self.images(), *(1,) * (one.ndim - 1))
        else:
            raise Untranslatable(f"its input '{name}' is nowhere defined")
        self._nodes[name] = made
        return made

    def held(self, node: onnx.NodeProto, array: Array) -> fx.Node:
        """Numbers that a node works with, such as indices, as a buffer."""
        return self._buffer(f"{node.output[0]} numbers", array)

    def images(self, factor: int = 1) -> fx.Node:
        """The number of images, or a multiple of it."""
        start = next(node for node in self.graph.nodes if node.op == "placeholder")
        size = self.call("size", start, 0)
        return size if factor == 1 else self.call(operator.mul, size, factor)

    def only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node that alone reads what this one gives, once; None where there is no such node, or it is an output."""
        readers = self._readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 else None

    # Writing the graph

    def call(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a function, or of a tensor's method by its name."""
        if isinstance(function, str):
            return self.graph.call_method(function, args, kwargs)
        return self.graph.call_function(function, args, kwargs)

    def call_module(self, node: onnx.NodeProto, module: nn.Module, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a module, which is named after the file's node."""
        name = _unused(identifier(node.name or node.output[0]), self.root._modules)
        self.root.add_module(name, module.eval())
        return self.graph.call_module(name, args, kwargs)

    def layer(
        self, node: onnx.NodeProto, module: nn.Module, source: fx.Node, operands: Mapping[str, Operand]
    ) -> fx.Node:
        """A call of a layer with weights. operands: by the names of its state."""
        call = self.call_module(node, module, source)
        self.layers[str(call.target)] = node.output[0]
        self.operands |= {f"{call.target}.{name}": (operand,) for name, operand in operands.items()}
        return call

    def fuse(self, reader: onnx.NodeProto, made: fx.Node) -> None:
        """Let a node of the graph be what the only reader of a node of the file gives, which is not translated any more."""
        self._fused.add(reader.output[0])
        self._bind(reader.output[0], made)

    def add_input(self, name: str, samples: tuple[Tensor, ...]) -> fx.Node:
        """The input. samples: noise for each of `BATCHES`."""
        placeholder = self.graph.placeholder("input")
        for env, sample in zip(self._envs, samples, strict=True):
            env[placeholder.name] = sample
        self._shape_of[placeholder.name] = tuple(tuple(sample.shape) for sample in samples)
        self._bind(name, placeholder)
        self._executed = 1
        return placeholder

    def rebind(self, name: str, made: fx.Node) -> None:
        """Let another node be a value of the file from now on."""
        self._nodes[name].meta.pop(VALUE, None)
        self._bind(name, made)
        self._execute()

    def take(self, node: onnx.NodeProto, operation: Callable[[Translator, onnx.NodeProto], Any]) -> None:
        """Take one node of the file into the graph. operation: makes it, or a tuple of what it gives.

        Raises: InputError.
        """
        if node.output[0] in self._fused:
            return
        before = len(self.graph.nodes)
        try:
            if self.known.can_fold(node):
                self.known.fold(node)
                return
            made = operation(self, node)
            for name, value in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
                self._bind(name, value)
            made_for_it = list(self.graph.nodes)[before:]
            for new in made_for_it:
                new.meta["nn_module_stack"] = _scope(node)
                new.meta[FILE_NAME] = node.name or node.output[0]
            self._execute()
            self._forget(node, made_for_it)
        except Exception as error:  # whatever an operator's arguments make torch raise
            if lacks_memory(error) or isinstance(error, InputError):
                raise
            raise _untranslatable(node, error) from error

    def finished(self, outputs: list[str]) -> fx.GraphModule:
        """The network, with these values as its outputs."""
        values = tuple(self.value(name) for name in outputs)
        self.graph.output(values[0] if len(values) == 1 else values)
        network = fx.GraphModule(self.root, self.graph)
        network.graph.eliminate_dead_code()
        network.delete_all_unused_submodules()
        network.recompile()
        return network.eval()

    def _bind(self, name: str, made: fx.Node) -> None:
        if name:
            self._nodes[name] = made
            made.meta.setdefault(VALUE, name)

    def _shapes(self, name: str) -> tuple[Shape, ...]:
        return self._shape_of[self._nodes[name].name]

    def _weight(self, node: onnx.NodeProto, index: int) -> fx.Node:
        """A constant operand as a parameter, which all nodes of the file that read it share."""
        name, array = node.input[index], self.known.constants[node.input[index]]
        path = f"weights.{identifier(name)}"
        if path not in self.operands:
            self.weights.register_parameter(identifier(name), nn.Parameter(tensor_of(array)))
            self._nodes[name] = self.graph.get_attr(path)
        operand = Operand(value=node.output[0], index=index, shape=array.shape)
        self.operands[path] = (*self.operands.get(path, ()), operand)
        return self._nodes[name]

    def _buffer(self, name: str, array: Array) -> fx.Node:
        attribute = _unused(identifier(name), {**self.weights._buffers, **self.weights._parameters})
        self.weights.register_buffer(attribute, tensor_of(array))
        return self.graph.get_attr(f"weights.{attribute}")

    def _execute(self) -> None:
        """Compute what was added to the graph since the last call."""
        nodes = list(self.graph.nodes)
        with torch.no_grad():
            for node in nodes[self._executed :]:
                for env in self._envs:
                    env[node.name] = execute(self.root, node, env)
                results = [env[node.name] for env in self._envs]
                self._shape_of[node.name] = tuple(tuple(getattr(result, "shape", ())) for result in results)
        self._executed = len(nodes)

    def _forget(self, node: onnx.NodeProto, made_for_it: list[fx.Node]) -> None:
        """Free what no other node of the file reads."""
        self._unread.subtract(node.input)
        read_by_others = {made for name, made in self._nodes.items() if self._unread[name] > 0}
        for each in (*made_for_it, *(self._nodes[name] for name in node.input if name in self._nodes)):
            if each not in read_by_others and each.op != "placeholder":
                for env in self._envs:
                    env.pop(each.name, None)


def identifier(name: str) -> str:
    """A name of the file as one of Python."""
    return re.sub(r"\W", "_", name).strip("_") or "value"


def tensor_of(array: Array) -> Tensor:
    """A copy of an array."""
    return torch.from_numpy(np.array(array))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes, texts as such."""
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _unused(name: str, taken: Container[str]) -> str:
    """The name, with a number behind it where it is taken."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
    return next(each for each in numbered if each not in taken)


def _is_weight(array: Array) -> bool:
    """Whether a constant may be a trained weight, and no mask."""
    return array.dtype == np.float32 and array.size > 1 and bool(np.abs(array).max() < _MASKING)


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read every value, once for each time that they do; an output of the graph is read by what is no node."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for output in graph.output:
        readers.setdefault(output.name, []).extend([onnx.NodeProto()] * 2)
    return readers


def _scope(node: onnx.NodeProto) -> dict[str, tuple[str, str]]:
    """The module that a node was in, by its name, in the form of torch's tracers."""
    path, _, _ = node.name.rpartition("/")
    return {path: (path, "residual unit")} if path else {}


def _untranslatable(node: onnx.NodeProto, error: Exception) -> InputError:
    where = f"{node.op_type} '{node.name or node.output[0]}'"
    return InputError(
        f"the node {where} has no counterpart in torch: {first_line(error)}",
        remedy="give the network's Python as FILE.py:FUNCTION, or export it again without this operator",
    )
