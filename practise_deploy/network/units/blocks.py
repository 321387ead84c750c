"""Residual units, found in any network by the flow of its values, not by names.

A unit ends in the sum or difference of two values of one shape. Its entry is the term that the other one is computed from (the
skip): the unit's input, scaled or with other branches added if the sum has it so. A sum without such a term has its immediate
dominator as entry: the last value that everything in the unit is computed from. A unit can be dropped, that is, its exit replaced by
its entry, if nothing leaves it elsewhere and both have the same shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import fx, nn

from practise_deploy.errors import NoDroppableBlock
from practise_deploy.network.graph.activations import macs_by_node
from practise_deploy.network.graph.heads import feature_of
from practise_deploy.network.graph.operators import (
    FILE_NAME,
    is_difference,
    is_idle,
    module_of,
    scope_kinds,
    scope_of,
    shape_of,
)
from practise_deploy.network.graph.skips import Flow
from practise_deploy.network.units.near_misses import near_misses
from practise_deploy.network.units.units import Unit, format_shape, has_weights, holder_of, readers, unit_at, weights_of
from practise_deploy.terms import Block

_MAX_SHOWN = 3
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
_REMEDY = (
    "let a unit end in x + f(x), a sum of maps or of tokens of one shape, and its forward decide on no values; "
    "or choose a network of such units, torchvision:resnet50 for example"
)


def find_blocks(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> tuple[Block, ...]:
    """All residual units in order, the units of the same kind that have no skip connection, and near misses.

    Shapes: input_shape (batch, channels, height, width).
    """
    parameter = next(traced.parameters(), torch.empty(0))
    macs = macs_by_node(traced, torch.zeros(1, *input_shape[1:], device=parameter.device, dtype=parameter.dtype))
    flow = Flow(traced)
    units = _worth_dropping(traced, [unit for unit in _units(traced, flow) if has_weights(traced, unit.nodes)])
    names = _names(units)
    feature, structure_classes = feature_of(traced), dict[str, int]()
    unit_block = partial(_unit_block, traced, macs, structure_classes)
    blocks, offered = list[Block](), list[Unit]()
    for unit in units:  # those within others come first
        skip = flow.skips.get(unit.addition)
        reason = skip.weighting if skip and skip.weighting else _undroppable_reason(unit, offered, feature)
        blocks.append(unit_block(unit, names[unit.addition], reason))
        offered += [] if reason else [unit]
    blocks += _without_skip(traced, blocks, macs, structure_classes)
    for unit, reason in near_misses(traced, flow, units):
        blocks.append(unit_block(unit, _near_miss_name(unit, {block.name for block in blocks}), reason))
    position = {node.name: index for index, node in enumerate(traced.graph.nodes)}
    return tuple(sorted(blocks, key=lambda block: position[block.exit]))


def _unit_block(
    traced: fx.GraphModule, macs: dict[str, int], structure_classes: dict[str, int], unit: Unit, name: str, reason: str
) -> Block:
    block = _block(traced, unit.nodes, name, _kind(unit, name), macs, structure_classes)
    return replace(block, entry=unit.entry.name, exit=unit.exit.name, droppable=not reason, reason=reason)


def droppable(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The droppable blocks.

    Raises: NoDroppableBlock where there is none.
    """
    blocks = tuple(blocks)
    candidates = tuple(block for block in blocks if block.droppable)
    if not candidates:
        raise NoDroppableBlock(f"no block can be dropped: {_no_block_reason(blocks)}", remedy=_REMEDY)
    return candidates


def _no_block_reason(blocks: tuple[Block, ...]) -> str:
    """The first blocks with their reasons, and how many more there are."""
    if not blocks:
        return "nowhere does a value meet what layers make of it"
    more = f"; and {len(blocks) - _MAX_SHOWN} more" if len(blocks) > _MAX_SHOWN else ""
    return "; ".join(f"{block.name}: {block.reason}" for block in blocks[:_MAX_SHOWN]) + more


def _worth_dropping(traced: fx.GraphModule, units: list[Unit]) -> list[Unit]:
    """The units without those within others that only scale and shift values, such as response norms: they are parts of them."""
    slight = [unit for unit in units if not any(isinstance(module_of(traced, node), _LAYERS) for node in unit.nodes)]
    inside = {id(unit) for unit in slight if any(_is_within(unit, other) for other in units)}
    return [unit for unit in units if id(unit) not in inside]


def _is_within(unit: Unit, other: Unit) -> bool:
    return unit is not other and set(unit.nodes) < set(other.nodes)


