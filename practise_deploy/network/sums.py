"""Writing sums in one form, so that a residual unit is recognised however its sum was written."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from practise_deploy.network.activations import nodes_to_compute
from practise_deploy.network.operators import module_of

_ADDITIONS, _SUBTRACTIONS = {torch.add, "add"}, {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}


def canonicalise_sums(traced: fx.GraphModule) -> None:
    """Turn `add(x, y, alpha=a)` into x + a y, and x - f(x) into x + (-1) f(x).

    The factor -1 costs nothing where a convolution or its norm gives the term: a runtime folds it into the weights. Elsewhere it would
    add an operation, so other differences stay, as do those that end no unit.
    """
    for node in list(traced.graph.nodes):
        factor = _factor(traced, node)
        if factor is None:
            continue
        first, second = node.args[:2]
        with traced.graph.inserting_before(node):
            term = traced.graph.call_function(operator.mul, (second, factor))
            addition = traced.graph.call_function(operator.add, (first, term))
        term.meta, addition.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(addition)
        traced.graph.erase_node(node)


def _factor(traced: fx.GraphModule, node: fx.Node) -> float | None:
    """The implicit factor of a sum's second term: its alpha, or -1 in a difference. None where nothing is to be rewritten."""
    if node.op not in ("call_function", "call_method") or len(node.args) < 2:
        return None
    first, second = node.args[:2]
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or not isinstance(alpha, (int, float)):
        return None
    if node.target in _ADDITIONS:
        return None if alpha == 1 else float(alpha)
    foldable = isinstance(module_of(traced, second), (nn.Conv2d, nn.BatchNorm2d))
    ends_unit = node.target in _SUBTRACTIONS and foldable and first in nodes_to_compute([second], set())
    return -float(alpha) if ends_unit else None
