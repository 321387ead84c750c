"""Patches against unfold, and the positions they are drawn at."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from networks import tiny_resnet
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit import rows
from practise_deploy.refit.affine import patches_of, vectors_at
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import points_of
from practise_deploy.refit.rows import Sampler, rows_in_memory
from practise_deploy.refit.writers import ReconstructionPoint, writers_into
from samples.lessons import opened
from samples.solving import additions, noise

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1)},
    ],
    ids=str,
)
def test_patches_are_those_of_unfold_at_the_drawn_positions(options):
    convolution = nn.Conv2d(3, 4, **options).double()
    x = noise(2, 3, 9, 8)
    height, width = convolution(x).shape[2:]
    drawn = torch.randperm(height * width, generator=torch.Generator().manual_seed(4))[:7]
    found = patches_of(convolution, x, (drawn // width, drawn % width))
    keys = {key: options.get(key, default) for key, default in (("padding", 0), ("stride", 1), ("dilation", 1))}
    wanted = F.unfold(x, convolution.kernel_size, **keys)[:, :, drawn].permute(0, 2, 1).flatten(0, 1)
    assert torch.equal(found, wanted)


def test_patches_times_weights_are_the_convolution():
    convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    x, at = noise(2, 3, 8, 8), (torch.tensor([0, 3, 2]), torch.tensor([1, 3, 0]))
    found = patches_of(convolution, x, at) @ convolution.weight.flatten(1).T + convolution.bias
    wanted = vectors_at(convolution(x), 1, at).flatten(0, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_drawn_positions_are_within_the_value_distinct_and_the_same_each_time():
    traced, _ = trace(tiny_resnet(), RESNET)
    value = additions(traced)[3]
    point = ReconstructionPoint(value, writers_into(AnnotatedGraph(traced), value), value.name)
    sampler = Sampler(images=1000, seed=5)
    rows_, columns = sampler.places(point)
    assert len(rows_) == 20
    assert len({(int(r), int(c)) for r, c in zip(rows_, columns, strict=True)}) == 20
    assert int(rows_.max()) < 8 and int(columns.max()) < 8
    again = Sampler(images=1000, seed=5).places(point)
    assert torch.equal(rows_, again[0]) and torch.equal(columns, again[1])
    assert len(Sampler(images=2, seed=5).places(point)[0]) == 64  # all there are


def test_rows_are_as_many_as_the_targets_of_all_students_leave_room_for(monkeypatch):
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    dropped = [blocks["layer1.1"]]
    points = points_of(drop_blocks(teacher, dropped), teacher, dropped, feature)
    images, beside = 40, 6

    def held(rows_):
        sampler = Sampler(images, 0, rows_)
        drawn = [(point.value.meta["shape"][1], len(sampler.places(point)[0])) for point in points]
        return 4 * images * beside * sum(channels * positions for channels, positions in drawn)

    whole = held(20_000)
    monkeypatch.setattr(rows, "ROOM_FOR_TARGETS", whole)
    assert rows_in_memory(points, images, 20_000, beside) == 20_000  # what no value has is not counted
    for room in (whole - 1, whole // 3, whole // 20):
        monkeypatch.setattr(rows, "ROOM_FOR_TARGETS", room)
        found = rows_in_memory(points, images, 20_000, beside)
        assert held(found) <= room < held(found + images)
    monkeypatch.setattr(rows, "ROOM_FOR_TARGETS", 1)
    assert rows_in_memory(points, images, 20_000, beside) == images  # one position an image is the least
    assert rows_in_memory([], images, 20_000) == 20_000
