"""Tracers: what of a network becomes a graph, and what stays whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from practise_deploy.errors import InputError, first_line
from practise_deploy.network.attention import decides_on_values, plain_forward
from practise_deploy.network.execution import Env, execute
from practise_deploy.network.operators import is_networks_own

_SIMPLE = (type(None), bool, int, float, str)
_BATCHES = (2, 61)


def graphs_of(module: nn.Module, input_shape: tuple[int, ...]) -> Iterator[tuple[fx.Graph, tuple[str, ...]]]:
    """The module's graph, with the modules that stay whole in it, in the ways it can be traced, the best first.

    Where a forward decides on values, they may be sizes, and those are known for an input of one shape.
    Raises: InputError where it cannot be traced in any way.
    """
    refused, found = None, []
    for kind in (_Tracer, lambda opaque: _SizedTracer(opaque, input_shape)):
        try:
            found.append(_traced(module, kind))
        except InputError as error:
            refused = refused or error
        if found and not found[-1][1]:
            break
    if refused is not None and not found:
        raise refused
    yield from sorted(found, key=lambda each: len(each[1]))


class _Tracer(fx.Tracer):
    """Traces into containers, into modules that hold one parameter and nothing else, as LayerScale does, and into what joins values.

    Other modules without children, and those that resist, stay whole.
    """

    def __init__(self, opaque: frozenset[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.whole: set[str] = set()
        self.inside: list[str] = []
        self.joining = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opaque:
            return True
        if next(m.children(), None) is None:
            return not (_holds_one_parameter(m) or (self.joining and is_networks_own(m)))
        if decides_on_values(m):
            return False
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(m))
        self.joining = len({id(each) for each in (*args, *kwargs.values()) if isinstance(each, fx.Proxy)}) > 1
        if decides_on_values(m):
            forward = plain_forward(m, args, kwargs) or self._left_whole
        found = super().call_module(m, forward, args, kwargs)
        self.inside.pop()
        return found

    def _left_whole(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        self.whole.add(self.inside[-1])
        return self.create_proxy("call_module", self.inside[-1], args, kwargs)


class _SizedTracer(_Tracer):
    """One that knows the sizes of every value.

    They are those of two numbers of images: a size that both have is a number for the forward to decide on, another
    one a value of the graph.
    """

    def __init__(self, opaque: frozenset[str], input_shape: tuple[int, ...]) -> None:
        super().__init__(opaque)
        self.input_shape = input_shape
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.envs: tuple[Env, ...] = tuple({} for _ in _BATCHES)
        self.images: fx.Proxy | None = None
        self.executed, self.executing = 0, False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.executing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        return attr_val if self.executing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def shape_of(self, value: fx.Proxy) -> tuple[int | fx.Proxy, ...] | None:
        """A value's sizes; None where it is no tensor, or was not to be had."""
        self._execute()
        found = [env.get(value.node.name) for env in self.envs]
        shapes = [each.shape for each in found if isinstance(each, torch.Tensor)]
        if len(shapes) < len(_BATCHES) or len({len(shape) for shape in shapes}) > 1:
            return None
        return tuple(self._size(value, axis, sizes) for axis, sizes in enumerate(zip(*shapes, strict=True)))

    def _size(self, value: fx.Proxy, axis: int, sizes: tuple[int, ...]) -> int | fx.Proxy:
        """One of a value's sizes; the number of images is everywhere the same value of the graph."""
        if len(set(sizes)) == 1:
            return sizes[0]
        if sizes != _BATCHES:
            return self.create_proxy("call_method", "size", (value, axis), {})
        if self.images is None:
            pixels = next(node for node in self.graph.nodes if node.op == "placeholder")
            self.images = self.proxy(self.graph.create_node("call_method", "size", (pixels, 0)))
        return self.images

    def _execute(self) -> None:
        """Execute what the graph has got since, on tensors without contents; what fails has no value, nor has what needs it."""
        nodes = list(self.graph.nodes)
        self.executing = True
        for node in nodes[self.executed :]:
            for env, images in zip(self.envs, _BATCHES, strict=True):
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
        zeros = {each.name: _zeros_like(env[each.name]) for each in node.all_input_nodes}
        return self.fake.from_tensor(execute(self.root, node, zeros))  # a module that decides on contents


class _Sized(fx.Proxy):
    """A value whose sizes can be asked for."""

    @property
    def shape(self) -> Any:
        """As a tensor's."""
        assert isinstance(self.tracer, _SizedTracer)
        found = self.tracer.shape_of(self)
        return super().__getattr__("shape") if found is None else found

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


def _zeros_like(value: Any) -> Any:
    """A tensor with contents in the place of one without."""
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def _holds_one_parameter(module: nn.Module) -> bool:
    """Whether a module of the network's own has a parameter and nothing else."""
    return is_networks_own(module) and len(module._parameters) == 1 and not module._buffers


def _traced(module: nn.Module, kind: Callable[[frozenset[str]], _Tracer]) -> tuple[fx.Graph, tuple[str, ...]]:
    """Its graph by a kind of tracer, and what stays whole: what resists, one after another."""
    opaque: frozenset[str] = frozenset()
    while True:
        tracer = kind(opaque)
        try:
            return tracer.trace(module, _fixed_arguments(module)), tuple(sorted(opaque | tracer.whole))
        except Exception as error:
            culprit = tracer.inside[-1] if tracer.inside else ""
            if not culprit or culprit in opaque:
                raise InputError(
                    f"the network cannot be traced: {first_line(error)}",
                    remedy="its forward takes decisions on values; give them fixed values in eval mode",
                ) from None
            opaque |= {culprit}


def _fixed_arguments(module: nn.Module) -> dict[str, Any]:
    """Every argument after the first that has a default keeps it."""
    further = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in further if isinstance(p.default, _SIMPLE)}
