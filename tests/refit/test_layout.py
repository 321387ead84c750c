"""Rearranged values: found for what they are, and solved at the positions that they came from."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import SwapAxes, WindowDepartition, WindowPartition

from networks import tiny_swin
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.affine import applied
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import point_at_cut, points_of
from practise_deploy.refit.replay import changed
from practise_deploy.refit.rows import Sampler, rows_for, values_for
from practise_deploy.refit.write_back import start_of
from practise_deploy.refit.writers import ReconstructionPoint, writer_of, writers_into
from samples.lessons import images, opened, refitted

IMAGES = (1, 4, 8, 8)


class FlattenRelu(nn.Flatten):
    """More than its class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Between(nn.Module):
    """A linear layer on the positions of a map, after one rearrangement and before another."""

    def __init__(self, first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor], operator=None) -> None:
        super().__init__()
        self.operator, self.first, self.then = operator or nn.Linear(4, 6), first, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.operator(self.first(x)))


class Parts(nn.Module):
    """torchvision's own modules that put windows of a map one after another, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.apart, self.swap, self.operator = WindowPartition(), SwapAxes(-2, -3), nn.Linear(4, 6)
        self.back, self.together = SwapAxes(-2, -3), WindowDepartition()

    def forward(self, x: Tensor) -> Tensor:
        return self.together(self.back(self.operator(self.swap(self.apart(x, 4)))), 4, 2, 2)


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def windows(x: Tensor) -> Tensor:
    """Shapes: [n, 4, 8, 8] -> [4 n, 16, 4]."""
    n, channels, height, width = x.shape
    parts = x.view(n, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
    return parts.reshape(-1, 16, channels)


def together(x: Tensor) -> Tensor:
    return x.view(-1, 2, 2, 4, 4, x.shape[-1]).transpose(2, 3).reshape(-1, 8, 8, x.shape[-1])


MOVED = {
    "tokens of a map": Between(lambda x: x, lambda x: x.flatten(2).transpose(1, 2), nn.Conv2d(4, 6, 3, padding=1)),
    "tokens of a map by view": Between(lambda x: x, lambda x: x.view(x.size(0), 6, -1), nn.Conv2d(4, 6, 1)),
    "images viewed before all else": Between(lambda x: last(x.view(-1, 4, 8, 8)), lambda x: x.flatten(1, 2)),
    "positions swapped": Between(last, lambda x: x.transpose(1, 2)),
    "windows put together": Between(windows, together),
    "windows to a map of channels": Between(windows, lambda x: together(x).permute(0, 3, 1, 2)),
    "windows put together, shifted and cut": Between(windows, lambda x: together(x).roll((3, 1), (1, 2))[:, 1:7, :5]),
    "windows by an axis of their own": Between(windows, lambda x: x.unflatten(0, (-1, 4))),
    "windows of other positions": Between(windows, lambda x: together(x).reshape(x.shape[0], 16, 6)),
    "windows as they are": Between(windows, lambda x: x),
    "rows of all positions": Between(lambda x: last(x).reshape(-1, 4), lambda x: x.view(-1, 64, 6)),
    "modules of torchvision": Parts(),
}


@pytest.mark.parametrize("network", MOVED.values(), ids=MOVED.keys())
def test_moves_are_those_that_the_network_makes(network):
    traced, _ = trace(network.eval(), IMAGES)
    value = list(traced.graph.nodes)[-2]
    (writer,) = writers_into(AnnotatedGraph(traced), value)
    x = torch.randn(3, *IMAGES[1:])
    operator = writer.layer
    with torch.no_grad():
        source, found = forward(traced, x, [writer.source, value])
        given = applied(operator, operator.weight, source)
        bias = operator.bias.view([-1 if axis == writer.axis else 1 for axis in range(found.ndim)])
        torch.testing.assert_close(writer.from_operator.moved(given) + bias, found)
        sides = writer.from_operator.after.sides
        places = torch.unravel_index(torch.randperm(sides[0] * (sides[1] if sides[1:] else 1))[:11], sides)
        before = writer.from_operator.before.vectors(given, writer.from_operator.places_before(places)) + operator.bias
        torch.testing.assert_close(writer.from_operator.after.vectors(found, places), before)


@pytest.mark.parametrize(
    "then",
    [
        lambda x: x.reshape(-1, 8, 12, 4),
        lambda x: x.reshape(-1, 6, 8, 8),
        lambda x: x.roll(1, 0),
        lambda x: x.roll(1, 3),
        lambda x: x.reshape(x.shape[0] * 6, 8, 8).reshape(-1, 8, 8, 6),
        lambda x: x[..., :5],
        lambda x: F.max_pool2d(x, 1),
        lambda x: x.flatten(0, 2).transpose(0, 1),
        lambda x: x[:, :1, :1].flatten(1),
        lambda x: x[:, :1].squeeze(),
        lambda x: x.reshape(1, 64, 6),
        FlattenRelu(1, 2),
    ],
    ids=[
        "channels mixed with positions", "positions taken for channels", "images mixed", "channels in another order",
        "channels among images and back", "without a channel", "another operation", "no images",
        "no positions", "no images when there is one", "one image", "a subclass that does more",
    ],
)  # fmt: skip
def test_what_mixes_channels_or_images_is_no_rearrangement(then):
    traced, _ = trace(Between(last, then).eval(), IMAGES)
    assert writer_of(AnnotatedGraph(traced), list(traced.graph.nodes)[-2]) is None


class LinearStep(nn.Module):
    """x + W x on tokens, whatever positions they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x)


