"""Where a pruned network can be refitted: at its cuts, at every stream value behind them, and within units that have none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from torch import fx, nn

from practise_deploy.network.activations import node_by_name, nodes_to_compute
from practise_deploy.network.operators import is_addition, is_relu, module_of, shape_of
from practise_deploy.network.surgery import feature_in, splices
from practise_deploy.refit.layout import is_rearrangement
from practise_deploy.refit.writers import (
    ReconstructionPoint,
    as_it_was,
    before_activation,
    readers_of,
    writer_of,
    writers_into,
)
from practise_deploy.terms import Block


def point_at_cut(
    student: fx.GraphModule, teacher: fx.GraphModule, entry: str, exit_: str
) -> ReconstructionPoint | None:
    """Where a cut can be refitted: the value that stays, and the teacher's value it stands for.

    None where nothing linear writes it (a stem behind max pooling), or activations differ on both sides.
    """
    kept, goal = as_it_was(student, node_by_name(student, entry)), as_it_was(teacher, node_by_name(teacher, exit_))
    if is_relu(student, kept) != is_relu(teacher, goal):
        return None
    value = before_activation(student, kept)
    writers = writers_into(student, value)
    return ReconstructionPoint(value, writers, before_activation(teacher, goal).name) if writers else None


def points_of(
    student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block], feature: str
) -> list[ReconstructionPoint]:
    """All places to refit that the features depend on, in order: the cuts, and what follows the first of them."""
    cuts = splices(student, dropped)
    points = [
        point for entry, exit_ in cuts.items() if (point := point_at_cut(student, teacher, entry, exit_)) is not None
    ]
    taken = {point.value.name for point in points}
    touched = {*taken, *(block.entry for block in dropped)}
    last = feature_in(student, feature, dropped)
    points += [point for point in later_points(student, teacher, touched, last) if point.value.name not in taken]
    by_value = {point.value: point for point in points}
    return _each_writer_once([by_value[node] for node in _before(student, last) if node in by_value])


def first_point(
    student: fx.GraphModule, teacher: fx.GraphModule, dropped: Block, feature: str
) -> ReconstructionPoint | None:
    """The first place to refit without one block, in the graph's order: at its cut or, where nothing can be solved there, behind it."""
    at_cut = point_at_cut(student, teacher, dropped.entry, dropped.exit)
    if at_cut is not None and at_cut.value in _before(student, feature_in(student, feature, [dropped])):
        return at_cut
    return next(iter(points_of(student, teacher, [dropped], feature)), None)


def _before(student: fx.GraphModule, feature: str) -> list[fx.Node]:
    """What the features depend on, in order, and they themselves."""
    return nodes_to_compute([node_by_name(student, feature)], ())


def _each_writer_once(points: Sequence[ReconstructionPoint]) -> list[ReconstructionPoint]:
    """Of points with a writer in common the last one: a sum, and what it becomes when it is rearranged."""
    taken, kept = set[fx.Node](), list[ReconstructionPoint]()
    for point in reversed(points):
        operators = {writer.operator for writer in point.writers}
        if taken.isdisjoint(operators):
            kept.insert(0, point)
        taken |= operators
    return kept


def cuts_without_point(student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block]) -> list[str]:
    """The blocks whose cut cannot be refitted right there, the first of each chain."""
    cuts, alive = splices(student, dropped), {node.name for node in student.graph.nodes}
    fitted = {entry for entry, exit_ in cuts.items() if point_at_cut(student, teacher, entry, exit_) is not None}
    return [block.name for block in dropped if block.entry in alive - fitted]


def later_points(
    student: fx.GraphModule, teacher: fx.GraphModule, after: Iterable[str], feature: str
) -> list[ReconstructionPoint]:
    """Where the teacher's values can be had back downstream of the cuts.

    Stream values: sums, linear block outputs, and what makes the feature map. On the way to one of them that nothing can be
    solved for, what the layers put out.
    """
    teacher_values, behind = {node.name for node in teacher.graph.nodes}, _behind(student, after)
    values = [node for node in behind if node.name in teacher_values]
    last = before_activation(student, node_by_name(student, feature))
    points = [
        ReconstructionPoint(node, writers, node.name)
        for node in values
        if is_addition(node) or node is last or _is_linear_output(student, node)
        if (writers := writers_into(student, node))
    ]
    return points + _layers(student, values, points, feature)


def _behind(student: fx.GraphModule, after: Iterable[str]) -> list[fx.Node]:
    """The values that depend on these, in order."""
    touched, values = set(after), list[fx.Node]()
    for node in student.graph.nodes:
        if any(source.name in touched for source in node.all_input_nodes):
            touched.add(node.name)
            values.append(node)
    return values


def _layers(
    student: fx.GraphModule, values: Sequence[fx.Node], points: Sequence[ReconstructionPoint], feature: str
) -> list[ReconstructionPoint]:
    """Of these values what layers put out, with norm and scale, that no point makes good, as it goes into none of them next."""
    solved = {point.value for point in points}
    taken = {writer.operator for point in points for writer in point.writers}
    leads_to = _next_sums(student, solved, feature)
    layers = dict[fx.Node, ReconstructionPoint]()
    for node in values:
        writer = None if is_rearrangement(student, node) or leads_to[node] <= solved else writer_of(student, node)
        if writer is not None and writer.operator not in taken and math.prod(writer.from_operator.after.sides) > 1:
            layers[writer.operator] = ReconstructionPoint(
                node, (writer,), node.name
            )  # the last of operator, norm and scale
    return list(layers.values())


def _next_sums(student: fx.GraphModule, solved: Collection[fx.Node], feature: str) -> dict[fx.Node, set[fx.Node]]:
    """What every value goes into next: sums and what is solved; the features, where there is neither before them."""
    sums = dict[fx.Node, set[fx.Node]]()
    for node in reversed(student.graph.nodes):
        sums[node] = {node} if node.name == feature else set()
        for user in node.users:
            sums[node] |= {user} if user in solved or is_addition(user) else sums[user]
    return sums


def _is_linear_output(traced: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution's output, normalised if at all, that convolutions read as it is and that is not just a term of a sum."""
    ends = isinstance(module_of(traced, node), (nn.BatchNorm2d, nn.Conv2d)) and len(shape_of(node) or ()) == 4
    readers = readers_of(traced, node)
    convolves = any(isinstance(module_of(traced, reader), nn.Conv2d) for reader in readers)
    return ends and convolves and not (len(readers) == 1 and is_addition(readers[0]))
