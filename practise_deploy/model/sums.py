"""Sums in one spelling: a residual unit is one however its sum is written."""

from __future__ import annotations

import operator

import torch
from torch import fx

from practise_deploy.model.values import order_of

_ADDS, _SUBTRACTS = {torch.add, "add"}, {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}


def write_sums_plainly(traced: fx.GraphModule) -> None:
    """Turn `add(x, y, alpha=a)` into x + a y, and x - f(x) into x + (-1) f(x).

    Other differences stay as they are: where neither term comes from the other, no unit ends. A runtime folds the factor into the
    layer that gives the term.
    """
    for node in list(traced.graph.nodes):
        factor = _factor(node)
        if factor is None:
            continue
        first, second = node.args[:2]
        with traced.graph.inserting_before(node):
            term = traced.graph.call_function(operator.mul, (second, factor))
            plain = traced.graph.call_function(operator.add, (first, term))
        term.meta, plain.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(plain)
        traced.graph.erase_node(node)


def _factor(node: fx.Node) -> float | None:
    """What the second term of a sum is multiplied by, where it is written otherwise than as a product; None elsewhere."""
    if node.op not in ("call_function", "call_method") or len(node.args) < 2:
        return None
    first, second = node.args[:2]
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or not isinstance(alpha, (int, float)):
        return None
    if node.target in _ADDS:
        return None if alpha == 1 else float(alpha)
    return -float(alpha) if node.target in _SUBTRACTS and first in order_of([second], set()) else None
