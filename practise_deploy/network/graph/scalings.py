"""Values that are other values times factors, however the product is written."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from practise_deploy.network.graph.operators import shape_of

_PRODUCTS = {operator.mul, torch.mul, torch.multiply, "mul", "multiply"}
_QUOTIENTS = {operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide"}
_NEGATIONS = {operator.neg, torch.neg, torch.negative, "neg", "negative"}
_RESHAPES = {"reshape", "view", "unsqueeze"}


def is_scaling(node: fx.Node) -> bool:
    """Whether an operation is a product, a quotient or a change of sign."""
    return node.op in ("call_function", "call_method") and node.target in _PRODUCTS | _QUOTIENTS | _NEGATIONS


def product_of(node: fx.Node) -> tuple[Any, Any] | None:
    """The two factors of a product, nodes or numbers; None where a value is none."""
    if node.op not in ("call_function", "call_method") or node.target not in _PRODUCTS or len(node.args) != 2:
        return None
    return node.args[0], node.args[1]


def scaled_by_number(traced: nn.Module, node: fx.Node) -> tuple[fx.Node, float] | None:
    """The value of the same shape that a value is a multiple of, and the constant that it is multiplied by.

    The constant is a number, or a buffer of one element.
    """
    for value, factor in _multiples(traced, node):
        if isinstance(value, fx.Node) and factor is not None and shape_of(value) == shape_of(node) is not None:
            return value, factor
    return None


def _multiples(traced: nn.Module, node: fx.Node) -> list[tuple[Any, float | None]]:
    """What a node may be a multiple of, and by how much."""
    if product := product_of(node):
        return [(product[0], number_of(traced, product[1])), (product[1], number_of(traced, product[0]))]
    if node.op not in ("call_function", "call_method") or node.kwargs:
        return []
    if node.target in _NEGATIONS:
        return [(node.args[0], -1.0)]
    divisor = number_of(traced, node.args[1]) if node.target in _QUOTIENTS else None
    return [(node.args[0], 1 / divisor)] if divisor else []


def number_of(traced: nn.Module, value: Any) -> float | None:
    """The constant that a number is, or a buffer of one element, reshaped or not; None of anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    source = stored(value)
    tensor = operator.attrgetter(str(source.target))(traced) if source is not None else None
    if not isinstance(tensor, torch.Tensor) or isinstance(tensor, nn.Parameter) or tensor.numel() != 1:
        return None
    return float(tensor)


def stored(value: Any) -> fx.Node | None:
    """The parameter or buffer that a value is, reshaped or not; None of anything else."""
    while isinstance(value, fx.Node) and value.op == "call_method" and value.target in _RESHAPES:
        value = value.args[0]
    return value if isinstance(value, fx.Node) and value.op == "get_attr" else None
