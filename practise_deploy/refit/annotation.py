"""What every operation of a network is to the refit, settled in one pass over its graph."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import fx, nn
from torchvision.models.maxvit import SwapAxes, WindowDepartition, WindowPartition
from torchvision.ops.misc import Permute

from practise_deploy.network.graph.operators import (
    asks_size,
    is_difference,
    is_idle,
    is_relu,
    is_sum,
    is_unmodified,
    module_of,
    shape_of,
)
from practise_deploy.network.graph.scalings import product_of, scaled_by_number
from practise_deploy.refit.affine import Affine

_RESHAPES = {"reshape", "view", "unsqueeze"}
_REARRANGING = (
    "contiguous", "flatten", "moveaxis", "movedim", "permute", "reshape", "roll", "squeeze", "swapaxes", "transpose",
    "unflatten", "unsqueeze", "view",
)  # fmt: skip
_REARRANGING_FUNCTIONS = {getattr(torch, name) for name in _REARRANGING if hasattr(torch, name)}
_REARRANGING_MODULES = (Permute, SwapAxes, WindowPartition, WindowDepartition, nn.Flatten, nn.Unflatten)


class Role(Enum):
    """What an operation does in eval mode to the value that it works on."""

    AFFINE = auto()
    """A convolution of all channels, or a linear layer, that its weights alone describe and that is called nowhere else."""
    NORM = auto()
    """A BatchNorm with statistics and parameters of its own, called nowhere else."""
    SCALE = auto()
    """A product with a learned parameter that nothing else uses (LayerScale, ReZero)."""
    FACTOR = auto()
    """A multiple of a value by a constant number."""
    REARRANGEMENT = auto()
    """The same numbers in other places, or some of them."""
    IDENTITY = auto()
    """Nothing: an identity, or dropout of any kind."""
    ZERO_PADDING = auto()
    SUM = auto()
    """A sum or a difference of two values."""
    RELU = auto()
    """ReLU or ReLU6."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Scale:
    """Learned factors of a value.

    shape: of the factors as they are multiplied. made_by: the values that give them.
    """

    factors: nn.Parameter
    shape: tuple[int, ...]
    made_by: tuple[fx.Node, ...]

    def is_along(self, axis: int, value_shape: Sequence[int]) -> bool:
        """Whether every index of this axis has a factor of its own, and all else shares it."""
        factors = dict(enumerate(self.shape, len(value_shape) - len(self.shape)))
        return factors.get(axis) == value_shape[axis] and all(side == 1 for at, side in factors.items() if at != axis)

    @property
    def is_single(self) -> bool:
        """Whether it is one factor for all channels."""
        return self.factors.numel() == 1


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a network.

    source: the value that it works on; None of a sum, and where the role is OTHER. scale: where that is its role. readers: who
    reads the numbers that it gives, and not just their size. factor: the constant that it multiplies by; of a difference, its
    second term.
    """

    role: Role
    source: fx.Node | None
    scale: Scale | None
    readers: tuple[fx.Node, ...]
    factor: float = 1.0


class AnnotatedGraph:
    """A network with the `Operation` of every node of its graph, as they were when it was made."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        uses = _Uses(network)
        self._operations = {node: _operation(network, node, uses) for node in network.graph.nodes}

    def __getitem__(self, node: fx.Node) -> Operation:
        return self._operations[node]

    def affine(self, node: fx.Node) -> Affine:
        """The layer that a node of role AFFINE calls."""
        module = module_of(self.network, node)
        assert isinstance(module, Affine)
        return module

    def norm(self, node: fx.Node) -> nn.BatchNorm2d:
        """The BatchNorm that a node of role NORM calls."""
        module = module_of(self.network, node)
        assert isinstance(module, nn.BatchNorm2d)
        return module


class _Uses:
    """How often a network uses its modules and its parameters."""

    def __init__(self, network: fx.GraphModule) -> None:
        self._of_target = Counter(
            (node.op, str(node.target)) for node in network.graph.nodes if node.op in ("call_module", "get_attr")
        )
        self._owners: dict[int, list[tuple[str, str]]] = {}
        for path, module in network.named_modules(remove_duplicate=False):
            for name, parameter in module._parameters.items():
                self._owners.setdefault(id(parameter), []).append((path, name))

    def is_called_once(self, node: fx.Node) -> bool:
        """Whether this call of a module is the only one."""
        return self._of_target["call_module", str(node.target)] == 1

    def is_used_once(self, parameter: nn.Parameter | None) -> bool:
        """Whether one module called once, or one value, is all that the network does with a parameter."""
        owners = self._owners.get(id(parameter), []) if parameter is not None else []
        if len(owners) != 1:
            return False
        ((path, name),) = owners
        return self._of_target["call_module", path] + self._of_target["get_attr", f"{path}.{name}".lstrip(".")] == 1


