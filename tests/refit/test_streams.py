"""Streams that can be mapped whole: who reads them and writes to them, and which ones are refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cifar_resnets import make_resnet20
from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.activations import find_feature, named
from practise_deploy.network.trace import trace
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.problems import StreamProblem
from practise_deploy.refit.solvers import STREAM_MAP, STREAM_SCALE, ways_of
from practise_deploy.refit.streams import Stream, insert, stream_of
from practise_deploy.refit.writers import Site, writers_into

RESNET, MOBILENET, SMALL = (1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 8, 8)


def opened(network: nn.Module, shape: tuple[int, ...]):
    traced, _ = trace(network.eval(), shape)
    return traced, find_feature(traced).name


def site_at(traced, name: str) -> Site:
    return Site(named(traced, name), writers_into(traced, named(traced, name)), name)


def stream_at(traced, feature: str, name: str) -> Stream | None:
    site = site_at(traced, name)
    assert site.writers
    return stream_of(traced, site, feature)


def around(stream: Stream) -> tuple[list[str], list[str], bool]:
    """The convolutions that read a stream and write to it, and whether its map has to be diagonal."""
    written = [str(writer.operator.target) for writer in stream.writers]
    return [str(reader.target) for reader in stream.readers], written, stream.diagonal


def sums(traced) -> list[str]:
    return [node.name for node in traced.graph.nodes if node.op == "call_function" and "add" in node.name]


# Who is around.


def test_stream_of_a_resnet_goes_through_its_activations_to_the_next_stage():
    traced, feature = opened(tiny_resnet(), RESNET)
    assert around(stream_at(traced, feature, sums(traced)[0])) == (
        ["layer1.1.conv1", "layer1.2.conv1", "layer2.0.conv1", "layer2.0.downsample.0"],
        ["layer1.1.conv2", "layer1.2.conv2"],
        True,
    )


def test_stream_of_a_mobilenet_is_linear():
    traced, feature = opened(tiny_mobilenet(), MOBILENET)
    assert around(stream_at(traced, feature, "features_2_conv_3")) == (
        ["features.3.conv.0.0", "features.4.conv.0.0", "features.5.conv.0.0"],
        ["features.3.conv.2", "features.4.conv.2"],
        False,
    )


def test_linear_stream_can_be_mapped_and_one_with_activations_scaled():
    traced, feature = opened(tiny_mobilenet(), MOBILENET)
    linear = ways_of(stream_at(traced, feature, "features_2_conv_3"))
    traced, feature = opened(tiny_resnet(), RESNET)
    activated, none = ways_of(stream_at(traced, feature, sums(traced)[0])), ways_of(None)
    assert list(linear)[-3:] == [STREAM_SCALE, f"{STREAM_MAP}, ridge 0.01", f"{STREAM_MAP}, ridge 0.3"]
    assert list(activated) == [*none, STREAM_SCALE]
    assert not [name for name in none if "stream" in name]


# Refusals.


class Ending(nn.Module):
    """A linear stream of four channels that something else than plain convolutions may read."""

    def __init__(self, reader: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.branch = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.reader = nn.Conv2d(4, 4, 3, padding=1) if reader is None else reader
        self.head, self.pool, self.classes = nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        return self.ends(self.read(x + self.branch(x)))

    def read(self, x: Tensor) -> Tensor:
        return self.reader(x)

    def ends(self, x: Tensor) -> Tensor:
        return self.classes(self.pool(F.relu(self.head(F.relu(x)))).flatten(1))


class OwnConvolution(nn.Conv2d):
    """Standardises its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class ReadTwice(Ending):
    def read(self, x: Tensor) -> Tensor:
        return self.reader(x) + self.reader(x.flip(3))


class Sliced(Ending):
    def read(self, x: Tensor) -> Tensor:
        return self.reader(x[:, :, ::2, ::2])


class Scaled(Ending):
    def read(self, x: Tensor) -> Tensor:
        return self.reader(x * 2)


class JoinedByAnother(Ending):
    """Something that is no writer's output is added."""

    def read(self, x: Tensor) -> Tensor:
        return self.reader(x + F.relu(self.norm(x)))


