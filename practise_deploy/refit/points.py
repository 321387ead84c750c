"""Where a pruned network can be refitted: at its cuts, at every stream value behind them, and within units that have none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from torch import fx, nn

from practise_deploy.network.graph.activations import node_by_name, nodes_to_compute
from practise_deploy.network.graph.operators import module_of, shape_of
from practise_deploy.network.graph.surgery import feature_in, keeps_its_value, splices
from practise_deploy.refit.annotation import AnnotatedGraph, Role
from practise_deploy.refit.writers import (
    ReconstructionPoint,
    before_activation,
    behind_identities,
    readers_of,
    writer_of,
    writers_into,
)
from practise_deploy.terms import Block


def point_at_cut(
    student: AnnotatedGraph, teacher: AnnotatedGraph, entry: str, exit_: str
) -> ReconstructionPoint | None:
    """Where a cut can be refitted: the value that stays, and the teacher's value it stands for.

    None where nothing linear writes it (a stem behind max pooling), where activations differ on both sides, and where the value is also
    read by other branches of the sum that the block was one of.
    """
    if keeps_its_value(node_by_name(student.network, entry)):
        return None
    kept = behind_identities(student, node_by_name(student.network, entry))
    goal = behind_identities(teacher, node_by_name(teacher.network, exit_))
    if (student[kept].role is Role.RELU) != (teacher[goal].role is Role.RELU):
        return None
    value = before_activation(student, kept)
    writers = writers_into(student, value)
    return ReconstructionPoint(value, writers, before_activation(teacher, goal).name) if writers else None


def points_of(
    student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block], feature: str
) -> list[ReconstructionPoint]:
    """All places to refit that the features depend on, in order: the cuts, and what follows the first of them."""
    return _points_of(AnnotatedGraph(student), AnnotatedGraph(teacher), dropped, feature)


def _points_of(
    student: AnnotatedGraph, teacher: AnnotatedGraph, dropped: Sequence[Block], feature: str
) -> list[ReconstructionPoint]:
    points = list(_at_cuts(student, teacher, dropped).values())
    taken = {point.value.name for point in points}
    touched = {*taken, *(block.entry for block in dropped)}
    last = feature_in(student.network, feature, dropped)
    points += [point for point in later_points(student, teacher, touched, last) if point.value.name not in taken]
    by_value = {point.value: point for point in points}
    return _each_writer_once([by_value[node] for node in _before(student, last) if node in by_value])


def _at_cuts(
    student: AnnotatedGraph, teacher: AnnotatedGraph, dropped: Sequence[Block]
) -> dict[str, ReconstructionPoint]:
    """By the value that stays, the cuts that can be refitted right there."""
    cuts = splices(student.network, dropped)
    points = {entry: point_at_cut(student, teacher, entry, exit_) for entry, exit_ in cuts.items()}
    return {entry: point for entry, point in points.items() if point is not None}


def first_point(
    student: fx.GraphModule, teacher: fx.GraphModule, dropped: Block, feature: str
) -> ReconstructionPoint | None:
    """The first place to refit without one block, in the graph's order: at its cut or, where nothing can be solved there, behind it."""
    graph, teacher_graph = AnnotatedGraph(student), AnnotatedGraph(teacher)
    at_cut = point_at_cut(graph, teacher_graph, dropped.entry, dropped.exit)
    if at_cut is not None and at_cut.value in _before(graph, feature_in(student, feature, [dropped])):
        return at_cut
    return next(iter(_points_of(graph, teacher_graph, [dropped], feature)), None)


def _before(student: AnnotatedGraph, feature: str) -> list[fx.Node]:
    """What the features depend on, in order, and they themselves."""
    return nodes_to_compute([node_by_name(student.network, feature)], ())


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
    fitted = _at_cuts(AnnotatedGraph(student), AnnotatedGraph(teacher), dropped)
    alive = {node.name for node in student.graph.nodes}
    return [block.name for block in dropped if block.entry in alive - fitted.keys()]


def later_points(
    student: AnnotatedGraph, teacher: AnnotatedGraph, after: Iterable[str], feature: str
) -> list[ReconstructionPoint]:
    """Where the teacher's values can be had back downstream of the cuts.

    Stream values: sums, linear block outputs, and what makes the feature map. On the way to one of them that nothing can be
    solved for, what the layers put out.
    """
    teacher_values = {node.name for node in teacher.network.graph.nodes}
    values = [node for node in _behind(student, after) if node.name in teacher_values]
    last = before_activation(student, node_by_name(student.network, feature))
    points = [
        ReconstructionPoint(node, writers, node.name)
        for node in values
        if student[node].role is Role.SUM or node is last or _is_linear_output(student, node)
        if (writers := writers_into(student, node))
    ]
    return points + _layers(student, values, points, feature)


def _behind(student: AnnotatedGraph, after: Iterable[str]) -> list[fx.Node]:
    """The values that depend on these, in order."""
    touched, values = set(after), list[fx.Node]()
    for node in student.network.graph.nodes:
        if any(source.name in touched for source in node.all_input_nodes):
            touched.add(node.name)
            values.append(node)
    return values


def _layers(
    student: AnnotatedGraph, values: Sequence[fx.Node], points: Sequence[ReconstructionPoint], feature: str
) -> list[ReconstructionPoint]:
    """Of these values what layers put out, with norm and scale, that no point makes good, as it goes into none of them next."""
    solved = {point.value for point in points}
    taken = {writer.operator for point in points for writer in point.writers}
    leads_to = _next_sums(student, solved, feature)
    layers = dict[fx.Node, ReconstructionPoint]()
    for node in values:
        if student[node].role in (Role.REARRANGEMENT, Role.FACTOR) or leads_to[node] <= solved:
            continue
        writer = writer_of(student, node)
        if writer is not None and writer.operator not in taken and math.prod(writer.from_operator.after.sides) > 1:
            layers[writer.operator] = ReconstructionPoint(
                node, (writer,), node.name
            )  # the last of operator, norm and scale
    return list(layers.values())


def _next_sums(student: AnnotatedGraph, solved: Collection[fx.Node], feature: str) -> dict[fx.Node, set[fx.Node]]:
    """What every value goes into next: sums and what is solved; the features, where there is neither before them."""
    sums = dict[fx.Node, set[fx.Node]]()
    for node in reversed(student.network.graph.nodes):
        sums[node] = {node} if node.name == feature else set()
        for user in node.users:
            sums[node] |= {user} if user in solved or student[user].role is Role.SUM else sums[user]
    return sums


def _is_linear_output(student: AnnotatedGraph, node: fx.Node) -> bool:
    """A convolution's output, normalised if at all, that convolutions read as it is and that is not just a term of a sum."""
    ends = isinstance(module_of(student.network, node), (nn.BatchNorm2d, nn.Conv2d)) and len(shape_of(node) or ()) == 4
    readers = readers_of(student, node)
    convolves = any(isinstance(module_of(student.network, reader), nn.Conv2d) for reader in readers)
    return ends and convolves and not (len(readers) == 1 and student[readers[0]].role is Role.SUM)
