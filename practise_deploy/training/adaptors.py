"""The paper's adaptors around a splice (section 3.2): inserted as identities, absorbed exactly afterwards.

An adaptor follows every convolution that writes to the dropped block's stream before it, and precedes every
convolution that reads that stream after it. The product of two linear maps is one: W' = A W behind a convolution,
W' = W A in front of it, so the network that is validated and kept has no adaptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from practise_deploy.network.graph.activations import node_by_name
from practise_deploy.network.graph.operators import is_unmodified, module_of, shape_of
from practise_deploy.refit.annotation import AnnotatedGraph, Role
from practise_deploy.refit.writers import before_activation, readers_of, writer_of
from practise_deploy.training.pointwise import Pointwise, multiply_before, multiply_behind, put_behind, take_out


@dataclass(frozen=True, slots=True)
class Adaptor:
    """A 1x1 convolution in the graph, the convolution that absorbs it, and whether it is behind that one."""

    node: str
    convolution: str
    behind: bool


def insert_adaptors(student: fx.GraphModule, cut: str) -> tuple[Adaptor, ...]:
    """Insert identity adaptors around a splice. cut: the value that stays in the block's place."""
    writers, readers = _around(AnnotatedGraph(student), node_by_name(student, cut))
    return tuple(
        [
            *(_insert(student, node, True) for node in writers),
            *(_insert(student, node, False) for node in readers),
        ]
    )


def absorb_adaptors(student: fx.GraphModule, adaptors: Sequence[Adaptor]) -> None:
    """Multiply the adaptors into their convolutions (in fp64) and remove them from the graph."""
    for adaptor in adaptors:
        node = node_by_name(student, adaptor.node)
        convolution, module = student.get_submodule(adaptor.convolution), module_of(student, node)
        assert isinstance(convolution, nn.Conv2d) and isinstance(module, Pointwise)
        (multiply_behind if adaptor.behind else multiply_before)(convolution, module.matrix)
        take_out(student, node)


def _around(student: AnnotatedGraph, cut: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """Convolutions that write to the cut's stream before it, and those that read it after it."""
    writers: list[fx.Node] = []
    seen: set[fx.Node] = set()
    stack = [cut]
    while stack:
        value = before_activation(student, stack.pop())
        if value in seen or shape_of(value) != shape_of(cut):
            continue
        seen.add(value)
        for term in value.all_input_nodes if student[value].role is Role.SUM else [value]:
            writer = writer_of(student, term)
            if writer is not None and isinstance(writer.layer, nn.Conv2d):
                writers.append(writer.operator)
            elif term is not value:
                stack.append(term)
    return writers, _readers(student, cut)


def _readers(student: AnnotatedGraph, cut: fx.Node) -> list[fx.Node]:
    readers: list[fx.Node] = []
    stack = [cut]
    seen: set[fx.Node] = set()
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        for user in readers_of(student, value):
            module = module_of(student.network, user)
            if isinstance(module, nn.Conv2d) and module.groups == 1 and _can_absorb(module, user):
                readers.append(user)
            elif student[user].role in (Role.SUM, Role.RELU):
                stack.append(user)
    order = {node: place for place, node in enumerate(student.network.graph.nodes)}
    return sorted(set(readers), key=order.__getitem__)


def _can_absorb(module: nn.Conv2d, call: fx.Node) -> bool:
    """Whether this convolution can absorb an adaptor in front of it."""
    calls = call.graph.find_nodes(op="call_module", target=call.target, sort=False)
    return type(module).forward is nn.Conv2d.forward and is_unmodified(module) and len(calls) == 1


def _insert(student: fx.GraphModule, convolution: fx.Node, behind: bool) -> Adaptor:
    module = student.get_submodule(str(convolution.target))
    assert isinstance(module, nn.Conv2d)
    width = module.out_channels if behind else module.in_channels
    name = f"adaptor_{'behind' if behind else 'before'}_{str(convolution.target).replace('.', '_')}"
    anchor, reader = (convolution, None) if behind else (convolution.all_input_nodes[0], convolution)
    node = put_behind(student, name, Pointwise(torch.eye(width).to(module.weight)), anchor, reader)
    return Adaptor(node.name, str(convolution.target), behind)
