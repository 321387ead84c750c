"""Units of a traced network: what a sum adds to its skip, or all the values between it and its immediate dominator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx, nn

from practise_deploy.network.graph.operators import is_computed, is_relu, is_relu6, module_of, scope_of
from practise_deploy.network.graph.skips import Flow, Skip

_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.Dropout)


@dataclass(frozen=True, slots=True)
class Unit:
    """The values from its entry, which is none of them, to its exit: the addition, or a rectifier behind it."""

    entry: fx.Node
    addition: fx.Node
    exit: fx.Node
    nodes: tuple[fx.Node, ...]


def unit_at(traced: fx.GraphModule, addition: fx.Node, flow: Flow) -> Unit:
    """The unit that ends in an addition: without a skip, all between it and its dominator."""
    skip = flow.skips.get(addition)
    if skip is None or skip.weighting:
        return _unit(traced, addition, flow, None, flow.dominator[addition])
    return _unit(traced, addition, flow, skip, skip.term)


def _unit(traced: fx.GraphModule, addition: fx.Node, flow: Flow, skip: Skip | None, entry: fx.Node) -> Unit:
    inside, stack = set[fx.Node](), [addition]
    while stack:
        node = stack.pop()
        if node is not entry and node not in inside and not (skip and flow.precedes(node, entry)):
            inside.add(node)
            stack.extend(n for n in node.all_input_nodes if n.op != "placeholder" and is_computed(n))
    last = addition
    users = list(addition.users)
    if len(users) == 1 and is_relu(traced, users[0]) and _is_fixed_point(traced, entry, users[0]):
        last = users[0]
        inside.add(last)
    inside -= _shared(traced, inside, flow, addition, skip)
    return Unit(entry, addition, last, tuple(n for n in traced.graph.nodes if n in inside))


def _shared(
    traced: fx.GraphModule, inside: set[fx.Node], flow: Flow, addition: fx.Node, skip: Skip | None
) -> set[fx.Node]:
    """Values within a unit that others read too and that stay with them.

    They do not depend on its input, as positional angles, or are computed from it without weights, as masks or a rectifier that several
    branches share, or, where the sum has a skip, are read by other branches of the same sum.
    """
    shared, end = set[fx.Node](), flow.end_of(addition)
    weighted = _weighted(traced, inside)
    for node in reversed(traced.graph.nodes):
        if node not in inside or node is addition or not (outside := readers(node) - (inside - shared)):
            continue
        if node not in weighted:
            stays = True
        elif skip is None:
            stays = node not in flow.dominator
        elif not flow.precedes(skip.base, node):
            stays = True
        else:
            stays = end is not addition and all(flow.precedes(user, end) for user in outside)
        if stays:
            shared.add(node)
    return shared


def readers(node: fx.Node) -> set[fx.Node]:
    """The values that are computed from a value, and the output; sizes are followed to where they are used."""
    found = set[fx.Node]()
    for user in node.users:
        found |= {user} if user.op == "output" or is_computed(user) else readers(user)
    return found


def _weighted(traced: fx.GraphModule, inside: set[fx.Node]) -> set[fx.Node]:
    """Of these values those that are computed with weights, or from such."""
    weighted = set[fx.Node]()
    for node in traced.graph.nodes:
        if node in inside and (weights_of(traced, node) or not weighted.isdisjoint(node.all_input_nodes)):
            weighted.add(node)
    return weighted


def _is_fixed_point(traced: fx.GraphModule, node: fx.Node, activation: fx.Node) -> bool:
    """Whether the activation leaves this value unchanged, as it is an activation's output already."""
    while isinstance(module_of(traced, node), _KEEPS_SIGN):
        node = node.all_input_nodes[0]
    return is_relu(traced, node) and (is_relu6(traced, node) or not is_relu6(traced, activation))


def holder_of(nodes: Iterable[fx.Node]) -> str:
    """The innermost module around all of these nodes, or the common path of their names in an ONNX file."""
    scopes = [[*scope_of(node)[-1:], ""][0] for node in nodes]
    separator = "/" if any("/" in scope for scope in scopes) else "."
    paths = [scope.split(separator) for scope in scopes]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return separator.join(common)


def has_weights(traced: fx.GraphModule, nodes: Iterable[fx.Node]) -> bool:
    """Whether any of these values is computed with parameters."""
    return any(weights_of(traced, node) for node in nodes)


def weights_of(traced: fx.GraphModule, node: fx.Node) -> dict[str, nn.Parameter]:
    """The parameters that a value is computed with, by their paths."""
    module = module_of(traced, node)
    if module is not None:
        return {f"{node.target}.{name}": weight for name, weight in module.named_parameters()}
    weights: dict[str, nn.Parameter] = {}
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            value = traced
            for part in str(source.target).split("."):
                value = getattr(value, part)
            if isinstance(value, nn.Parameter):
                weights[str(source.target)] = value
    return weights


def format_shape(shape: tuple[int, ...] | None) -> str:
    """A shape without its batch axis, such as 64x56x56."""
    return "x".join(str(side) for side in (shape or ())[1:]) or "no tensor"