class Windowed(nn.Module):
    """A stream that a layer on shifted windows adds to, and a linear block on its tokens that the layer can take over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.writer, self.block, self.head = (
            nn.Conv2d(4, 6, 1),
            nn.Linear(6, 6),
            LinearStep(),
            nn.Linear(6, 3),
        )
        self.behind = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        moved = together(self.writer(windows(x.roll(1, 2)))).roll(-1, 1)
        tokens = (x.permute(0, 2, 3, 1) + moved).reshape(x.shape[0], 64, 6)
        return self.head(F.relu(F.pad(self.behind(self.block(tokens)), (0, 1))).mean(1))


def test_writer_on_windows_absorbs_a_linear_block_on_tokens_exactly():
    torch.manual_seed(1)
    teacher, feature, blocks = opened(Windowed().double().eval(), IMAGES)
    block = blocks["block"]
    fresh = torch.randn(5, *IMAGES[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        before = float((drop_blocks(teacher, [block])(fresh) - teacher(fresh)).abs().max())
        student, points = refitted(teacher, feature, [block], images(12, IMAGES, torch.float64), 1)
        after = float((student(fresh) - teacher(fresh)).abs().max())
    assert [str(writer.operator.target) for writer in points[0].writers] == ["writer"]
    assert before > 1e-2
    assert after < 1e-9  # on images that it never saw


class TwoWriters(nn.Module):
    """A sum of what a layer on shifted windows and a normalised convolution give, then cut and made tokens, or windows."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.gamma, self.end = nn.Linear(4, 6), nn.Parameter(torch.rand(6, 1, 1) + 0.5), end
        self.conv, self.norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        moved = together(self.fc(windows(x.roll(1, 2)))).permute(0, 3, 1, 2)
        return self.end(moved * self.gamma + self.norm(self.conv(x)))


@pytest.mark.parametrize(
    "end",
    [lambda x: x, lambda x: x[:, :, 1:7, :5].flatten(2).transpose(1, 2), windows],
    ids=["as it is", "cut, as tokens", "in windows"],
)
def test_rows_of_writers_of_different_layouts_are_of_the_same_positions(end):
    torch.manual_seed(3)
    traced, _ = trace(TwoWriters(end).double().eval(), IMAGES)
    value = list(traced.graph.nodes)[-2]
    point, sampler = (
        ReconstructionPoint(value, writers_into(AnnotatedGraph(traced), value), value.name),
        Sampler(3, seed=0, rows=60),
    )
    assert sorted(str(writer.operator.target) for writer in point.writers) == ["conv", "fc"]
    x, nodes = torch.randn(3, *IMAGES[1:], dtype=torch.float64), values_for(point)
    with torch.no_grad():
        env = dict(zip([node.name for node in nodes], forward(traced, x, nodes), strict=True))
        own = sampler.vectors(point, env[value.name])
        patches, targets = rows_for(point, env, own, sampler)
        start = start_of(point)
        torch.testing.assert_close(patches @ start, targets, rtol=1e-12, atol=1e-12)
        change = torch.randn_like(start)
        after = sampler.vectors(point, changed(point, change, env, torch.float32))  # no autocast
        torch.testing.assert_close((after - own).flatten(0, 1), patches @ change, rtol=1e-12, atol=1e-12)


def test_sum_that_is_rearranged_before_a_cut_is_solved_there():
    teacher, _, blocks = opened(tiny_swin(), (1, 3, 16, 16))
    points = [
        point_at_cut(AnnotatedGraph(teacher), AnnotatedGraph(teacher), block.entry, block.exit)
        for block in blocks.values()
    ]
    found = [[str(writer.operator.target) for writer in point.writers] for point in points]
    assert found == [["stem"], ["blocks.0.attn.proj"], ["blocks.0.fc2"], ["blocks.1.attn.proj"]]


@pytest.mark.parametrize(
    ("gone", "cut"), [([1], "blocks.0.attn.proj"), ([2, 3], "blocks.0.fc2"), ([1, 2], "blocks.0.attn.proj"), ([3], "")]
)
def test_no_writer_is_solved_twice(gone, cut):
    teacher, feature, blocks = opened(tiny_swin(), (1, 3, 16, 16))
    dropped = [list(blocks.values())[number] for number in gone]
    points = points_of(drop_blocks(teacher, dropped), teacher, dropped, feature)
    writers = [str(writer.operator.target) for point in points for writer in point.writers]
    assert len(writers) == len(set(writers)) and (not cut or writers[0] == cut)
    assert not cut or points[0].target == dropped[-1].exit


def test_sum_that_is_read_as_it_was_too_is_not_solved_behind_its_rearrangement():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc, self.head = nn.Conv2d(4, 6, 1), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = last(self.stem(x))
            x = x + self.fc(x.relu())
            return self.head(x.reshape(x.shape[0], 64, 6).mean(1) + x.relu().mean((1, 2)))

    traced, _ = trace(Shared().eval(), IMAGES)
    graph = AnnotatedGraph(traced)
    assert writers_into(graph, node_by_name(traced, "add"))
    assert not writers_into(graph, node_by_name(traced, "reshape"))
