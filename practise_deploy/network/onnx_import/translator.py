"""An ONNX graph as a torch graph, node by node, with the file's own names.

Every operation is executed on noise as soon as it is translated, for two numbers of images: shapes are known at once, and a graph that
computes shapes as it runs becomes one that does not. The number of images is free in the result, whatever the file says.
"""

from __future__ import annotations

import contextlib
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from practise_backends.errors import Refusal, lacks_memory
from practise_deploy.network.graph.execution import Env, execute
from practise_deploy.network.graph.operators import FILE_NAME
from practise_deploy.network.onnx_import.known import BATCHES, Array, KnownValues, Shape, Untranslatable
from practise_deploy.network.onnx_import.nodes import (
    Operand,
    freeze,
    identifier,
    is_weight,
    label_of,
    readers_of,
    reads_of,
    scope_of,
    tensor_of,
    untranslatable,
    unused,
)

VALUE = "onnx value"
"""The key in a node's meta of the name of the file's value that it is."""
_TRAINED_BY = {"Add", "Mul", "Sub", "Div", "MatMul", "Gemm"}


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
        self._readers = readers_of(model.graph)
        self._unread = Counter(name for node in model.graph.node for name in reads_of(node))
        self._nodes: dict[str, fx.Node] = {}
        self._weights: dict[str, fx.Node] = {}
        self._shape_of: dict[str, tuple[Shape, ...]] = {}
        self._fused: set[str] = set()
        self._given: set[str] = set()  # inputs, and what is computed of them without weights
        self._branches = 0  # that are being taken, each in the one before
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

    def is_float(self, name: str) -> bool:
        """Whether a value holds floats."""
        if name in self.known:
            return self.known.of_batches(name)[0].dtype.kind == "f"
        return bool(self._envs[0][self._nodes[name].name].is_floating_point())

    def image_axis(self, name: str) -> int | None:
        """The first axis whose length depends on the number of images."""
        first, second = self.shapes(name)
        return next((axis for axis, sides in enumerate(zip(first, second, strict=True)) if len({*sides}) > 1), None)

    def operand(self, node: onnx.NodeProto, index: int) -> Any:
        """An operand: a number where it is a constant of one element, a parameter where it may be a weight, else any node."""
        array = self.known.constants.get(node.input[index])
        if array is not None and self._is_number(node, array):
            return array.item()
        if array is not None and node.op_type in _TRAINED_BY and is_weight(array) and self._may_train(node):
            return self._weight(node, index)
        return self.value(node.input[index])

    def _may_train(self, node: onnx.NodeProto) -> bool:
        """Whether a node's constants may be weights: not within a branch, nor where it just scales and shifts what is given."""
        computed = [name for name in node.input if name not in self.known]
        return not self._branches and not self._given.issuperset(computed)

    def _is_number(self, node: onnx.NodeProto, array: Array) -> bool:
        """Whether a constant of one element is nothing else to a node: it gives its result no more axes."""
        others = [name for name in node.input if name not in self.known]
        if array.size != 1 or array.dtype.kind not in "fiu" or node.op_type == "MatMul":
            return False
        return bool(others) and array.ndim <= max(len(self.shapes(name)[0]) for name in others)

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
        name = unused(identifier(label_of(node)), self.root._modules)
        self.root.add_module(name, module.eval())
        return self.graph.call_module(name, args, kwargs)

    def layer(
        self, node: onnx.NodeProto, module: nn.Module, source: fx.Node, operands: Mapping[str, Operand]
    ) -> fx.Node:
        """A call of a layer with weights. operands: by the names of its state."""
        call = self.call_module(node, module, source)
        if self._branches:
            freeze(module)
            return call
        self.layers[str(call.target)] = node.output[0]
        self.operands |= {f"{call.target}.{name}": (operand,) for name, operand in operands.items()}
        return call

    def fuse(self, reader: onnx.NodeProto, made: fx.Node) -> None:
        """Let a node of the graph be what the only reader of a node of the file gives, which is not translated any more."""
        self._fused.add(reader.output[0])
        self._bind(reader.output[0], made)

    def add_input(self, samples: tuple[Tensor, ...]) -> fx.Node:
        """The input. samples: noise for each of `BATCHES`."""
        placeholder = self.graph.placeholder("input")
        for env, sample in zip(self._envs, samples, strict=True):
            env[placeholder.name] = sample
        self._shape_of[placeholder.name] = tuple(tuple(sample.shape) for sample in samples)
        self._executed = 1
        return placeholder

    @contextlib.contextmanager
    def branch(self, graph: onnx.GraphProto) -> Iterator[None]:
        """While a graph in a node is translated: what is in it is neither trained nor cut."""
        self.known.constants.update({each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer})
        self._branches += 1
        try:
            yield
        finally:
            self._branches -= 1

    def bind(self, name: str, made: fx.Node) -> None:
        """Let a node be an input of the file."""
        self._given.add(name)
        self._bind(name, made)
        self._execute()

    def take(self, node: onnx.NodeProto, operation: Callable[[Translator, onnx.NodeProto], Any]) -> None:
        """Take one node of the file into the graph. operation: makes it, or a tuple of what it gives.

        Raises: InputError, EnvironmentProblem.
        """
        if node.output[0] in self._fused:
            return
        before = len(self.graph.nodes)
        try:
            if self.known.can_fold(node):
                self.known.fold(node)
                return
            weights = len(self.operands)
            made = operation(self, node)
            if len(self.operands) == weights and self._given.issuperset(n for n in node.input if n not in self.known):
                self._given.update(node.output)
            for name, value in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
                self._bind(name, value)
            made_for_it = list(self.graph.nodes)[before:]
            for new in made_for_it:
                new.meta["nn_module_stack"] = scope_of(node)
                new.meta[FILE_NAME] = label_of(node)
            self._execute()
            if not self._branches:
                self._forget(node, made_for_it)
        except Exception as error:  # whatever an operator's arguments make torch raise
            if lacks_memory(error) or isinstance(error, Refusal):
                raise
            raise untranslatable(node, error) from error

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
            if not self._branches:
                made.meta.setdefault(VALUE, name)

    def _shapes(self, name: str) -> tuple[Shape, ...]:
        return self._shape_of[self._nodes[name].name]

    def _weight(self, node: onnx.NodeProto, index: int) -> fx.Node:
        """A constant operand as a parameter, which all nodes that train it share; others read a copy of their own."""
        name, array = node.input[index], self.known.constants[node.input[index]]
        if name not in self._weights:
            attribute = self._attribute(name)
            self.weights.register_parameter(attribute, nn.Parameter(tensor_of(array)))
            self._weights[name] = self.graph.get_attr(f"weights.{attribute}")
        path = str(self._weights[name].target)
        operand = Operand(value=node.output[0], index=index, shape=array.shape)
        self.operands[path] = (*self.operands.get(path, ()), operand)
        return self._weights[name]

    def _attribute(self, name: str) -> str:
        return unused(identifier(name), {**self.weights._buffers, **self.weights._parameters})

    def _buffer(self, name: str, array: Array) -> fx.Node:
        attribute = self._attribute(name)
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
        self._unread.subtract(reads_of(node))
        read_by_others = {made for name, made in self._nodes.items() if self._unread[name] > 0}
        for each in (*made_for_it, *(self._nodes[name] for name in node.input if name in self._nodes)):
            if each not in read_by_others and each.op not in ("placeholder", "get_attr"):
                for env in self._envs:
                    env.pop(each.name, None)
