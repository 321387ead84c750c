"""Tracers: what of a network becomes a graph, and which modules stay leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.attention import decides_on_values, traceable_forward
from practise_deploy.network.graph.execution import Env, execute
from practise_deploy.network.graph.operators import is_custom_module
from practise_deploy.network.graph.scalings import is_scaling

_CONSTANT_TYPES = (type(None), bool, int, float, str)
_BATCH_SIZES = (2, 61)


def graphs_of(module: nn.Module, input_shape: tuple[int, ...]) -> Iterator[tuple[fx.Graph, tuple[str, ...]]]:
    """The module's graphs by every tracer that succeeds, each with the paths of its leaf modules, fewest leaves first.

    A forward may branch on sizes: the second tracer computes them for one input shape.
    Raises: InputError where no tracer succeeds.
    """
    first_error, graphs = None, []
    for make_tracer in (_Tracer, lambda leaves: _SizedTracer(leaves, input_shape)):
        try:
            graphs.append(_trace(module, make_tracer))
        except InputError as error:
            first_error = first_error or error
        if graphs and not graphs[-1][1]:
            break
    if first_error is not None and not graphs:
        raise first_error
    yield from sorted(graphs, key=lambda traced: len(traced[1]))


class _Tracer(fx.Tracer):
    """Traces into containers, and of modules without children into those that hold one parameter and nothing else, as LayerScale does,
    those that only multiply by constants, and custom modules that join values.

    The others stay leaves, and so do `leaves`, the paths of modules that cannot be traced.
    """

    def __init__(self, leaves: frozenset[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.untraced: set[str] = set()
        self.call_stack: list[str] = []
        self.joining = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.leaves:
            return True
        if next(m.children(), None) is None:
            return not (_holds_one_parameter(m) or (self.joining and is_custom_module(m)) or _only_multiplies(m))
        if decides_on_values(m):
            return False
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.call_stack.append(self.path_of_module(m))
        self.joining = (
            len({id(argument) for argument in (*args, *kwargs.values()) if isinstance(argument, fx.Proxy)}) > 1
        )
        if decides_on_values(m):
            forward = traceable_forward(m, args, kwargs) or self._call_leaf
        output = super().call_module(m, forward, args, kwargs)
        self.call_stack.pop()
        return output

    def _call_leaf(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        self.untraced.add(self.call_stack[-1])
        return self.create_proxy("call_module", self.call_stack[-1], args, kwargs)


class _SizedTracer(_Tracer):
    """A tracer that knows the sizes of every value.

    It computes them for two batch sizes: a size equal in both is a constant that the forward may branch on, any other
    a value of the graph.
    """

    def __init__(self, leaves: frozenset[str], input_shape: tuple[int, ...]) -> None:
        super().__init__(leaves)
        self.input_shape = input_shape
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.envs: tuple[Env, ...] = tuple({} for _ in _BATCH_SIZES)
        self.images: fx.Proxy | None = None
        self.executed, self.executing = 0, False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _SizedProxy(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.executing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        return attr_val if self.executing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: Any) -> Iterator[Any]:
        """A value's parts, where it is a tuple or a list; unpacking is traced without this."""
        parts = self.parts_of(obj)
        return super().iter(obj) if parts is None else (obj[index] for index in range(parts))

    def parts_of(self, value: fx.Proxy) -> int | None:
        """How many parts a tuple or a list has; None where it is none or could not be computed."""
        self._execute()
        parts = self.envs[0].get(value.node.name)
        return len(parts) if isinstance(parts, (tuple, list)) and not isinstance(parts, torch.Size) else None

    def shape_of(self, value: fx.Proxy) -> tuple[int | fx.Proxy, ...] | None:
        """A value's sizes; None where it is no tensor or could not be computed."""
        self._execute()
        values = [env.get(value.node.name) for env in self.envs]
        shapes = [tensor.shape for tensor in values if isinstance(tensor, torch.Tensor)]
        if len(shapes) < len(_BATCH_SIZES) or len({len(shape) for shape in shapes}) > 1:
            return None
        return tuple(self._size(value, axis, sizes) for axis, sizes in enumerate(zip(*shapes, strict=True)))

    def _size(self, value: fx.Proxy, axis: int, sizes: tuple[int, ...]) -> int | fx.Proxy:
        """One of a value's sizes; the batch size is the same value of the graph everywhere."""
        if len(set(sizes)) == 1:
            return sizes[0]
        if sizes != _BATCH_SIZES:
            return self.create_proxy("call_method", "size", (value, axis), {})
        if self.images is None:
            pixels = next(node for node in self.graph.nodes if node.op == "placeholder")
            self.images = self.proxy(self.graph.create_node("call_method", "size", (pixels, 0)))
        return self.images

    def _execute(self) -> None:
        """Execute the nodes added since the last call on fake tensors; a node that fails has no value, nor have its users."""
        nodes = list(self.graph.nodes)
        self.executing = True
        for node in nodes[self.executed :]:
            for env, images in zip(self.envs, _BATCH_SIZES, strict=True):
                with suppress(Exception), torch.no_grad():
                    env[node.name] = self._value(node, env, images)
        self.executed, self.executing = len(nodes), False

    def _value(self, node: fx.Node, env: Env, images: int) -> Any:
        try:
            with self.fake:
                if node.op == "placeholder" and not env:
                    return torch.zeros((images, *self.input_shape[1:]), dtype=_dtype_of(self.root))
                return execute(self.root, node, env)
        except Exception:
            if node.op != "call_module":
                raise
        zeros = {source.name: _zeros_like(env[source.name]) for source in node.all_input_nodes}
        return self.fake.from_tensor(execute(self.root, node, zeros))  # a module that decides on contents


