"""A network as a graph of values, found by tracing (torch.fx), in a form that surgery can rely on.

In the traced graph no operation writes in place, every convolution is a plain `nn.Conv2d` call, and every
value has its shape in `node.meta["shape"]`.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from practise_deploy.errors import InputError

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}


class _Tracer(fx.Tracer):
    """Traces into containers; modules without children, and those that resist, stay whole."""

    def __init__(self, opaque: frozenset[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opaque or next(m.children(), None) is None:
            return True
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(m))
        found = super().call_module(m, forward, args, kwargs)
        self.inside.pop()
        return found


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The network as a graph, and the modules that could not be traced into.

    Shapes: input_shape (batch, channels, height, width).
    Raises: InputError where the network cannot be traced or does not run on such an input.
    """
    opaque: frozenset[str] = frozenset()
    while True:
        tracer = _Tracer(opaque)
        try:
            graph = tracer.trace(module)
            break
        except Exception as error:
            culprit = tracer.inside[-1] if tracer.inside else ""
            if not culprit or culprit in opaque:
                raise InputError(
                    f"the network cannot be traced: {_first_line(error)}",
                    remedy="its forward takes decisions on values; give them fixed values in eval mode",
                ) from None
            opaque |= {culprit}
    traced = fx.GraphModule(module, graph)
    _write_nothing_in_place(traced)
    _plain_convolutions(traced, module)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    annotate_shapes(traced, input_shape)
    return traced.eval(), tuple(sorted(opaque))


def annotate_shapes(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Write every value's shape into `node.meta["shape"]`; values that are no tensors get none."""
    parameter = next(traced.parameters(), torch.empty(0))
    sample = torch.zeros(input_shape, device=parameter.device, dtype=parameter.dtype if parameter.numel() else torch.float32)
    try:
        with torch.no_grad():
            ShapeProp(traced).propagate(sample)
    except Exception as error:
        raise InputError(
            f"the network does not run on an input of shape {tuple(input_shape)}: {_first_line(error)}",
            remedy="give its input size with --input-size",
        ) from None
    for node in traced.graph.nodes:
        found = node.meta.get("tensor_meta")
        node.meta["shape"] = tuple(found.shape) if hasattr(found, "shape") else None


def is_computed(node: fx.Node) -> bool:
    """Whether a value is a tensor, or a tuple of tensors, that depends on more than weights."""
    return node.op not in ("get_attr", "output") and node.meta.get("tensor_meta") is not None


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a value, None where it is no tensor."""
    return node.meta.get("shape")


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def scope_of(node: fx.Node) -> tuple[str, ...]:
    """The modules around a node, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [entry[0] if isinstance(entry, tuple) else str(entry) for entry in stack.values()]
    return tuple(name.removeprefix("L['self'].") for name in names)


def scope_kinds(node: fx.Node) -> dict[str, str]:
    """Class name of every module around a node."""
    stack = node.meta.get("nn_module_stack") or {}
    kinds = {}
    for entry in stack.values():
        if isinstance(entry, tuple):
            kind = entry[1]
            kinds[entry[0].removeprefix("L['self'].")] = getattr(kind, "__name__", str(kind).rsplit(".", 1)[-1])
    return kinds


def _write_nothing_in_place(traced: fx.GraphModule) -> None:
    for module in traced.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    for node in traced.graph.nodes:
        if node.op == "call_function":
            node.target = _IN_PLACE.get(node.target, node.target)
        if node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target[:-1]
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}


def _plain_convolutions(traced: fx.GraphModule, original: nn.Module) -> None:
    """Subclasses of Conv2d that pad by a child of their own become that padding and a plain Conv2d."""
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target not in (torch.conv2d, nn.functional.conv2d):
            continue
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        path = str(weight.target).rpartition(".")[0]
        owner = original.get_submodule(path)
        if isinstance(owner, nn.Conv2d) and str(weight.target).endswith("weight"):
            _swap_in(traced, path, owner, node)


def _swap_in(traced: fx.GraphModule, path: str, owner: nn.Conv2d, node: fx.Node) -> None:
    x, _, _, stride, padding, dilation, groups = (*node.args, *(1, 0, 1, 1)[len(node.args) - 3 :])[:7]  # type: ignore[misc]
    plain = nn.Conv2d(
        owner.in_channels, owner.out_channels, owner.kernel_size, stride=stride, padding=padding,  # type: ignore[arg-type]
        dilation=dilation, groups=groups, bias=owner.bias is not None, device="meta",  # type: ignore[arg-type]
    )
    plain.weight, plain.bias = owner.weight, owner.bias
    for name, child in owner.named_children():
        plain.add_module(name, child)
    traced.set_submodule(path, plain)
    with traced.graph.inserting_before(node):
        call = traced.graph.call_module(path, (x,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    traced.graph.erase_node(node)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
