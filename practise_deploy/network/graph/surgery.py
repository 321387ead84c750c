"""Dropping blocks, and moving weights in and out of networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import fx

from practise_backends.terms import Arrays
from practise_deploy.network.graph.operators import is_computed
from practise_deploy.terms import Block

_KEPT = "also read as what it was"


def keeps_its_value(node: fx.Node) -> bool:
    """Whether a value, which replaces a dropped block's exit, is also read as what it was: by another branch, a concatenation or an output."""
    return bool(node.meta.get(_KEPT))


def drop_blocks(teacher: fx.GraphModule, dropped: Sequence[Block], *, share_weights: bool = False) -> fx.GraphModule:
    """A copy of the network in which every dropped block's exit is its entry.

    share_weights: the copy uses the teacher's own modules, and must not be changed.
    """
    student = _share_modules(teacher) if share_weights else copy.deepcopy(teacher)
    by_name = {node.name: node for node in student.graph.nodes}
    order = list(by_name)
    replacement: dict[str, fx.Node] = {}
    read: list[tuple[fx.Node, set[fx.Node]]] = []
    for block in sorted(dropped, key=lambda b: order.index(b.exit)):
        entry, exit_ = replacement.get(block.entry, by_name[block.entry]), by_name[block.exit]
        readers = {user for user in entry.users if user.op == "output" or is_computed(user)}  # not those of its shape
        read.append((entry, readers - {exit_}))
        exit_.replace_all_uses_with(entry)
        replacement[block.exit] = entry
    student.graph.eliminate_dead_code()
    alive = set(student.graph.nodes)
    for entry, readers in read:
        entry.meta[_KEPT] = keeps_its_value(entry) or not readers.isdisjoint(alive)
    if not share_weights:
        student.delete_all_unused_submodules()
    student.recompile()
    return student


def _share_modules(network: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    output = graph.graph_copy(network.graph, {})
    graph.output(output)
    return fx.GraphModule(network, graph)


def splices(student: fx.GraphModule, dropped: Sequence[Block]) -> dict[str, str]:
    """For every splice, the value that stays (the first dropped block's entry) and the exit it replaces (the last one's).

    A value that would replace several exits, those of parallel blocks, is left out, and so is one that other branches of the same
    sum read. dropped: in any order.
    """
    branches: dict[str, list[str]] = {}
    for block in dropped:
        branches.setdefault(block.entry, []).append(block.exit)
    inner = {block.exit for block in dropped}
    replaced: dict[str, str] = {}
    for root in branches:
        end = root
        while len(branches.get(end, ())) == 1:
            (end,) = branches[end]
        if root not in inner and end not in branches:
            replaced[root] = end
    alive = {node.name for node in student.graph.nodes if not keeps_its_value(node)}
    return {entry: exit_ for entry, exit_ in replaced.items() if entry in alive}


def weights_of(network: torch.nn.Module) -> Arrays:
    """A network's state dict as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def load_weights(network: torch.nn.Module, weights: Arrays) -> None:
    """Put arrays that `weights_of` gave back into a network of the same shape."""
    for path in weights:
        owner, _, name = path.rpartition(".")
        module = network.get_submodule(owner)
        if name == "bias" and getattr(module, "bias", "") is None:  # a refit may have given a convolution its bias
            weight = network.get_parameter(f"{owner}.weight")
            module.bias = torch.nn.Parameter(weight.new_empty(weights[path].shape))
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()}, strict=True)


def feature_in(student: fx.GraphModule, feature: str, dropped: Sequence[Block]) -> str:
    """The student's name for the teacher's feature map: a dropped last block's entry replaces its exit."""
    alive, entry_of = {node.name for node in student.graph.nodes}, {block.exit: block.entry for block in dropped}
    while feature not in alive:
        feature = entry_of[feature]
    return feature
