"""Writers, the last affine operators of branches, and sites, the stream values that they add into."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx, nn

from practise_deploy.model.operators import is_addition, is_relu, module_of, shape_of
from practise_deploy.model.values import input_of, order_of
from practise_deploy.planning.affine import called_once, channel_axis, is_affine, operator_at
from practise_deploy.planning.between import Scale, does_nothing, passes_on, permutation_of, scale_in


@dataclass(frozen=True, slots=True)
class Writer:
    """The last affine operator of a branch that adds into a stream, and what is linear behind it, up to its output.

    norm: a BatchNorm. scale: learned numbers that multiply the channels (LayerScale). order: the operator's axes as
    they are in the output; axis: that of the channels there. span: the values from the operator to the output, and those
    that give the factors.
    """

    operator: fx.Node
    output: fx.Node
    norm: fx.Node | None
    scale: Scale | None
    order: tuple[int, ...]
    axis: int
    span: tuple[fx.Node, ...]

    @property
    def source(self) -> fx.Node:
        """The operator's input, h in the formulas."""
        return self.operator.all_input_nodes[0]

    def arranged(self, value: Tensor) -> Tensor:
        """What the operator gives, with its axes as they are in the output."""
        return value if self.order == tuple(range(value.ndim)) else value.permute(self.order)


@dataclass(frozen=True, slots=True)
class Site:
    """A stream value z before its activation, and the writers that add into it; `target` is z's name in the teacher."""

    value: fx.Node
    writers: tuple[Writer, ...]
    target: str

    @property
    def axis(self) -> int:
        """That of its channels."""
        return self.writers[0].axis


def writer_of(traced: fx.GraphModule, node: fx.Node) -> Writer | None:
    """The writer whose output a value is, through what is linear or does nothing in eval mode.

    None where nothing can be solved for, where its weights also make a value that is used elsewhere, and where the values are
    not of the network's images, one after another along the first axis.
    """
    span = [node]
    while not is_affine(traced, span[-1]):
        source = _before(traced, span[-1])
        if source is None or len(source.users) > 1:
            return None
        span.append(source)
    return _writer(traced, span[::-1])


def _before(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The value that another one is a norm, a scale or a permutation of, or nothing but."""
    module = module_of(traced, node)
    if does_nothing(module) or permutation_of(traced, node) or _is_settable_norm(module, node):
        return node.all_input_nodes[0]
    scale = scale_in(traced, node)
    return None if scale is None else scale.scaled


def _writer(traced: fx.GraphModule, span: list[fx.Node]) -> Writer | None:
    """The writer of these values, in order; None where they do not stand in the order of `Writer`."""
    operator, norm, scale = span[0], None, None
    rank = len(shape_of(operator) or ())
    order, channels = tuple(range(rank)), channel_axis(operator_at(traced, operator), rank)
    values = list(span)
    for node in span[1:]:
        axis, found = order.index(channels), scale_in(traced, node)
        if isinstance(module_of(traced, node), nn.BatchNorm2d):
            if norm or scale or axis != 1:
                return None
            norm = node
        elif found is not None:
            if scale or not found.is_along(axis):
                return None
            scale = found
            values += found.made_by
        else:
            order = tuple(order[each] for each in permutation_of(traced, node) or range(rank))
    rest = [axis for axis in order if axis != channels]
    if rank < 3 or order[0] != 0 or rest != sorted(rest) or not _is_of_images(traced, operator):
        return None  # images or positions would stand in another order
    return Writer(operator, span[-1], norm, scale, order, order.index(channels), tuple(values))


def factors_of(writer: Writer) -> nn.Parameter | None:
    """The factors of the writer's channels. Shapes: as many numbers as channels, of any shape."""
    return None if writer.scale is None else writer.scale.factors


def _is_of_images(traced: fx.GraphModule, operator: fx.Node) -> bool:
    """Whether a value depends on the images, and has as many entries along its first axis as there are."""
    images = input_of(traced)
    return (shape_of(operator) or (0,))[0] == (shape_of(images) or (0,))[0] and images in order_of([operator], ())


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
    """The writers of a value: itself a writer's output, or a sum with such terms, whose channels are along one axis."""
    terms = list(value.all_input_nodes) if is_addition(value) else [value]
    found = [writer_of(traced, term) for term in terms if term is value or len(term.users) == 1]
    writers = [writer for writer in found if writer is not None]
    return tuple(writer for writer in writers if writer.axis == writers[0].axis)


def as_it_was(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value that another one is in eval mode, seen through what does nothing."""
    while does_nothing(module_of(traced, value)):
        value = value.all_input_nodes[0]
    return value


def before_activation(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value under a ReLU; the value itself where its stream is linear."""
    return value.all_input_nodes[0] if is_relu(traced, value) else value


def readers_of(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Who uses a value, seen through zero padding and what does nothing in eval mode."""
    found = []
    for user in node.users:
        found += readers_of(traced, user) if passes_on(traced, user) else [user]
    return found