def _units(traced: fx.GraphModule, flow: Flow) -> list[Unit]:
    sums = [node for node in traced.graph.nodes if flow.is_sum(node)]
    return [unit_at(traced, node, flow) for node in sums if node in flow.skips or not is_difference(node)]


def _undroppable_reason(unit: Unit, offered: list[Unit], feature: fx.Node) -> str:
    before, after = shape_of(unit.entry), shape_of(unit.exit)
    if before is None or after is None or before != after:
        return f"it changes the shape: {format_shape(before)} in, {format_shape(after)} out"
    inside = set(unit.nodes)
    for node in unit.nodes:
        if node is not unit.exit and not readers(node) <= inside:
            return f"its inner value {node.name} is also used outside of it"
    if feature in inside and feature is not unit.exit:
        return f"it holds {feature.name}, the feature map that a student is compared by"
    if any(other.addition in inside for other in offered):
        return "it holds a smaller residual unit, which is offered instead"
    return ""


def _names(units: list[Unit]) -> dict[fx.Node, str]:
    """Units named by the module that holds them, and by their addition where it holds several."""
    holders = {unit.addition: holder_of(unit.nodes) for unit in units}
    names = list(holders.values())
    for node, name in holders.items():  # a part of a module that holds other units too is not called like all of it
        inner = [*scope_of(node)[-1:], ""][0]
        if inner.startswith(name) and inner not in names and any(other.startswith(f"{name}.") for other in names):
            holders[node] = inner
    names = list(holders.values())
    return {node: name if name and names.count(name) == 1 else _own_name(name, node) for node, name in holders.items()}


def _own_name(holder: str, node: fx.Node) -> str:
    """The name of one value of several in a module: that of its node in an ONNX file, which is unique already."""
    return node.meta.get(FILE_NAME) or f"{holder}.{node.name}".lstrip(".")


def _near_miss_name(unit: Unit, taken: set[str]) -> str:
    """The module that holds a near miss, and the value that ends it where the name is taken."""
    name = holder_of(unit.nodes)
    return _own_name(name, unit.addition) if not name or name in taken else name


def _kind(unit: Unit, name: str) -> str:
    return scope_kinds(unit.addition).get(name, "residual unit")


def _block(
    traced: fx.GraphModule,
    nodes: tuple[fx.Node, ...],
    name: str,
    kind: str,
    macs: dict[str, int],
    structure_classes: dict[str, int],
) -> Block:
    signature = hashlib.sha256("\n".join(_signature(traced, node) for node in nodes).encode()).hexdigest()
    weights = {key: weight for node in nodes for key, weight in weights_of(traced, node).items()}
    return Block(
        name=name,
        kind=kind,
        shape=(shape_of(nodes[-1]) or (0,))[1:],
        parameters=sum(weight.numel() for weight in weights.values()),
        macs=sum(macs.get(node.name, 0) for node in nodes),
        latency_class=structure_classes.setdefault(signature, len(structure_classes)),
        droppable=False,
        reason="",
        entry=nodes[0].all_input_nodes[0].name if nodes[0].all_input_nodes else "",
        exit=nodes[-1].name,
    )


def _signature(traced: fx.GraphModule, node: fx.Node) -> str:
    module = module_of(traced, node)
    inactive = module is not None and is_idle(traced, node) and not isinstance(module, nn.Identity)
    if node.op == "get_attr":
        return f"weight {shape_of(node)}"
    operation = "nothing" if inactive else repr(module) if module is not None else str(node.target)
    return f"{operation} {[shape_of(n) for n in node.all_input_nodes]} {shape_of(node)}"


def _without_skip(
    traced: fx.GraphModule, blocks: list[Block], macs: dict[str, int], structure_classes: dict[str, int]
) -> Iterable[Block]:
    """Modules of the same class as a droppable block's that hold no residual unit of their own."""
    taken = {block.name for block in blocks}
    kinds = {block.kind for block in blocks if block.droppable} - {"residual unit"}
    nodes_by_path: dict[str, list[fx.Node]] = {}
    kind_of: dict[str, str] = {}
    for node in traced.graph.nodes:
        for path, kind in scope_kinds(node).items():
            if kind in kinds and path not in taken:
                nodes_by_path.setdefault(path, []).append(node)
                kind_of[path] = kind
    for path, nodes in nodes_by_path.items():
        if any(name.startswith(f"{path}.") for name in taken):
            continue
        block = _block(traced, tuple(nodes), path, kind_of[path], macs, structure_classes)
        before = shape_of(nodes[0].all_input_nodes[0]) if nodes[0].all_input_nodes else None
        yield replace(
            block,
            reason=f"it has no skip connection: {format_shape(before)} in, {format_shape((0, *block.shape))} out",
        )
