"""Writers, the last affine operators of branches, and points, the stream values that they add into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from practise_deploy.network.graph.activations import input_of, nodes_to_compute
from practise_deploy.network.graph.operators import shape_of
from practise_deploy.refit.affine import Affine, channel_axis
from practise_deploy.refit.annotation import AnnotatedGraph, Role, Scale
from practise_deploy.refit.layout import Layout, Rearrangement, followed

_LINEAR = {Role.NORM, Role.SCALE, Role.FACTOR, Role.REARRANGEMENT, Role.IDENTITY}
"""What may stand behind an affine operator for it to be a writer."""
_MULTIPLES = {Role.SCALE, Role.FACTOR, Role.REARRANGEMENT, Role.IDENTITY}
"""What a stream value may go through behind its sum."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The last affine operator of a branch that adds into a stream, and what is linear behind it, up to its output.

    layer: what the operator calls. norm: a BatchNorm. scale: learned numbers that multiply the channels (LayerScale), or one for
    all (ReZero). from_operator, from_output: how the stream value that is looked at is what these give, rearranged. span: the values
    from the operator to there, and those that give the factors. constant: what they are multiplied by beside norm and scale;
    constant_behind: the part of it behind the output, where learned factors count too, as they are not the writer's alone.
    Shapes: constants [channels] or [1], in fp64.
    """

    operator: fx.Node
    output: fx.Node
    layer: Affine
    norm: nn.BatchNorm2d | None
    scale: Scale | None
    from_operator: Rearrangement
    from_output: Rearrangement
    span: tuple[fx.Node, ...]
    constant: Tensor
    constant_behind: Tensor

    @property
    def source(self) -> fx.Node:
        """The operator's input, h in the formulas."""
        return self.operator.all_input_nodes[0]

    @property
    def axis(self) -> int:
        """That of the channels of the stream value."""
        return self.from_operator.after.axis

    @property
    def factors(self) -> nn.Parameter | None:
        """The learned factors of its channels. Shapes: as many numbers as channels, or one, of any shape."""
        return None if self.scale is None else self.scale.factors

    @property
    def fan_in(self) -> int:
        """How many weights each of the operator's outputs has, d in the formulas."""
        return self.layer.weight[0].numel()


@dataclass(frozen=True, slots=True)
class ReconstructionPoint:
    """A stream value z before its activation, and the writers that add into it; `target` is z's name in the teacher."""

    value: fx.Node
    writers: tuple[Writer, ...]
    target: str

    @property
    def axis(self) -> int:
        """That of its channels."""
        return self.writers[0].axis

    @property
    def layout(self) -> Layout:
        """Where its positions and channels are."""
        return self.writers[0].from_operator.after


def writer_of(graph: AnnotatedGraph, value: fx.Node, behind: Sequence[fx.Node] = ()) -> Writer | None:
    """The writer whose output a value is, through what is linear or does nothing in eval mode.

    behind: the values from this one on to the stream value that is looked at, where that is another one.
    None where nothing can be solved for, where its weights also make a value that is used elsewhere, and where the values are
    not of the network's images, one after another along the first axis.
    """
    span = [value]
    while graph[span[0]].role is not Role.AFFINE:
        source = _source_through(graph, span[0], _LINEAR)
        if source is None:
            return None
        span.insert(0, source)
    return _writer(graph, span, behind)


def _source_through(graph: AnnotatedGraph, value: fx.Node, roles: set[Role]) -> fx.Node | None:
    """What a value is made of by an operation of one of these roles, where nothing else reads that."""
    operation = graph[value]
    if operation.role not in roles or operation.source is None or len(graph[operation.source].readers) > 1:
        return None
    return operation.source


def _writer(graph: AnnotatedGraph, span: Sequence[fx.Node], behind: Sequence[fx.Node]) -> Writer | None:
    """The writer of these values, in order; None where they do not stand in the order of `Writer`."""
    operator, output = span[0], span[-1]
    layer = graph.affine(operator)
    # where the channels are in every value from the operator on, and how the last value is the first one rearranged
    path = followed(graph, [*span, *behind], channel_axis(layer, len(shape_of(operator) or ())))
    if path is None or not _is_of_images(graph, operator, path[1]):
        return None
    axes, from_operator = path
    factored, rest = _norm_and_scale(graph, span, axes), followed(graph, [output, *behind], axes[len(span) - 1])
    if factored is None or rest is None:
        return None
    norm, scale = factored
    made_by = scale.made_by if scale else ()
    constants = _constants(graph, span), _constants(graph, [output, *behind], axes[len(span) - 1 :])
    if constants[0] is None or constants[1] is None:
        return None
    whole = constants[0] * constants[1]
    if not whole.all():
        return None
    return Writer(
        operator, output, layer, norm, scale, from_operator, rest[1], (*span, *behind, *made_by), whole, constants[1]
    )


