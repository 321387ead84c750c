"""Questions about one node of a traced network: its shape, its module, its scope, whether it is a sum or a ReLU."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops import stochastic_depth

IDLE = "idle"
"""Key in a node's meta: that its module, of the network's own, gives back what it gets in eval mode."""
_ADDITIONS = {operator.add, torch.add, torch.ops.aten.add.Tensor, "add"}
_SUBTRACTIONS = {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}
_DROPOUTS = {
    function: inspect.signature(function)
    for function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, stochastic_depth)
}
_RELUS = {torch.relu, F.relu, F.relu6, torch.ops.aten.relu.default}


def is_computed(node: fx.Node) -> bool:
    """Whether a value is a tensor, or a tuple of tensors, that depends on more than weights."""
    return node.op not in ("get_attr", "output") and node.meta.get("tensor_meta") is not None


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a value, None where it is no tensor."""
    return node.meta.get("shape")


def module_of(traced: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    if node.op != "call_module":
        return None
    module: Any = traced
    for part in str(node.target).split("."):
        module = module._modules[part]  # `get_submodule` takes ten times as long, and every operation asks
    return module


def is_unmodified(module: nn.Module) -> bool:
    """Whether a module computes what its class says: it has no hooks and no forward of its own."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_custom_module(module: nn.Module) -> bool:
    """Whether a module's class is the network's own, not derived from one of torch's layers."""
    return [kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn")] == [nn.Module]


def asks_size(node: fx.Node) -> bool:
    """Whether a value is another one's size, type or device."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


FILE_NAME = "name in the file"
"""The key in a node's meta of the name that the node has in the user's ONNX file."""


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


def is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is the ReLU or ReLU6 of another."""
    if isinstance(module_of(traced, node), (nn.ReLU, nn.ReLU6)):
        return True
    return node.target in _RELUS or (node.op == "call_method" and node.target == "relu")


def is_relu6(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is the ReLU6 of another."""
    return isinstance(module_of(traced, node), nn.ReLU6) or node.target is F.relu6


def is_sum(node: fx.Node) -> bool:
    """Whether a value is the sum or the difference of two computed values of one shape, and not of one with itself."""
    called = node.op in ("call_function", "call_method")
    if not called or node.target not in _ADDITIONS | _SUBTRACTIONS or node.kwargs.get("alpha", 1) != 1:
        return False
    sources = [n for n in node.args if isinstance(n, fx.Node) and n.op != "get_attr"]
    shapes = {shape_of(n) for n in sources}
    return len(set(sources)) == 2 and len(shapes) == 1 and None not in shapes and len(shapes.pop() or ()) >= 3


def is_difference(node: fx.Node) -> bool:
    """Whether a value is another one less a second one."""
    return node.op in ("call_function", "call_method") and node.target in _SUBTRACTIONS


def is_idle(traced: nn.Module, node: fx.Node) -> bool:
    """Whether a value is, in eval mode, what its operation gets: that of an identity, or dropout of any kind."""
    if node.op == "call_function" and node.target in _DROPOUTS:
        return _DROPOUTS[node.target].bind(*node.args, **node.kwargs).arguments.get("training") is False
    module = module_of(traced, node)
    if module is None or len(node.all_input_nodes) != 1:
        return False
    kind = type(module).__name__
    return kind in ("Identity", "StochasticDepth") or "Drop" in kind or bool(node.meta.get(IDLE))


def operation_name(node: fx.Node) -> str:
    """The operation's name in torch or Python, such as add; empty for a module."""
    if node.op == "call_module":
        return ""
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return target.partition(".")[0].strip("_")
