"""Where a pruned network is refitted, and that the solutions are exact where they can be."""

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.refit.points import points_of
from samples.lessons import MOBILENET, RESNET, LinearStream, images, opened, refitted

# Exactness.


@pytest.mark.parametrize("normed", [True, False])
def test_writer_absorbs_a_linear_block_exactly(normed):
    torch.manual_seed(1)
    network = LinearStream(normed).double()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.running_mean)
    shape = (4, 3, 8, 8)
    teacher, feature, blocks = opened(network.eval(), shape)
    block = blocks["block"]
    student = drop_blocks(teacher, [block])
    points = [point for point in points_of(student, teacher, [block], feature) if point.target == block.exit]
    assert len(points) == 1
    data = images(12, shape, torch.float64)
    fresh = torch.randn(5, *shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        before = float((student(fresh) - teacher(fresh)).abs().max())
        student, _ = refitted(teacher, feature, [block], data, 1)
        after = float((student(fresh) - teacher(fresh)).abs().max())
    assert before > 1e-2
    assert after < 1e-9  # on images that it never saw


def test_sites_behind_an_exact_cut_change_nothing():
    torch.manual_seed(1)
    shape = (4, 3, 8, 8)
    teacher, feature, blocks = opened(LinearStream(False).double().eval(), shape)
    student, points = refitted(teacher, feature, [blocks["block"]], images(12, shape, torch.float64))
    assert len(points) == 2  # the cut, and what makes the feature map
    fresh = torch.randn(5, *shape[1:], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(student(fresh), teacher(fresh), rtol=1e-8, atol=1e-8)


# What is refitted.


def values_of(points):
    return [[str(writer.operator.target) for writer in point.writers] for point in points]


def test_sites_are_the_cut_and_every_sum_behind_it_in_order():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = drop_blocks(teacher, [blocks["layer2.1"]])
    assert values_of(points_of(student, teacher, [blocks["layer2.1"]], feature)) == [
        ["layer2.0.conv2", "layer2.0.downsample.0"],
        ["layer2.2.conv2"],
        ["layer3.0.conv2", "layer3.0.downsample.0"],
        ["layer3.1.conv2"],
        ["layer3.2.conv2"],
    ]


def test_blocks_dropped_in_a_row_share_one_site_that_stands_for_the_last():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    gone = [blocks["layer3.1"], blocks["layer3.2"]]
    student = drop_blocks(teacher, gone)
    (point,) = points_of(student, teacher, gone, feature)
    assert values_of([point]) == [["layer3.0.conv2", "layer3.0.downsample.0"]]
    assert point.target == node_by_name(teacher, blocks["layer3.2"].exit).all_input_nodes[0].name


def test_sites_of_a_mobilenet_are_block_outputs_of_the_linear_stream():
    teacher, feature, blocks = opened(tiny_mobilenet(), MOBILENET)
    student = drop_blocks(teacher, [blocks["features.4"]])
    found = values_of(points_of(student, teacher, [blocks["features.4"]], feature))
    assert found == [
        ["features.3.conv.2"], ["features.5.conv.2"], ["features.6.conv.2"], ["features.7.conv.2"], ["features.8.0"],
    ]  # fmt: skip


class SkipFirst(nn.Module):
    """Its projection is computed before a branch that holds a linear bottleneck, itself a place to refit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.projection = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.wide = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.last = nn.Conv2d(8, 6, 3, padding=1)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.first(x) + x)
        skip = self.projection(x)
        x = self.relu(self.wide(self.narrow(x)) + skip)
        x = self.relu(self.last(x))
        return self.fc(self.pool(x).flatten(1))


def gradient(student, teacher, point, x: Tensor) -> float:
    """Of the site's error by its first writer's weights: none where least squares was done on these activations."""
    convolution = student.get_submodule(str(point.writers[0].operator.target))
    student.requires_grad_(False)
    convolution.weight.requires_grad_(True)
    (found,), (wanted,) = (
        forward(network, x, [node])
        for network, node in ((student, point.value), (teacher, node_by_name(teacher, point.target)))
    )
    loss = (found - wanted).square().mean()
    loss.backward()
    assert loss.item() > 1e-6  # not interpolated: the gradient says something
    return float(convolution.weight.grad.abs().max())


def test_writer_computed_before_an_earlier_site_is_refitted_too():
    """The projection's output is known when `narrow` is solved, and is another one when it is solved itself."""
    torch.manual_seed(0)
    shape = (1, 3, 8, 8)
    teacher, feature, blocks = opened(SkipFirst().double().eval(), shape)
    (block,) = [each for each in blocks.values() if each.droppable]
    data = images(12, shape, torch.float64)
    before = projected(drop_blocks(teacher, [block]))
    student, points = refitted(teacher, feature, [block], data)
    assert values_of(points) == [["stem.0"], ["narrow.0"], ["wide.0", "projection.0"], ["last"]]
    assert not torch.equal(before, projected(student))
    assert max(gradient(student, teacher, point, data.pixels) for point in points[2:]) < 1e-7


def projected(student) -> Tensor:
    return student.get_submodule("projection.0").weight.detach().clone()


@pytest.mark.parametrize(
    ("make", "shape", "name"), [(tiny_resnet, RESNET, "layer2.1"), (tiny_mobilenet, MOBILENET, "features.4")]
)
def test_sequence_solves_on_the_students_own_activations(make, shape, name):
    """Every site's rows are of the student as it is by then: no other weights fit them better."""
    teacher, feature, blocks = opened(make(), shape)
    teacher = teacher.double()
    data = images(24, shape, torch.float64)
    student, points = refitted(teacher, feature, [blocks[name]], data, 2)
    assert gradient(student, teacher, points[1], data.pixels) < 1e-7
