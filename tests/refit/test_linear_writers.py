"""Streams that linear layers write to: who writes them, and through what."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops.misc import Permute

from networks import tiny_convnext, tiny_transformer
from practise_deploy.network.graph.activations import node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import cuts_without_point, point_at_cut, points_of
from practise_deploy.refit.writers import writer_of, writers_into
from practise_deploy.training.adaptors import insert_adaptors
from samples.lessons import opened
from samples.scales import MAP, TOKENS, Gain, Reshaped, Scaled, last_value, writer_at_the_end
from samples.solving import additions

TRANSFORMER, CONVNEXT = (1, 3, 16, 16), (1, 3, 32, 32)


def test_attention_and_perceptron_end_in_linear_writers_along_the_last_axis():
    traced, _ = trace(tiny_transformer(), TRANSFORMER)
    found = [writers_into(AnnotatedGraph(traced), node) for node in additions(traced)[1:]]
    targets = [[str(writer.operator.target) for writer in each] for each in found]
    assert targets == [[f"blocks.{n}.{name}"] for n in range(3) for name in ("attn.proj", "fc2")]
    assert {writer.axis for each in found for writer in each} == {2}
    assert [each[0].scale is not None for each in found] == [False, True] * 3


def test_block_of_convnext_ends_in_a_linear_writer_whose_channels_come_to_the_second_axis():
    traced, _ = trace(tiny_convnext(), CONVNEXT)
    (writer,) = writers_into(AnnotatedGraph(traced), additions(traced)[0])
    assert str(writer.operator.target) == "features.1.0.block.5"
    assert (writer.axis, writer.from_operator.before.axis, writer.from_operator.index, writer.norm) == (
        1,
        3,
        None,
        None,
    )
    assert writer.scale is not None and writer.output.name.endswith("stochastic_depth")
    assert {"features_1_0_layer_scale"} < {node.name for node in writer.span}  # who moves on must know that it changes


def test_cuts_of_a_transformer_are_refitted_where_a_linear_layer_writes():
    teacher, feature, blocks = opened(tiny_transformer(), TRANSFORMER)
    gone = [block for block in blocks.values() if block.droppable]
    points = [point_at_cut(AnnotatedGraph(teacher), AnnotatedGraph(teacher), block.entry, block.exit) for block in gone]
    assert [point is None for point in points] == [True] + [
        False
    ] * 5  # only the first one's stream comes from no writer
    assert cuts_without_point(drop_blocks(teacher, gone[:1]), teacher, gone[:1]) == [gone[0].name]
    later = points_of(drop_blocks(teacher, gone[:1]), teacher, gone[:1], feature)
    assert [str(point.writers[0].operator.target) for point in later] == [
        "blocks.0.fc2", "blocks.1.attn.proj", "blocks.1.fc2", "blocks.2.attn.proj", "blocks.2.fc2",
    ]  # fmt: skip


class Twice(nn.Module):
    """One linear layer called in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x).relu())


class Moved(nn.Module):
    """A linear layer, and its axes in another order."""

    def __init__(self, *order: int, by: str = "permute") -> None:
        super().__init__()
        self.fc, self.order, self.by = nn.Linear(4, 6), order, by

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.fc(x), self.by)(*self.order)


class Folded(nn.Module):
    """Counts rows as images, as windows are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)


class Standardised(nn.Linear):
    """Computes with other weights than its own."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


