"""Residual units, found in any network by the flow of its values, not by names.

A unit ends in an addition of two values of one shape. Its entry is the addition's immediate dominator:
the last value that everything in the unit is computed from. It can be dropped, that is, its exit replaced by
its entry, if nothing else enters or leaves it and both have the same shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from practise_deploy.errors import NoDroppableBlock
from practise_deploy.model.operators import (
    is_addition,
    is_computed,
    is_relu,
    is_relu6,
    module_of,
    scope_kinds,
    scope_of,
    shape_of,
)
from practise_deploy.model.values import find_feature, macs_by_node
from practise_deploy.terms import Block

_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.Dropout)


@dataclass(frozen=True, slots=True)
class _Unit:
    entry: fx.Node
    addition: fx.Node
    exit: fx.Node
    nodes: tuple[fx.Node, ...]


def find_blocks(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> tuple[Block, ...]:
    """All residual units in order, and the units of the same kind that have no skip connection.

    Shapes: input_shape (batch, channels, height, width).
    """
    parameter = next(traced.parameters(), torch.empty(0))
    macs = macs_by_node(traced, torch.zeros(1, *input_shape[1:], device=parameter.device, dtype=parameter.dtype))
    units = [unit for unit in _units(traced) if _has_weights(traced, unit.nodes)]
    names = _names(units)
    feature, classes = find_feature(traced), dict[str, int]()
    blocks = []
    for unit in units:
        kind = _kind(unit, names[unit.addition])
        block = _describe(traced, unit.nodes, names[unit.addition], kind, macs, classes)
        reason = _why_not(unit, units, feature)
        blocks.append(replace(block, entry=unit.entry.name, exit=unit.exit.name, droppable=not reason, reason=reason))
    position = {node.name: index for index, node in enumerate(traced.graph.nodes)}
    return tuple(sorted([*blocks, *_without_skip(traced, blocks, macs, classes)], key=lambda b: position[b.exit]))


def droppable(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks that can go.

    Raises: NoDroppableBlock where there is none.
    """
    all_of_them = tuple(blocks)
    found = tuple(block for block in all_of_them if block.droppable)
    if not found:
        raise NoDroppableBlock(
            "no droppable block: looked for additions whose two inputs come from one earlier value of the same shape; "
            f"of {len(all_of_them)} parts found, none can go",
            remedy="choose a network with residual connections, or look with practise-deploy inspect why none can go",
        )
    return found


def _units(traced: fx.GraphModule) -> list[_Unit]:
    dominator = _dominators(traced)
    additions = [node for node in traced.graph.nodes if node in dominator and is_addition(node)]
    return [
        _unit(traced, node, dominator)
        for node in additions
        if all(source in dominator or source.op == "placeholder" for source in node.all_input_nodes)  # no mere bias
    ]


