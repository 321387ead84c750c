"""Replacing operations that write in place by ones that return a new value."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from practise_deploy.errors import InputError
from practise_deploy.network.graph.operators import module_of

_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def functionalise(traced: fx.GraphModule) -> None:
    """Replace every operation in place; later readers of the overwritten value read the new one.

    Raises: InputError for an operation in place that has no counterpart.
    """
    position = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if isinstance(written := node.kwargs.get("out"), fx.Node):
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "out"}
            _replace_later_uses(written, node, position)
        if _is_in_place(traced, node):
            _make_out_of_place(node)
            if node.args and isinstance(node.args[0], fx.Node):
                _replace_later_uses(node.args[0], node, position)
    for module in traced.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _replace_later_uses(old: fx.Node, new: fx.Node, position: dict[fx.Node, int]) -> None:
    old.replace_all_uses_with(new, lambda user: position[user] > position[new])


def _is_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(module_of(traced, node), "inplace", False) is True
    if node.op == "call_method":
        return _is_underscored(str(node.target))
    if node.op == "call_function":
        return node.target in _OPERATORS or _is_underscored(_name(node)) or _has_inplace_flag(node)
    return False


def _make_out_of_place(node: fx.Node) -> None:
    """The same operation, giving a new value; its input is its first argument."""
    if node.op == "call_method":
        node.target = str(node.target)[:-1]
    if node.op != "call_function":
        return
    if _has_inplace_flag(node):
        bound = inspect.signature(_function(node)).bind(*node.args, **node.kwargs)
        bound.arguments["inplace"] = False
        node.args, node.kwargs = bound.args, bound.kwargs
    if "input" in node.kwargs:
        node.args, node.kwargs = (node.kwargs["input"],), {k: v for k, v in node.kwargs.items() if k != "input"}
    if node.target in _OPERATORS:
        node.target = _OPERATORS[node.target]
    elif _is_underscored(_name(node)):
        node.target = _counterpart(_name(node))


def _has_inplace_flag(node: fx.Node) -> bool:
    """Whether a function is called with `inplace=True`, by name or by position."""
    try:
        arguments = inspect.signature(_function(node)).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # built in
        arguments = dict(node.kwargs)
    return arguments.get("inplace") is True


def _function(node: fx.Node) -> Callable[..., Any]:
    assert callable(node.target)
    return node.target


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", ""))


def _is_underscored(name: str) -> bool:
    return (
        name.endswith("_") and not name.endswith("__") and not hasattr(operator, name)
    )  # Python's own and_, or_, not_


def _counterpart(name: str) -> Callable[..., Any]:
    for namespace in (torch, nn.functional):
        counterpart = getattr(namespace, name[:-1], None)
        if callable(counterpart):
            return counterpart
    raise InputError(
        f"the network calls {name}, which writes in place and has no counterpart that does not",
        remedy="write its result into a new value",
    )