@pytest.mark.parametrize(
    ("network", "shape", "axis"),
    [
        (nn.Sequential(nn.Linear(4, 6)), TOKENS, 2),
        (nn.Sequential(nn.Linear(4, 6), nn.Dropout()), MAP, 3),
        (nn.Sequential(nn.Linear(4, 6), Permute([0, 3, 1, 2])), MAP, 1),
        (nn.Sequential(nn.Linear(4, 6), Permute([0, -1, 1, 2])), MAP, 1),
        (nn.Sequential(nn.Linear(4, 6), Permute([0, 3, 1, 2]), nn.BatchNorm2d(6)), MAP, 1),
        (Moved(1, 2, by="transpose"), TOKENS, 1),
        (Moved(0, 2, 3, 1), MAP, 2),
        (Moved(1, 2, by="transpose"), MAP, 3),
        (Moved(0, 3, 1, 2), MAP, 1),
        (Moved((0, 3, 1, 2)), MAP, 1),
        (nn.Sequential(Folded(), nn.Linear(4, 6)), MAP, 2),
        (Scaled(6), TOKENS, 2),
        (Scaled(1), TOKENS, 2),
        (Scaled(1, 1, 6), MAP, 3),
        (Reshaped(), (2, 4, 3, 3), 1),
    ],
)
def test_linear_layer_is_a_writer_through_permutations_and_scales(network, shape, axis):
    writer = writer_at_the_end(network, shape)
    assert (writer and writer.axis) == axis


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 6)), (2, 4)),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU()), TOKENS),
        (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), TOKENS),
        (nn.Sequential(nn.Linear(4, 4), Permute([0, 2, 1, 3]), nn.BatchNorm2d(5)), MAP),
        (nn.Sequential(Standardised(4, 6)), TOKENS),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6))), TOKENS),
        (Twice(), TOKENS),
        (Moved(1, 0, by="transpose"), TOKENS),
        (Scaled(5, 1), TOKENS),
        (Scaled(6, learned=False), TOKENS),
        (nn.Sequential(Scaled(6), Gain(6)), TOKENS),
        (nn.Sequential(nn.Linear(4, 6), Gain(6), Permute([0, 3, 1, 2]), nn.BatchNorm2d(6)), MAP),
        (nn.Sequential(nn.Linear(4, 6), *[Gain(6)] * 2), TOKENS),
        (nn.Sequential(nn.Linear(4, 1), Gain(6)), TOKENS),
        (Moved(2, 0, 1), TOKENS),
    ],
    ids=[
        "no positions", "behind relu", "behind layer norm", "norm of another axis", "own forward", "parametrized",
        "called twice", "images moved", "factors of positions",
        "factors not learned", "two scales", "norm behind a scale", "one scale twice",
        "scale that widens", "images moved to the second axis",
    ],
)  # fmt: skip
def test_linear_layer_that_cannot_be_solved_for_is_no_writer(network, shape):
    assert writer_at_the_end(network, shape) is None


class Sum(nn.Module):
    """What two linear layers write, one of them along another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.along, self.across, self.head = nn.Linear(4, 4), nn.Linear(5, 5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.along(x) + self.across(x.transpose(1, 2)).transpose(1, 2))


def test_writers_along_another_axis_are_not_solved_together():
    traced, _ = trace(Sum().eval(), TOKENS)
    (writer,) = writers_into(AnnotatedGraph(traced), additions(traced)[0])
    assert (str(writer.operator.target), writer.axis) == ("along", 2)


class Placed(nn.Module):
    """What a linear layer makes of the images, and of numbers that are the same for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.rand(1, 5, 4))
        self.of_images, self.of_places, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.of_places(self.places) + self.of_images(x))


def test_layer_that_sees_no_image_writes_nothing():
    traced, _ = trace(Placed().eval(), (1, 5, 4))
    (writer,) = writers_into(AnnotatedGraph(traced), additions(traced)[0])
    assert str(writer.operator.target) == "of_images"


def test_module_that_is_named_like_a_permutation_is_none():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.permute, self.mul = nn.Linear(4, 4), nn.ReLU(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.mul(self.permute(self.fc(x)))

    traced, last = last_value(Named(), TOKENS)
    graph = AnnotatedGraph(traced)
    assert writer_of(graph, last) is None and writer_of(graph, node_by_name(traced, "permute")) is None


class Wide(nn.Module):
    """A map that a linear layer writes along its last axis, though a convolution reads it, and one that is moved first."""

    def __init__(self, moved: bool) -> None:
        super().__init__()
        self.stem, self.other, self.fc, self.moved = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 4), moved
        self.reader = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(x).relu()
        y = self.fc(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.moved else self.fc(y)
        return self.reader(self.stem(x).relu() + y)


def test_papers_adaptors_stand_beside_convolutions_alone():
    teacher, _, blocks = opened(tiny_convnext(), CONVNEXT)
    block = blocks["features.3.1"]
    adaptors = insert_adaptors(drop_blocks(teacher, [block]), block.entry)
    assert [(adaptor.convolution, adaptor.behind) for adaptor in adaptors] == [("features.2.1", True)]
