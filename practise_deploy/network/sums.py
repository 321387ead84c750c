"""Sums in one spelling: a residual unit is one however its sum is written."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from practise_deploy.network.activations import order_of
from practise_deploy.network.operators import module_of

_ADDS, _SUBTRACTS = {torch.add, "add"}, {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}


def write_sums_plainly(traced: fx.GraphModule) -> None:
    """Turn `add(x, y, alpha=a)` into x + a y, and x - f(x) into x + (-1) f(x).

    The factor -1 costs nothing where a convolution or its norm gives the term: a runtime folds it into the weights. Elsewhere it would
    be one more operation, and a network slower than its user's, so that a difference stays one; so it does where no unit ends.
    """
    for node in list(traced.graph.nodes):
        factor = _factor(traced, node)
        if factor is None:
            continue
        first, second = node.args[:2]
        with traced.graph.inserting_before(node):
            term = traced.graph.call_function(operator.mul, (second, factor))
            plain = traced.graph.call_function(operator.add, (first, term))
        term.meta, plain.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(plain)
        traced.graph.erase_node(node)


def _factor(traced: fx.GraphModule, node: fx.Node) -> float | None:
    """What the second term of a sum is multiplied by, where it is written otherwise than as a product; None elsewhere."""
    if node.op not in ("call_function", "call_method") or len(node.args) < 2:
        return None
    first, second = node.args[:2]
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or not isinstance(alpha, (int, float)):
        return None
    if node.target in _ADDS:
        return None if alpha == 1 else float(alpha)
    folds = isinstance(module_of(traced, second), (nn.Conv2d, nn.BatchNorm2d))
    ends_unit = node.target in _SUBTRACTS and folds and first in order_of([second], set())
    return -float(alpha) if ends_unit else None
