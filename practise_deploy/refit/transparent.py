"""What may stand between an affine operator and the sum that it writes to, or between a value and its readers."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from practise_deploy.network.operators import module_of, shape_of
from practise_deploy.refit.affine import has_one_use

_PRODUCTS = {operator.mul, torch.mul, "mul"}
_RESHAPES = {"reshape", "view", "unsqueeze"}


@dataclass(frozen=True, slots=True)
class Scale:
    """A value times learned factors.

    shape: of the factors as they are multiplied. made_by: the values that give them.
    """

    scaled: fx.Node
    factors: nn.Parameter
    shape: tuple[int, ...]
    made_by: tuple[fx.Node, ...]

    def is_along(self, axis: int) -> bool:
        """Whether every index of this axis has a factor of its own, and all else shares it."""
        value_shape = shape_of(self.scaled) or ()
        factors = dict(enumerate(self.shape, len(value_shape) - len(self.shape)))
        return factors.get(axis) == value_shape[axis] and all(side == 1 for at, side in factors.items() if at != axis)


def is_identity(module: nn.Module | None) -> bool:
    """Whether a module gives what it gets in eval mode: an identity (some networks have their own), or dropout of any kind."""
    kind = type(module).__name__
    return kind in ("Identity", "StochasticDepth") or "Drop" in kind


def is_transparent(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is another one as it is in eval mode, or with zeros around it."""
    module = module_of(traced, node)
    return is_identity(module) or isinstance(module, nn.ZeroPad2d)


def scale_in(traced: fx.GraphModule, node: fx.Node) -> Scale | None:
    """The scale that a value is: another one of its shape times a parameter that nothing else uses."""
    if node.op == "call_module" or node.target not in _PRODUCTS or len(node.args) != 2:
        return None
    for scaled, factor in (node.args, node.args[::-1]):
        if isinstance(scaled, fx.Node) and isinstance(factor, fx.Node) and shape_of(scaled) == shape_of(node):
            parameter = _parameter(traced, factor)
            if parameter is not None:
                return Scale(scaled, parameter[0], shape_of(factor) or (), parameter[1])
    return None


def _parameter(traced: fx.GraphModule, node: fx.Node) -> tuple[nn.Parameter, tuple[fx.Node, ...]] | None:
    """The parameter that a value is, of any shape, and the values from it to there; None where others use it too."""
    made_by = []
    while len(node.users) == 1:
        made_by.append(node)
        if node.op == "get_attr":
            parameter: Any = traced
            for part in str(node.target).split("."):
                parameter = getattr(parameter, part)
            alone = isinstance(parameter, nn.Parameter) and has_one_use(traced, parameter)
            return (parameter, tuple(made_by)) if alone else None
        if node.op != "call_method" or node.target not in _RESHAPES or len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    return None
