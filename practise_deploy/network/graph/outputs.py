"""A network's outputs, whatever holds them: tuples, named tuples, dictionaries, dataclasses, one within another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import isclass
from typing import Any

from torch import Tensor, fx

from practise_deploy.errors import InputError

NAMES = "names of the outputs"
"""The key in the meta of a graph's output node."""
ONLY = "logits"
"""What an output is called that has no name, and is alone."""


def flattened(output: Any) -> dict[str, Any]:
    """The tensors in an output, or the values of a graph, by name: keys, fields or numbers, with dots between; None is left out."""
    found = dict(_leaves(output, ""))
    return {ONLY: next(iter(found.values()))} if list(found) in ([""], ["0"]) else found


def _leaves(output: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, value in _parts(output):
        inner = f"{path}.{name}".lstrip(".")
        if _is_leaf(value):
            yield inner, value
        else:
            yield from _leaves(value, inner)


def _parts(output: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, by name; the value itself where it is a leaf."""
    if _is_leaf(output):
        yield "", output
    elif isinstance(output, fx.Node):  # a call of a dataclass or a named tuple
        kind: Any = output.target
        names = kind._fields if hasattr(kind, "_fields") else [field.name for field in fields(kind)]
        yield from zip(names, output.args, strict=False)
        yield from output.kwargs.items()
    elif isinstance(output, Mapping):
        yield from ((str(name), value) for name, value in output.items())
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, (tuple, list)):
        yield from ((str(number), value) for number, value in enumerate(output))
    elif is_dataclass(output) and not isclass(output):
        yield from ((field.name, getattr(output, field.name)) for field in fields(output))


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, fx.Node) and not _makes_record(value))


def _makes_record(node: fx.Node) -> bool:
    """Whether a value of a graph is a dataclass or a named tuple that is made there."""
    return isclass(node.target) and (is_dataclass(node.target) or hasattr(node.target, "_fields"))


def flatten_outputs(traced: fx.GraphModule) -> None:
    """Let a graph return its tensors one after another, whatever held them, or its only one; their names stay in the node's meta.

    Raises: InputError where it returns none.
    """
    output = output_node(traced)
    values = flattened(output.args[0])
    if not values:
        raise InputError(
            f"the network returns no tensor: {type(output.args[0]).__name__}",
            remedy="let its forward return the tensors that it is to be judged by",
        )
    output.meta[NAMES] = tuple(values)
    nodes = tuple(values.values())
    output.args = (nodes[0] if len(nodes) == 1 else nodes,)


def output_node(traced: fx.GraphModule) -> fx.Node:
    """The node that says what a graph returns."""
    return next(node for node in reversed(traced.graph.nodes) if node.op == "output")


def outputs_of(traced: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The values that a graph returns."""
    return tuple(flattened(output_node(traced).args[0]).values())


def names_of(traced: fx.GraphModule) -> tuple[str, ...]:
    """Their names."""
    output = output_node(traced)
    return output.meta.get(NAMES) or tuple(flattened(output.args[0]))
