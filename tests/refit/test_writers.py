"""Which convolutions write into a residual stream, who reads them, and where a site can be solved."""

import operator

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import resnet18

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.graph.activations import find_feature, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import point_at_cut, points_of
from practise_deploy.refit.writers import readers_of, writer_of, writers_into
from samples.solving import additions

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


def convolution_names(traced, value):
    return [str(writer.operator.target) for writer in writers_into(AnnotatedGraph(traced), value)]


def test_writer_of_a_basic_block_is_its_second_convolution_with_its_norm():
    traced, _ = trace(tiny_resnet(), RESNET)
    (writer,) = writers_into(AnnotatedGraph(traced), additions(traced)[0])
    assert (str(writer.operator.target), writer.norm) == ("layer1.0.conv2", traced.get_submodule("layer1.0.bn2"))
    assert writer.output.target == "layer1.0.bn2"
    assert writer.source.name == traced.graph.find_nodes(op="call_module", target="layer1.0.relu")[0].name


def test_writers_of_a_stages_first_block_include_the_projection():
    traced, _ = trace(tiny_resnet(), RESNET)
    assert convolution_names(traced, additions(traced)[3]) == ["layer2.0.conv2", "layer2.0.downsample.0"]


def test_writer_of_an_inverted_residual_is_its_projection():
    traced, _ = trace(tiny_mobilenet(), MOBILENET)
    (node,) = traced.graph.find_nodes(op="call_module", target="features.3.conv.3")
    (add,) = [user for user in node.users if user in additions(traced)]
    writer = writer_of(AnnotatedGraph(traced), node)
    assert (str(writer.operator.target), writer.output) == ("features.3.conv.2", node)
    assert convolution_names(traced, add) == ["features.3.conv.2"]


def test_writer_is_found_behind_dropout_and_identity():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Identity()).eval()
    traced, _ = trace(network, (1, 3, 4, 4))
    last = list(traced.graph.nodes)[-2]
    writer = writer_of(AnnotatedGraph(traced), last)
    assert str(writer.operator.target) == "0" and writer.output is last


class Identity(nn.Module):
    """Some networks have one of their own."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("between", [Identity(), nn.Identity(), nn.Dropout2d(), nn.ZeroPad2d((0, 2, 0, 2))], ids=str)
def test_readers_are_seen_through_what_does_nothing(between):
    traced, _ = trace(nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.Conv2d(4, 4, 1)).eval(), (1, 3, 4, 4))
    assert [reader.name for reader in readers_of(AnnotatedGraph(traced), node_by_name(traced, "_0"))] == ["_2"]


class OwnConvolution(nn.Conv2d):
    """Standardises its weights, so writing to them does not write what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class OwnNorm(nn.BatchNorm2d):
    """Does more than normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 4, 3, padding=1, groups=4)],
        [nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)],
        [nn.Conv2d(4, 4, 2, padding="same")],
        [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
        [OwnConvolution(4, 4, 1)],
        [nn.Conv2d(4, 4, 1), nn.ReLU()],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)],
        [nn.Conv2d(4, 4, 1), OwnNorm(4)],
        [nn.MaxPool2d(2)],
    ],
    ids=[
        "depthwise", "grouped", "same", "reflect", "own forward", "behind relu", "two norms", "norm without scale",
        "norm without statistics", "own norm", "pooling",
    ],
)  # fmt: skip
def test_what_cannot_be_solved_for_is_no_writer(layers):
    traced, _ = trace(nn.Sequential(*layers).eval(), (1, 4, 6, 6))
    assert writer_of(AnnotatedGraph(traced), list(traced.graph.nodes)[-2]) is None


def test_reflect_padding_of_nothing_is_solvable():
    traced, _ = trace(nn.Sequential(nn.Conv2d(4, 4, 1, padding_mode="reflect")).eval(), (1, 4, 6, 6))
    assert writer_of(AnnotatedGraph(traced), list(traced.graph.nodes)[-2]) is not None


class Twice(nn.Module):
    """One convolution called in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.relu(self.conv(x)))


def test_convolution_called_in_two_places_is_no_writer():
    traced, _ = trace(Twice().eval(), (1, 4, 6, 6))
    assert writer_of(AnnotatedGraph(traced), list(traced.graph.nodes)[-2]) is None


def test_output_that_others_read_before_the_norm_is_no_writer():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + self.relu(y)

    traced, _ = trace(Shared().eval(), (1, 4, 6, 6))
    assert writer_of(AnnotatedGraph(traced), node_by_name(traced, "norm")) is None


