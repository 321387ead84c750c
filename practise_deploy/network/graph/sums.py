"""Writing sums in one form, so that a residual unit is recognised however its sum was written."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from practise_deploy.network.graph.operators import is_difference
from practise_deploy.network.graph.skips import Flow

_ADDITIONS = {operator.add, torch.add, "add"}
_SUBTRACTIONS = {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}
_REVERSED = {torch.rsub, "rsub"}


def canonicalise_sums(traced: fx.GraphModule) -> None:
    """Turn `add(x, y, alpha=a)` into x + a y, `rsub(y, x)` into x - y, and 0 + x, with which Python's `sum` begins, into x."""
    for node in list(traced.graph.nodes):
        if node.op not in ("call_function", "call_method"):
            continue
        kept = _summand(node) or _rewritten(traced, node)
        if kept is not None:
            node.replace_all_uses_with(kept)
            traced.graph.erase_node(node)


def _summand(node: fx.Node) -> fx.Node | None:
    """The only term of a sum with nothing."""
    if node.target not in _ADDITIONS or len(node.args) != 2:
        return None
    nodes = [term for term in node.args if isinstance(term, fx.Node)]
    return nodes[0] if len(nodes) == 1 and any(type(term) is int and term == 0 for term in node.args) else None


def _rewritten(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A sum with alpha, and a difference the other way round, as plain ones; None of anything else."""
    first, second, alpha = _terms(node)
    plain = alpha == 1 and node.target not in _REVERSED and node.kwargs.keys().isdisjoint(("input", "other"))
    if plain or not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    reversed_ = node.target in _REVERSED
    with traced.graph.inserting_before(node):
        if alpha != 1:
            first, second = (
                (_times(traced, first, alpha), second) if reversed_ else (first, _times(traced, second, alpha))
            )
        terms = (second, first) if reversed_ else (first, second)
        total = traced.graph.call_function(operator.add if node.target in _ADDITIONS else operator.sub, terms)
    total.meta = dict(node.meta)
    return total


def _times(traced: fx.GraphModule, value: fx.Node, factor: float) -> fx.Node:
    term = traced.graph.call_function(operator.mul, (value, factor))
    term.meta = dict(value.meta)
    return term


def _terms(node: fx.Node) -> tuple[Any, Any, Any]:
    """The two terms of a sum or a difference, and alpha; 1 of what is none."""
    if node.target not in _ADDITIONS | _SUBTRACTIONS | _REVERSED:
        return None, None, 1
    first = node.kwargs.get("input", node.args[0] if node.args else None)
    second = node.kwargs.get("other", node.args[1] if len(node.args) > 1 else None)
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    return first, second, alpha if isinstance(alpha, (int, float)) else 1


def chain_sums(traced: fx.GraphModule) -> None:
    """Turn x + (a + b), branches that are computed from x side by side, into (x + a) + b, so that each of them is a unit."""
    while nested := _nested_sums(traced):
        for addition, inner in nested:
            (outer,) = [term for term in addition.all_input_nodes if term is not inner]
            first, second = inner.all_input_nodes
            with traced.graph.inserting_before(addition):
                partial = traced.graph.call_function(operator.add, (outer, first))
                total = traced.graph.call_function(operator.add, (partial, second))
            partial.meta, total.meta = dict(addition.meta), dict(addition.meta)
            addition.replace_all_uses_with(total)
            traced.graph.erase_node(addition)
            traced.graph.erase_node(inner)
        traced.recompile()


def _nested_sums(traced: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """The sums of a skip and of a sum of branches, which nothing else reads, with the latter."""
    flow = Flow(traced)
    candidates = [(addition, skip.branch, skip.base) for addition, skip in flow.skips.items()]
    return [
        (addition, inner)
        for addition, inner, base in candidates
        if flow.is_sum(inner) and inner not in flow.skips and inner in addition.all_input_nodes
        and len(inner.users) == 1 and not (is_difference(addition) or is_difference(inner))
        and all(flow.precedes(base, term) for term in inner.all_input_nodes)
    ]  # fmt: skip
