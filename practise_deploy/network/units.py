"""Units of a traced network: the values between an addition and its immediate dominator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import fx, nn

from practise_deploy.network.operators import is_computed, is_relu, is_relu6, module_of, scope_of

_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.Dropout)


@dataclass(frozen=True, slots=True)
class Unit:
    """The values from its entry, which is none of them, to its exit: the addition, or a rectifier behind it."""

    entry: fx.Node
    addition: fx.Node
    exit: fx.Node
    nodes: tuple[fx.Node, ...]


def dominators(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Immediate dominator of every value that depends on the input (edges through non-tensors do not count)."""
    parent: dict[fx.Node, fx.Node] = {}
    depth: dict[fx.Node, int] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder" and not depth:
            depth[node] = 0
        sources = [n for n in node.all_input_nodes if n in depth and is_computed(n)]
        if not sources or node.op == "output":
            continue
        common = sources[0]
        for other in sources[1:]:
            while common is not other:
                if depth[common] >= depth[other]:
                    common = parent[common]
                else:
                    other = parent[other]
        parent[node], depth[node] = common, depth[common] + 1
    return parent


def unit_at(traced: fx.GraphModule, addition: fx.Node, dominator: Mapping[fx.Node, fx.Node]) -> Unit:
    """The unit that ends in an addition."""
    entry, inside = dominator[addition], set[fx.Node]()
    stack = [addition]
    while stack:
        node = stack.pop()
        if node is not entry and node not in inside:
            inside.add(node)
            stack.extend(n for n in node.all_input_nodes if n.op != "placeholder" and is_computed(n))
    last = addition
    users = list(addition.users)
    if len(users) == 1 and is_relu(traced, users[0]) and _is_fixed_point(traced, entry, users[0]):
        last = users[0]
        inside.add(last)
    inside -= _shared_constants(traced, inside, dominator)
    return Unit(entry, addition, last, tuple(n for n in traced.graph.nodes if n in inside))


def _shared_constants(
    traced: fx.GraphModule, inside: set[fx.Node], dominator: Mapping[fx.Node, fx.Node]
) -> set[fx.Node]:
    """Values of a unit that do not depend on the input and that others read too, such as positional angles."""
    shared: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        if node in inside and node not in dominator and not (inside - shared).issuperset(node.users):
            shared.add(node)
    return shared


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