def site_at(network: nn.Module, shape: tuple[int, ...], block: str):
    traced, _ = trace(network, shape)
    found = {b.name: b for b in find_blocks(traced, shape)}[block]
    return traced, found, point_at_cut(AnnotatedGraph(traced), AnnotatedGraph(traced), found.entry, found.exit)


def test_site_of_a_cut_is_the_sum_before_it_and_its_target_the_blocks_own_sum():
    traced, _, point = site_at(tiny_resnet(), RESNET, "layer1.1")
    assert (point.value.name, point.target) == (additions(traced)[0].name, additions(traced)[1].name)
    assert [str(w.operator.target) for w in point.writers] == ["layer1.0.conv2"]


def test_site_of_a_cut_in_a_linear_stream_is_the_entry_itself():
    _, block, point = site_at(tiny_mobilenet(), MOBILENET, "features.3")
    assert (point.value.name, point.target) == (block.entry, block.exit)
    assert [str(w.operator.target) for w in point.writers] == ["features.2.conv.2"]


def test_there_is_no_site_behind_max_pooling():
    _, block, point = site_at(resnet18().eval(), (1, 3, 64, 64), "layer1.0")
    assert block.entry == "maxpool" and point is None


def test_there_is_no_site_where_activations_differ():
    """features.1 of the tiny MobileNet reads the stem's ReLU6 and ends in a plain sum."""
    _, _, point = site_at(tiny_mobilenet(), MOBILENET, "features.1")
    assert point is None


@pytest.mark.parametrize("how", ["hook", "own forward"])
def test_convolution_that_computes_more_than_its_weights_say_writes_nothing(how):
    traced, _ = trace(tiny_resnet(), RESNET)
    convolution = traced.get_submodule("layer1.0.conv2")
    assert writers_into(AnnotatedGraph(traced), additions(traced)[0])
    if how == "hook":
        convolution.register_forward_hook(lambda module, given, made: 3 * made)
    else:
        convolution.forward = lambda x: 3 * nn.Conv2d.forward(convolution, x)
    assert not writers_into(AnnotatedGraph(traced), additions(traced)[0])


def test_value_added_to_itself_has_no_writers():
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.fc(self.pool(y + y).flatten(1))

    traced, _ = trace(Doubled().eval(), RESNET)
    (node,) = traced.graph.find_nodes(op="call_function", target=operator.add)
    assert not writers_into(AnnotatedGraph(traced), node)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_a_word_is_refitted_like_one_by_number(padding):
    network = tiny_resnet()
    for name in ("layer1.0.conv2", "layer1.0.conv1"):
        conv = network.get_submodule(name)
        kernel = 3 if padding == "same" else 1
        network.set_submodule(name, nn.Conv2d(conv.in_channels, conv.out_channels, kernel, padding=padding, bias=False))
    network.eval()
    x = torch.randn(2, *RESNET[1:])
    wanted = network(x)
    traced, _ = trace(network, RESNET)
    assert torch.equal(traced(x), wanted)
    assert convolution_names(traced, additions(traced)[0]) == ["layer1.0.conv2"]


def test_cut_behind_dropout_is_refitted_at_the_sum_before_it():
    network = tiny_resnet()
    for block in network.layer2:
        block.relu = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    traced, _ = trace(network.eval(), RESNET)
    blocks = {block.name: block for block in find_blocks(traced, RESNET)}
    dropped = [blocks["layer2.1"]]
    point = point_at_cut(
        AnnotatedGraph(drop_blocks(traced, dropped)), AnnotatedGraph(traced), dropped[0].entry, dropped[0].exit
    )
    assert point is not None and point.writers


@pytest.mark.parametrize("folded_weights", [False, True])
def test_linear_outputs_are_sites_with_and_without_normalisation(folded_weights):
    network = tiny_mobilenet().eval()
    traced, _ = trace(network, MOBILENET)
    dropped = [block for block in find_blocks(traced, MOBILENET) if block.droppable][:1]
    wanted = len(points_of(drop_blocks(traced, dropped), traced, dropped, find_feature(traced).name))
    if folded_weights:
        traced, _ = trace(fuse(network), MOBILENET)
        dropped = [block for block in find_blocks(traced, MOBILENET) if block.droppable][:1]
    found = points_of(drop_blocks(traced, dropped), traced, dropped, find_feature(traced).name)
    assert len(found) == wanted
