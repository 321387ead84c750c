"""Operations that write in place become ones that give a new value."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from practise_deploy.errors import InputError
from practise_deploy.network.operators import module_of

_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
}


def write_nothing_in_place(traced: fx.GraphModule) -> None:
    """Give each written value a name of its own: whoever reads the old one later, reads the new one.

    Raises: InputError for an operation in place that has no counterpart.
    """
    position = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if _writes(traced, node):
            _write_elsewhere(node)
            if node.args and isinstance(node.args[0], fx.Node):
                _read_from_now_on(node.args[0], node, position)
    for module in traced.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _read_from_now_on(old: fx.Node, new: fx.Node, position: dict[fx.Node, int]) -> None:
    old.replace_all_uses_with(new, lambda user: position[user] > position[new])


def _writes(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(module_of(traced, node), "inplace", False) is True
    if node.op == "call_method":
        return _underscored(str(node.target))
    if node.op == "call_function":
        return node.target in _OPERATORS or _underscored(_name(node)) or _asks_for_it(node)
    return False


def _write_elsewhere(node: fx.Node) -> None:
    """The same operation, giving a new value; its input is its first argument."""
    if node.op == "call_method":
        node.target = str(node.target)[:-1]
    if node.op != "call_function":
        return
    if _asks_for_it(node):
        bound = inspect.signature(_called(node)).bind(*node.args, **node.kwargs)
        bound.arguments["inplace"] = False
        node.args, node.kwargs = bound.args, bound.kwargs
    if "input" in node.kwargs:
        node.args, node.kwargs = (node.kwargs["input"],), {k: v for k, v in node.kwargs.items() if k != "input"}
    if node.target in _OPERATORS:
        node.target = _OPERATORS[node.target]
    elif _underscored(_name(node)):
        node.target = _counterpart(_name(node))


def _asks_for_it(node: fx.Node) -> bool:
    """Whether a function is called with `inplace=True`, by name or by position."""
    try:
        given = inspect.signature(_called(node)).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # built in
        given = dict(node.kwargs)
    return given.get("inplace") is True


def _called(node: fx.Node) -> Callable[..., Any]:
    assert callable(node.target)
    return node.target


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", ""))


def _underscored(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _counterpart(name: str) -> Callable[..., Any]:
    for home in (torch, nn.functional):
        found = getattr(home, name[:-1], None)
        if callable(found):
            return found
    raise InputError(
        f"the network calls {name}, which writes in place and has no counterpart that does not",
        remedy="write its result into a new value",
    )
