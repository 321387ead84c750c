"""Where nothing can be solved for at the sums: what the layers of the units put out is made what it was."""

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.refit.points import points_of
from samples.lessons import RESNET, LinearBlock, Silent, held_out_error, images, opened, recover, refitted


class GateResult(nn.Module):
    """Squeeze and excitation: a factor for each channel, of the whole image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class Unit(nn.Module):
    """A unit whose sum has no linear term: its branch ends in an activation, or in a gate."""

    def __init__(self, width: int, last: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2, self.last = nn.Conv2d(4, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), last

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.bn2(self.conv2(nn.functional.silu(self.bn1(self.conv1(x))))))


class Units(nn.Module):
    """A stem that ends in SiLU, units, and a head that does."""

    def __init__(self, *units: nn.Module) -> None:
        super().__init__()
        self.stem, self.units = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU()), nn.Sequential(*units)
        self.head, self.act, self.fc = nn.Conv2d(6, 8, 1), nn.SiLU(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.head(self.units(self.stem(x)))).mean((2, 3)))


def made(*units: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return Units(*units).eval()


def sites_without(network: nn.Module, name: str) -> list[str]:
    teacher, feature, blocks = opened(network, RESNET)
    student = drop_blocks(teacher, [blocks[name]])
    return [point.target for point in points_of(student, teacher, [blocks[name]], feature)]


@pytest.mark.parametrize("last", [nn.SiLU, lambda: GateResult(6), lambda: nn.GroupNorm(2, 6)])
def test_layers_of_units_without_a_writer_are_sites_and_gates_of_one_position_are_not(last):
    torch.manual_seed(0)
    network = made(Unit(6, last()), Unit(6, last()), Unit(6, last()))
    assert sites_without(network, "units.1") == ["units_2_bn1", "units_2_bn2", "head"]


def test_layers_are_no_sites_where_the_next_sum_is_one():
    """One unit's branch ends in a norm: its sum is the site, and none of its layers."""
    torch.manual_seed(0)
    network = made(Unit(6, nn.SiLU()), Unit(6, nn.SiLU()), Unit(6, nn.Identity()), Unit(6, nn.SiLU()))
    assert sites_without(network, "units.0") == [
        "units_1_bn1",
        "units_1_bn2",
        "add_2",
        "units_3_bn1",
        "units_3_bn2",
        "head",
    ]


def test_layer_that_reads_the_stream_absorbs_a_linear_block_before_it():
    """Nothing can be solved for before the cut, but the head takes x + W x in: what it gives is exactly what it was."""
    torch.manual_seed(0)
    network = made(Unit(6, nn.SiLU()), LinearBlock(6)).double()
    teacher, feature, blocks = opened(network, RESNET)
    teacher.double()
    data = images(12, RESNET, torch.float64)
    student, points = refitted(teacher, feature, [blocks["units.1"]], data)
    assert [point.target for point in points] == ["head"]
    x = images(3, RESNET, torch.float64, seed=9).pixels
    torch.testing.assert_close(student(x), teacher(x), rtol=0, atol=1e-10)


def test_refit_within_units_leaves_less_error_than_the_plain_drop():
    torch.manual_seed(0)
    network = made(*(Unit(6, nn.SiLU()) for _ in range(4)))
    teacher, feature, blocks = opened(network, RESNET)
    gone = [blocks["units.1"]]
    student = recover(teacher, feature, gone, images(30, RESNET), 0, Silent())
    plain, recovered = held_out_error(teacher, feature, gone, student, images(20, RESNET, seed=8))
    assert recovered < 0.7 * plain
    assert any(choice.point == "units_2_bn1" for choice in student.choices)
