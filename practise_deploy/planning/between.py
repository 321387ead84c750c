"""What may stand between an affine operator and the sum that it writes to, or between a value and its readers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torchvision.ops.misc import Permute

from practise_deploy.model.operators import is_as_its_class, module_of, shape_of
from practise_deploy.model.trace import annotate_shapes
from practise_deploy.planning.affine import called_once

_PRODUCTS = {operator.mul, torch.mul, "mul"}
_PERMUTATIONS, _SWAPS = {torch.permute, "permute"}, {torch.transpose, torch.swapaxes, "transpose", "swapaxes"}
_RESHAPES = {"reshape", "view", "unsqueeze"}


@dataclass(frozen=True, slots=True)
class Scale:
    """A value times learned factors.

    shapes: of the factors as they are multiplied, and of their product with the value. made_by: the values that give them.
    """

    scaled: fx.Node
    factors: nn.Parameter
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    made_by: tuple[fx.Node, ...] = ()

    def is_along(self, axis: int) -> bool:
        """Whether every index of this axis has a factor of its own, and all else shares it."""
        sides, whole = self.shapes
        each = dict(enumerate(sides, len(whole) - len(sides)))
        return each.get(axis) == whole[axis] and all(side == 1 for at, side in each.items() if at != axis)


def does_nothing(module: nn.Module | None) -> bool:
    """Whether a module gives what it gets in eval mode: an identity (some networks have their own), or dropout of any kind."""
    kind = type(module).__name__
    return kind in ("Identity", "StochasticDepth") or "Drop" in kind


def passes_on(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is another one as it is in eval mode, or with zeros around it."""
    module = module_of(traced, node)
    return does_nothing(module) or isinstance(module, nn.ZeroPad2d)


def permutation_of(traced: fx.GraphModule, node: fx.Node) -> tuple[int, ...] | None:
    """Which axes of its input a value's axes are, where it is nothing but its input with the axes in another order."""
    rank, module = len(shape_of(node) or ()), module_of(traced, node)
    if isinstance(module, Permute):
        return tuple(axis % rank for axis in module.dims)
    if node.kwargs or node.target not in _PERMUTATIONS | _SWAPS:
        return None
    given: Any = node.args[1] if isinstance(node.args[1], (tuple, list)) else node.args[1:]
    axes = [axis % rank for axis in given if isinstance(axis, int)]
    if node.target in _PERMUTATIONS:
        return tuple(axes) if len(axes) == rank else None
    swapped = {axes[0]: axes[1], axes[1]: axes[0]} if len(axes) == 2 else None
    return None if swapped is None else tuple(swapped.get(axis, axis) for axis in range(rank))


def scale_in(traced: fx.GraphModule, node: fx.Node) -> Scale | None:
    """The scale that a value is: its input times a parameter that nothing else uses, in the graph or in a module of its own."""
    module = module_of(traced, node)
    if module is not None:
        inside = _product_in(module, node.all_input_nodes) if _has_one_parameter(module) and called_once(node) else None
        return None if inside is None else replace(inside, scaled=node.all_input_nodes[0], made_by=())
    if node.target not in _PRODUCTS or len(node.args) != 2:
        return None
    for scaled, factor in (node.args, node.args[::-1]):
        if isinstance(scaled, fx.Node) and isinstance(factor, fx.Node) and scaled is not factor:
            found = _parameter(traced, factor)
            if found is not None:
                shapes = (shape_of(factor) or (), shape_of(node) or ())
                return Scale(scaled, found[0], shapes, found[1])
    return None


def _has_one_parameter(module: nn.Module) -> bool:
    """Whether a module of the user's or of a library's own is made of nothing but one parameter, as LayerScale is."""
    alone = len(module._parameters) == 1 and not module._buffers and not module._modules
    return alone and not type(module).__module__.startswith("torch.nn") and is_as_its_class(module)


def _product_in(module: nn.Module, given: Sequence[fx.Node]) -> Scale | None:
    """The scale that a module's output is of its input."""
    shapes = [shape_of(node) for node in given]
    if len(shapes) != 1 or shapes[0] is None:
        return None
    try:
        inside = fx.symbolic_trace(module)
        annotate_shapes(inside, shapes[0])
    except Exception:  # a forward of its own that cannot be traced is no plain product
        return None
    output = next(node for node in inside.graph.nodes if node.op == "output").args[0]
    found = scale_in(inside, output) if isinstance(output, fx.Node) else None
    return found if found is not None and found.scaled.op == "placeholder" else None


def _parameter(traced: fx.GraphModule, node: fx.Node) -> tuple[nn.Parameter, tuple[fx.Node, ...]] | None:
    """The parameter that a value is, of any shape, and the values from it to there; None where others use it too."""
    made_by = []
    while len(node.users) == 1:
        made_by.append(node)
        if node.op == "get_attr":
            found: Any = traced
            for part in str(node.target).split("."):
                found = getattr(found, part)
            alone = len(node.graph.find_nodes(op="get_attr", target=node.target, sort=False)) == 1
            return (found, tuple(made_by)) if isinstance(found, nn.Parameter) and alone else None
        if node.op != "call_method" or node.target not in _RESHAPES or len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    return None