def _dominators(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
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


def _unit(traced: fx.GraphModule, addition: fx.Node, dominator: dict[fx.Node, fx.Node]) -> _Unit:
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
    inside -= _made_for_others_too(traced, inside, dominator)
    return _Unit(entry, addition, last, tuple(n for n in traced.graph.nodes if n in inside))


def _made_for_others_too(
    traced: fx.GraphModule, inside: set[fx.Node], dominator: dict[fx.Node, fx.Node]
) -> set[fx.Node]:
    """What of a unit is made without the images, for others too, such as the angles of positions."""
    found: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        if node in inside and node not in dominator and not (inside - found).issuperset(node.users):
            found.add(node)
    return found


def _is_fixed_point(traced: fx.GraphModule, node: fx.Node, activation: fx.Node) -> bool:
    """Whether this activation of the value would change nothing: it comes out of such a one already."""
    while isinstance(module_of(traced, node), _KEEPS_SIGN):
        node = node.all_input_nodes[0]
    return is_relu(traced, node) and (is_relu6(traced, node) or not is_relu6(traced, activation))


def _why_not(unit: _Unit, units: list[_Unit], feature: fx.Node) -> str:
    before, after = shape_of(unit.entry), shape_of(unit.exit)
    if before is None or after is None or before != after:
        return f"it changes the shape: {_written(before)} in, {_written(after)} out"
    inside = set(unit.nodes)
    for node in unit.nodes:
        if node is not unit.exit and _escapes(node, inside):
            return f"its inner value {node.name} is also used outside of it"
    if feature in inside and feature is not unit.exit:
        return f"it holds {feature.name}, the feature map that a student is compared by"
    for other in units:
        if other is not unit and other.addition in inside and shape_of(other.entry) == shape_of(other.exit):
            return "it holds a smaller residual unit, which is offered instead"
    return ""


def _escapes(node: fx.Node, inside: set[fx.Node]) -> bool:
    """Whether a value is used outside; sizes are followed to where they are used."""
    for user in node.users:
        if user not in inside and (user.op == "output" or is_computed(user) or _escapes(user, inside)):
            return True
    return False


def _written(shape: tuple[int, ...] | None) -> str:
    return "x".join(str(side) for side in (shape or ())[1:]) or "no tensor"


def _names(units: list[_Unit]) -> dict[fx.Node, str]:
    """The module that holds a unit gives its name; where it holds several, the addition is named too."""
    holder = {unit.addition: _holder(unit.nodes) for unit in units}
    count = list(holder.values())
    return {
        node: name if name and count.count(name) == 1 else f"{name}.{node.name}".lstrip(".")
        for node, name in holder.items()
    }


def _holder(nodes: Iterable[fx.Node]) -> str:
    """The innermost module around all of these nodes."""
    paths = [[*scope_of(node)[-1:], ""][0].split(".") for node in nodes]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _kind(unit: _Unit, name: str) -> str:
    return scope_kinds(unit.addition).get(name, "residual unit")


def _has_weights(traced: fx.GraphModule, nodes: Iterable[fx.Node]) -> bool:
    return any(_weights(traced, node) for node in nodes)


def _weights(traced: fx.GraphModule, node: fx.Node) -> dict[str, nn.Parameter]:
    module = module_of(traced, node)
    if module is not None:
        return {f"{node.target}.{name}": weight for name, weight in module.named_parameters()}
    found: dict[str, nn.Parameter] = {}
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            value = traced
            for part in str(source.target).split("."):
                value = getattr(value, part)
            if isinstance(value, nn.Parameter):
                found[str(source.target)] = value
    return found


def _describe(
    traced: fx.GraphModule,
    nodes: tuple[fx.Node, ...],
    name: str,
    kind: str,
    macs: dict[str, int],
    classes: dict[str, int],
) -> Block:
    signature = hashlib.sha256("\n".join(_signature(traced, node) for node in nodes).encode()).hexdigest()
    weights = {key: weight for node in nodes for key, weight in _weights(traced, node).items()}
    return Block(
        name=name,
        kind=kind,
        shape=(shape_of(nodes[-1]) or (0,))[1:],
        parameters=sum(weight.numel() for weight in weights.values()),
        macs=sum(macs.get(node.name, 0) for node in nodes),
        latency_class=classes.setdefault(signature, len(classes)),
        droppable=False,
        reason="",
        entry=nodes[0].all_input_nodes[0].name if nodes[0].all_input_nodes else "",
        exit=nodes[-1].name,
    )


def _signature(traced: fx.GraphModule, node: fx.Node) -> str:
    module = module_of(traced, node)
    rests = module is not None and (
        "Drop" in type(module).__name__ or isinstance(module, StochasticDepth)
    )  # in eval mode
    if node.op == "get_attr":
        return f"weight {shape_of(node)}"
    what = "nothing" if rests else repr(module) if module is not None else str(node.target)
    return f"{what} {[shape_of(n) for n in node.all_input_nodes]} {shape_of(node)}"


def _without_skip(
    traced: fx.GraphModule, blocks: list[Block], macs: dict[str, int], classes: dict[str, int]
) -> Iterable[Block]:
    """Modules of the same class as a droppable block's that hold no residual unit of their own."""
    taken = {block.name for block in blocks}
    kinds = {block.kind for block in blocks if block.droppable} - {"residual unit"}
    inside: dict[str, list[fx.Node]] = {}
    kind_of: dict[str, str] = {}
    for node in traced.graph.nodes:
        for path, kind in scope_kinds(node).items():
            if kind in kinds and path not in taken:
                inside.setdefault(path, []).append(node)
                kind_of[path] = kind
    for path, nodes in inside.items():
        if any(name.startswith(f"{path}.") for name in taken):
            continue
        block = _describe(traced, tuple(nodes), path, kind_of[path], macs, classes)
        before = shape_of(nodes[0].all_input_nodes[0]) if nodes[0].all_input_nodes else None
        yield replace(
            block,
            reason=f"it has no skip connection: {_written(before)} in, {_written((0, *block.shape))} out",
        )