def _constants(graph: AnnotatedGraph, path: Sequence[fx.Node], axes: Sequence[int] | None = None) -> Tensor | None:
    """What the first of these values, each computed from the one before, is multiplied by until the last one.

    axes: those of the channels, by value, if learned factors count. None where those are not of the channels.
    Shapes: [channels] or [1], in fp64.
    """
    product = torch.ones(1, dtype=torch.float64, device=next(graph.network.parameters()).device)
    for number, (source, node) in enumerate(pairwise(path), 1):
        operation = graph[node]
        if axes is not None and operation.scale is not None:
            if not _is_of_channels(operation.scale, axes[number], node):
                return None
            product = product * operation.scale.factors.detach().double().flatten()
        elif operation.role is not Role.SUM or node.args[1] is source:  # the second term of a difference
            product = product * operation.factor
    return product


def _is_of_channels(scale: Scale, axis: int, value: fx.Node) -> bool:
    """Whether it is one factor for all channels of a value, or one for each. axis: that of the channels."""
    return scale.is_single or scale.is_along(axis, shape_of(value) or ())


def _norm_and_scale(
    graph: AnnotatedGraph, span: Sequence[fx.Node], axes: Sequence[int]
) -> tuple[nn.BatchNorm2d | None, Scale | None] | None:
    """The norm and the scale among the values behind an operator, of its channels; None where there is more than that.

    axes: those of the channels, by value.
    """
    norm, scale = None, None
    multiplied = False
    for node, axis in zip(span[1:], axes, strict=False):
        operation = graph[node]
        if operation.role is Role.NORM:
            if norm or multiplied or axis != 1:
                return None
            norm = graph.norm(node)
        elif operation.scale is not None:
            if scale or not _is_of_channels(operation.scale, axis, node):
                return None
            scale = operation.scale
        multiplied = multiplied or operation.role in (Role.SCALE, Role.FACTOR)
    return norm, scale


def _is_of_images(graph: AnnotatedGraph, operator: fx.Node, path: Rearrangement) -> bool:
    """Whether what an operator gives depends on the images, and has positions, as many of each. Convolutions of windows do not count."""
    images, layout, shape = input_of(graph.network), path.before, shape_of(operator) or (0,)
    convolved = isinstance(graph.affine(operator), nn.Conv2d)
    if not layout.sides or not path.after.sides or (layout.windowed and convolved):
        return False
    windows = layout.sides[0] if layout.windowed else 1
    return shape[0] == windows * (shape_of(images) or (0,))[0] and images in nodes_to_compute([operator], ())


def writers_into(graph: AnnotatedGraph, value: fx.Node) -> tuple[Writer, ...]:
    """The writers of a value: itself a writer's output, or a sum with such terms, whose channels are along one axis.

    The sum may be rearranged, or multiplied, before it is the value, where nobody reads it as it was.
    """
    path = [value]
    if graph[value].role in (Role.REARRANGEMENT, Role.FACTOR, Role.SCALE):
        while (source := _source_through(graph, path[0], _MULTIPLES)) is not None:
            path.insert(0, source)
    if graph[path[0]].role is Role.SUM:
        terms = [term for term in path[0].all_input_nodes if len(graph[term].readers) == 1]
        candidates = [writer_of(graph, term, path) for term in terms]
    else:
        candidates = [writer_of(graph, value)]
    writers = [writer for writer in candidates if writer is not None]
    return tuple(writer for writer in writers if writer.axis == writers[0].axis)


def behind_identities(graph: AnnotatedGraph, value: fx.Node) -> fx.Node:
    """The value that another one is in eval mode, seen through what does nothing."""
    while (operation := graph[value]).role is Role.IDENTITY and operation.source is not None:
        value = operation.source
    return value


def before_activation(graph: AnnotatedGraph, value: fx.Node) -> fx.Node:
    """The value under a ReLU; the value itself where its stream is linear."""
    operation = graph[value]
    return operation.source if operation.role is Role.RELU and operation.source is not None else value


def readers_of(graph: AnnotatedGraph, node: fx.Node) -> list[fx.Node]:
    """Who uses a value, seen through zero padding and what does nothing in eval mode."""
    readers = []
    for user in node.users:
        through = graph[user].role in (Role.IDENTITY, Role.ZERO_PADDING)
        readers += readers_of(graph, user) if through else [user]
    return readers