class _SizedProxy(fx.Proxy):
    """A proxy with known sizes."""

    @property
    def shape(self) -> Any:
        """As a tensor's."""
        assert isinstance(self.tracer, _SizedTracer)
        sizes = self.tracer.shape_of(self)
        return super().__getattr__("shape") if sizes is None else sizes

    def size(self, dim: int | None = None) -> Any:
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> Any:
        """As a tensor's."""
        shape = self.shape
        return len(shape) if isinstance(shape, tuple) else super().__getattr__("ndim")

    def dim(self) -> Any:
        """As a tensor's."""
        return self.ndim

    def __len__(self) -> int:
        """As a tuple's or a list's."""
        assert isinstance(self.tracer, _SizedTracer)
        parts = self.tracer.parts_of(self)
        return super().__len__() if parts is None else parts


def _zeros_like(value: Any) -> Any:
    """A real tensor of zeros for a fake one."""
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def _holds_one_parameter(module: nn.Module) -> bool:
    """Whether a module of the network's own has one parameter and nothing else."""
    return is_custom_module(module) and len(module._parameters) == 1 and not module._buffers


def _only_multiplies(module: nn.Module) -> bool:
    """Whether all that a module does is to multiply by constants."""
    operations = operations_in(module)
    return operations is not None and len(operations) > 0 and all(is_scaling(node) for node in operations)


def operations_in(module: nn.Module) -> list[fx.Node] | None:
    """The operations of a module of the network's own that takes one value and has no parameters and no children.

    None of another module, and where they cannot be told.
    """
    if not is_custom_module(module) or next(module.children(), None) is not None or module._parameters:
        return None
    try:
        nodes = list(fx.Tracer().trace(module).nodes)
    except Exception:  # it decides on values
        return None
    if [node.op for node in nodes].count("placeholder") != 1 or not isinstance(nodes[-1].args[0], fx.Node):
        return None
    return [node for node in nodes if node.op not in ("placeholder", "get_attr", "output")]


def _trace(module: nn.Module, make_tracer: Callable[[frozenset[str]], _Tracer]) -> tuple[fx.Graph, tuple[str, ...]]:
    """The module's graph and leaves; every module that fails to trace becomes a leaf of the next attempt."""
    leaves: frozenset[str] = frozenset()
    while True:
        tracer = make_tracer(leaves)
        try:
            return tracer.trace(module, _fixed_arguments(module)), tuple(sorted(leaves | tracer.untraced))
        except Exception as error:
            if lacks_memory(error):
                raise
            failed = tracer.call_stack[-1] if tracer.call_stack else ""
            if not failed or failed in leaves:
                raise InputError(
                    f"the network cannot be traced: {first_line(error)}",
                    remedy="its forward takes decisions on values; give them fixed values in eval mode",
                ) from None
            leaves |= {failed}


def _fixed_arguments(module: nn.Module) -> dict[str, Any]:
    """Every argument after the first that has a default keeps it."""
    further = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in further if isinstance(p.default, _CONSTANT_TYPES)}