def _operation(network: fx.GraphModule, node: fx.Node, uses: _Uses) -> Operation:
    readers = tuple(user for user in node.users if not asks_size(user))
    product = _scale(network, node, uses)
    if product is not None:
        return Operation(Role.SCALE, *product, readers)
    multiple = scaled_by_number(network, node)
    if multiple is not None:
        return Operation(Role.FACTOR, multiple[0], None, readers, multiple[1])
    role = _role(network, node, uses)
    sources = [] if role in (Role.SUM, Role.OTHER) else _read(node)
    sign = -1.0 if role is Role.SUM and is_difference(node) else 1.0
    return Operation(role, sources[0] if sources else None, None, readers, sign)


def _role(network: fx.GraphModule, node: fx.Node, uses: _Uses) -> Role:
    """The role of an operation that is no scale."""
    module = module_of(network, node)
    if is_relu(network, node):
        return Role.RELU
    if is_sum(node):
        return Role.SUM
    if _is_rearrangement(module, node):
        return Role.REARRANGEMENT
    if is_idle(network, node):
        return Role.IDENTITY
    if module is None:
        return Role.OTHER
    if isinstance(module, nn.ZeroPad2d):
        return Role.ZERO_PADDING
    if _is_settable_norm(module) and uses.is_called_once(node):
        return Role.NORM
    return Role.AFFINE if _is_affine(module) and _is_alone(module, uses) else Role.OTHER


def _is_affine(module: nn.Module) -> bool:
    """Whether a module computes what its weights alone say, with no padding but zeros."""
    if not is_unmodified(module):
        return False
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward or module.groups != 1:
        return False
    return not isinstance(module.padding, str) and (module.padding_mode == "zeros" or not any(module.padding))


def _is_alone(module: nn.Module, uses: _Uses) -> bool:
    """Whether an affine module is called once, and nothing else uses its weights."""
    names = ["weight"] if module.bias is None else ["weight", "bias"]
    return all(uses.is_used_once(module._parameters.get(name)) for name in names)


def _is_settable_norm(module: nn.Module) -> bool:
    if not isinstance(module, nn.BatchNorm2d) or type(module).forward is not nn.BatchNorm2d.forward:
        return False
    return module.affine and module.running_mean is not None


def _read(node: fx.Node) -> list[fx.Node]:
    """The values that an operation reads, without the sizes that it asks."""
    return [source for source in node.all_input_nodes if "for_two" not in source.meta or shape_of(source) is not None]


def _is_rearrangement(module: nn.Module | None, node: fx.Node) -> bool:
    sources = _read(node)
    if len(sources) != 1 or shape_of(sources[0]) is None or shape_of(node) is None:
        return False
    if module is not None:
        return type(module) in _REARRANGING_MODULES and is_unmodified(module)
    if node.target is operator.getitem:
        index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        return all(isinstance(each, slice) or each is Ellipsis for each in index)
    return node.target in (_REARRANGING if node.op == "call_method" else _REARRANGING_FUNCTIONS)


def _scale(network: fx.GraphModule, node: fx.Node, uses: _Uses) -> tuple[fx.Node, Scale] | None:
    """The value that a product scales, and by what; None where it is not another value of its shape times a parameter."""
    product = product_of(node)
    if product is None:
        return None
    for scaled, factor in (product, product[::-1]):
        if isinstance(scaled, fx.Node) and isinstance(factor, fx.Node) and shape_of(scaled) == shape_of(node):
            parameter = _parameter(network, factor, uses)
            if parameter is not None:
                return scaled, Scale(parameter[0], shape_of(factor) or (), parameter[1])
    return None


def _parameter(network: fx.GraphModule, node: fx.Node, uses: _Uses) -> tuple[nn.Parameter, tuple[fx.Node, ...]] | None:
    """The parameter that a value is, of any shape, and the values from it to there; None where others use it too."""
    made_by = []
    while len(node.users) == 1:
        made_by.append(node)
        if node.op == "get_attr":
            parameter: Any = operator.attrgetter(str(node.target))(network)
            alone = isinstance(parameter, nn.Parameter) and uses.is_used_once(parameter)
            return (parameter, tuple(made_by)) if alone else None
        if node.op != "call_method" or node.target not in _RESHAPES or len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    return None
