"""Writers, the last affine operators of branches, and points, the stream values that they add into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from practise_deploy.network.activations import input_of, nodes_to_compute
from practise_deploy.network.operators import is_addition, is_relu, module_of, shape_of
from practise_deploy.refit.affine import called_once, channel_axis, is_affine, operator_at
from practise_deploy.refit.layout import Layout, Rearrangement, followed, is_rearrangement, rearranged, uses_of
from practise_deploy.refit.transparent import Scale, is_identity, is_transparent, scale_in


@dataclass(frozen=True, slots=True)
class Writer:
    """The last affine operator of a branch that adds into a stream, and what is linear behind it, up to its output.

    norm: a BatchNorm. scale: learned numbers that multiply the channels (LayerScale). from_operator, from_output: how the
    stream value that is looked at is what these give, rearranged. span: the values from the operator to there, and those that
    give the factors.
    """

    operator: fx.Node
    output: fx.Node
    norm: fx.Node | None
    scale: Scale | None
    from_operator: Rearrangement
    from_output: Rearrangement
    span: tuple[fx.Node, ...]

    @property
    def source(self) -> fx.Node:
        """The operator's input, h in the formulas."""
        return self.operator.all_input_nodes[0]

    @property
    def axis(self) -> int:
        """That of the channels of the stream value."""
        return self.from_operator.after.axis


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


def writer_of(traced: fx.GraphModule, node: fx.Node, behind: Sequence[fx.Node] = ()) -> Writer | None:
    """The writer whose output a value is, through what is linear or does nothing in eval mode.

    behind: the values from the node on to the stream value that is looked at, where that is another one.
    None where nothing can be solved for, where its weights also make a value that is used elsewhere, and where the values are
    not of the network's images, one after another along the first axis.
    """
    span = [node]
    while not is_affine(traced, span[-1]):
        source = _before(traced, span[-1])
        if source is None or len(uses_of(source)) > 1:
            return None
        span.append(source)
    return _writer(traced, span[::-1], behind)


def _before(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The value that another one is a norm, a scale or a rearrangement of, or nothing but."""
    source, scale = _with_the_same_numbers(traced, node), scale_in(traced, node)
    if source is None and _is_settable_norm(module_of(traced, node), node):
        return node.all_input_nodes[0]
    return source if scale is None else scale.scaled


def _with_the_same_numbers(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The value that another one is a rearrangement of, or nothing but."""
    if is_identity(module_of(traced, node)):
        return node.all_input_nodes[0]
    return rearranged(node) if is_rearrangement(traced, node) else None


def _writer(traced: fx.GraphModule, span: list[fx.Node], behind: Sequence[fx.Node]) -> Writer | None:
    """The writer of these values, in order; None where they do not stand in the order of `Writer`."""
    operator, output = span[0], span[-1]
    axis = channel_axis(operator_at(traced, operator), len(shape_of(operator) or ()))
    path = followed(traced, [*span, *behind], axis)
    if path is None or not _is_of_images(traced, operator, path[1]):
        return None
    axes, from_operator = path
    between, rest = _norm_and_scale(traced, span, axes), followed(traced, [output, *behind], axes[len(span) - 1])
    if between is None or rest is None:
        return None
    norm, scale = between
    return Writer(
        operator, output, norm, scale, from_operator, rest[1], (*span, *behind, *(scale.made_by if scale else ()))
    )


def _norm_and_scale(
    traced: fx.GraphModule, span: Sequence[fx.Node], axes: Sequence[int]
) -> tuple[fx.Node | None, Scale | None] | None:
    """The norm and the scale among the values behind an operator, of its channels; None where there is more than that.

    axes: those of the channels, by value.
    """
    norm, scale = None, None
    for node, axis in zip(span[1:], axes, strict=False):
        factor = scale_in(traced, node)
        if isinstance(module_of(traced, node), nn.BatchNorm2d):
            if norm or scale or axis != 1:
                return None
            norm = node
        elif factor is not None:
            if scale or not factor.is_along(axis):
                return None
            scale = factor
    return norm, scale


def factors_of(writer: Writer) -> nn.Parameter | None:
    """The factors of the writer's channels. Shapes: as many numbers as channels, of any shape."""
    return None if writer.scale is None else writer.scale.factors


def _is_of_images(traced: fx.GraphModule, operator: fx.Node, path: Rearrangement) -> bool:
    """Whether what an operator gives depends on the images, and has positions, as many of each. Convolutions of windows do not count."""
    images, layout, shape = input_of(traced), path.before, shape_of(operator) or (0,)
    convolved = isinstance(operator_at(traced, operator), nn.Conv2d)
    if not layout.sides or not path.after.sides or (layout.windowed and convolved):
        return False
    windows = layout.sides[0] if layout.windowed else 1
    return shape[0] == windows * (shape_of(images) or (0,))[0] and images in nodes_to_compute([operator], ())


def norm_of(traced: fx.GraphModule, writer: Writer) -> nn.BatchNorm2d | None:
    """The BatchNorm behind the writer's operator."""
    if writer.norm is None:
        return None
    module = traced.get_submodule(str(writer.norm.target))
    assert isinstance(module, nn.BatchNorm2d)
    return module


def _is_settable_norm(module: nn.Module | None, node: fx.Node) -> bool:
    if not isinstance(module, nn.BatchNorm2d) or type(module).forward is not nn.BatchNorm2d.forward:
        return False
    return module.affine and module.running_mean is not None and called_once(node)


def writers_into(traced: fx.GraphModule, value: fx.Node) -> tuple[Writer, ...]:
    """The writers of a value: itself a writer's output, or a sum with such terms, whose channels are along one axis.

    The sum may be rearranged before it is the value, where nobody reads it as it was.
    """
    chain = _rearranging(traced, value) if is_rearrangement(traced, value) else [value]
    if is_addition(chain[0]):
        terms = [term for term in chain[0].all_input_nodes if len(uses_of(term)) == 1]
        candidates = [writer_of(traced, term, chain) for term in terms]
    else:
        candidates = [writer_of(traced, value)]
    writers = [writer for writer in candidates if writer is not None]
    return tuple(writer for writer in writers if writer.axis == writers[0].axis)


def _rearranging(traced: fx.GraphModule, value: fx.Node) -> list[fx.Node]:
    """The values that lead to a rearranged one and that nothing else reads, in order, from what was rearranged first."""
    chain = [value]
    while (source := _with_the_same_numbers(traced, chain[0])) is not None and len(uses_of(source)) == 1:
        chain.insert(0, source)
    return chain


def as_it_was(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value that another one is in eval mode, seen through what does nothing."""
    while is_identity(module_of(traced, value)):
        value = value.all_input_nodes[0]
    return value


def before_activation(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value under a ReLU; the value itself where its stream is linear."""
    return value.all_input_nodes[0] if is_relu(traced, value) else value


def readers_of(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Who uses a value, seen through zero padding and what does nothing in eval mode."""
    readers = []
    for user in node.users:
        readers += readers_of(traced, user) if is_transparent(traced, user) else [user]
    return readers