@pytest.mark.parametrize(
    "network",
    [
        Ending(nn.Conv2d(4, 4, 3, padding=1, groups=4)),
        Ending(nn.Conv2d(4, 4, 3, padding=1, groups=2)),
        Ending(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
        Ending(OwnConvolution(4, 4, 1)),
        Ending(nn.BatchNorm2d(4)),
        Ending(nn.ReLU6()),
        Ending(nn.SiLU()),
        Ending(nn.AvgPool2d(2)),
        ReadTwice(),
        Sliced(),
        Scaled(),
        JoinedByAnother(),
    ],
    ids=[
        "depthwise", "grouped", "reflect", "own forward", "norm", "relu6", "silu", "pooling", "module called twice",
        "sliced", "function", "added to no writer",
    ],
)  # fmt: skip
def test_stream_that_anything_but_plain_convolutions_reads_has_no_map(network):
    traced, feature = opened(network, SMALL)
    assert stream_at(traced, feature, sums(traced)[0]) is None


@pytest.mark.parametrize("reader", [None, nn.Identity(), nn.Dropout(), nn.ZeroPad2d((0, 2, 0, 2)), nn.ReLU()])
def test_stream_passes_what_does_not_mix_its_channels(reader):
    traced, feature = opened(Ending(reader), SMALL)
    assert stream_at(traced, feature, sums(traced)[0]) is not None


def test_option_a_shortcuts_let_no_map_through():
    torch.manual_seed(0)
    traced, feature = opened(make_resnet20(), (1, 3, 32, 32))
    assert [stream_at(traced, feature, name) for name in sums(traced)] == [None] * 9


def test_stream_of_the_feature_map_is_left_as_it_is():
    traced, feature = opened(tiny_resnet(), RESNET)
    found = [stream_at(traced, feature, name) is not None for name in sums(traced)]
    assert found == [True] * 6 + [False] * 3
    traced, _ = opened(Ending(), SMALL)
    (value,) = sums(traced)
    assert stream_at(traced, "elsewhere", value) is not None
    assert stream_at(traced, value, value) is None


class Summed(nn.Module):
    """A convolution's output that is but a term of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.drop = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Dropout()
        self.head, self.pool, self.classes = nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.left(x)) + self.right(x)
        return self.classes(self.pool(F.relu(self.head(x))).flatten(1))


def test_term_of_a_sum_is_no_stream_of_its_own():
    traced, feature = opened(Summed(), SMALL)
    assert [stream_at(traced, feature, name) for name in ("left", "right")] == [None, None]
    assert stream_at(traced, feature, "add") is not None


# Which maps are kept.


def test_map_is_judged_together_with_those_before_it():
    traced, _ = opened(tiny_mobilenet(), MOBILENET)
    first, second = site_at(traced, "features_2_conv_3"), site_at(traced, sums(traced)[1])
    stretched = torch.eye(25, 24, dtype=torch.float64)
    stretched[0, 0] = 100.0
    assert StreamProblem(traced, second).admits(stretched)
    insert(traced, first, stretched[:-1], stretched[-1])
    assert not StreamProblem(traced, second).admits(stretched)
    shrunk = torch.eye(25, 24, dtype=torch.float64)
    shrunk[0, 0] = 0.1
    assert StreamProblem(traced, second).admits(shrunk)


@pytest.mark.parametrize("spoiled", [0.0, 1e-4, 1e4, float("nan"), float("inf")])
def test_map_that_can_hardly_be_inverted_is_not_kept(spoiled: float):
    traced, _ = opened(tiny_mobilenet(), MOBILENET)
    problem = StreamProblem(traced, site_at(traced, "features_2_conv_3"))
    matrix = problem.start
    assert problem.admits(matrix)
    matrix[3, 3] = spoiled
    assert not problem.admits(matrix)


def test_scales_are_positive_and_within_bounds_and_their_bias_fits_best():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4000, 4, generator=generator, dtype=torch.float64) + 1
    wanted = values * torch.tensor([-2.0, 0.5, 3.0, 100.0]) + torch.tensor([1.0, -1.0, 0.0, 2.0])
    rows = torch.cat([values, torch.ones(4000, 1, dtype=torch.float64)], 1)
    equations = NormalEquations()
    equations.add(rows, wanted)
    stream = Stream(frozenset(), (), (), diagonal=True)
    found = ways_of(stream)[STREAM_SCALE].solve(equations, torch.eye(5, 4, dtype=torch.float64))
    torch.testing.assert_close(found.diagonal(), torch.tensor([0.1, 0.5, 3.0, 10.0]).double(), rtol=0.02, atol=0)
    assert torch.count_nonzero(found[:-1] - torch.diag(found.diagonal())) == 0
    torch.testing.assert_close((rows @ found).mean(0), wanted.mean(0), rtol=1e-9, atol=1e-9)
