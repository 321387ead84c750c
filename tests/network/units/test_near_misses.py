"""What looks like a residual unit and is none is listed with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.errors import NoDroppableBlock
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.terms import Block

torch.set_num_threads(1)  # networks this small run slower on two
SHAPE = (1, 3, 8, 8)
Meeting = Callable[[Tensor, Tensor], Tensor]


class Units(nn.Module):
    """Four layers, each of which meets its input."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting, self.stem = meeting, nn.Conv2d(3, 4, 1)
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = self.meeting(x, layer(x))
        return self.fc(x.mean((2, 3)))


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first * x + self.second * y


class Quantisable(nn.Module):
    """As networks are written that torch may quantise."""

    def __init__(self) -> None:
        super().__init__()
        self.plus = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.plus.add(x, y)


class Decides(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if x.sum() > -1e9 else x


def blocks_of(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[Block, ...]:
    return find_blocks(trace(network.eval(), shape)[0], shape)


@pytest.mark.parametrize("meeting", [Sum(), Weighted(), Quantisable()])
def test_sum_in_a_module_ends_a_unit(meeting: Meeting) -> None:
    assert [block.droppable for block in blocks_of(Units(meeting))] == [True] * 4


@pytest.mark.parametrize(
    "meeting, reason",
    [
        (lambda x, y: y.sigmoid() - x, "it subtracts its input"),
        (lambda x, y: x * y.sigmoid(), "its terms meet in mul, not in a sum"),
        (torch.maximum, "its terms meet in maximum, not in a sum"),
        (lambda x, y: x.lerp(y, 0.5), "its terms meet in lerp, not in a sum"),
        (lambda x, y: x + y.amax((2, 3), keepdim=True), "its sum is of two shapes: 4x8x8 and 4x1x1"),
        (lambda x, y: torch.stack([x, y]).sum(0), "its branches are stacked and then summed: x + f(x) would do"),
        (lambda x, y: torch.cat([x[:, :2], y[:, 2:]], 1), "its branches are concatenated, not added: 4x8x8 in, 4x8x8"),
        (Decides(), "its terms meet in a module that could not be looked into: meeting"),
    ],
)
def test_every_unit_that_is_none_says_why_and_the_first_are_in_the_refusal(meeting: Meeting, reason: str) -> None:
    blocks = blocks_of(Units(meeting))
    assert len({block.name for block in blocks}) == 4 and {block.parameters for block in blocks} == {4 * 4 * 9 + 4}
    assert all(block.reason.startswith(reason) and not block.droppable for block in blocks)
    with pytest.raises(NoDroppableBlock) as error:
        droppable(blocks)
    assert error.value.message.count(reason) == 3 and error.value.message.endswith("; and 1 more")


def test_module_that_keeps_the_shape_and_decides_on_values_is_listed() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(x) if x.sum() > -1e9 else x

    (block,) = blocks_of(nn.Sequential(nn.ReLU(), Whole(), nn.Conv2d(3, 2, 8)))
    assert (block.name, block.reason) == ("1", "it could not be looked into, and may hold residual units")


def test_module_that_scales_and_shifts_channels_is_not_listed() -> None:
    class Affine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(1, 3, 1, 1)), nn.Parameter(torch.zeros(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale + self.shift

    assert blocks_of(nn.Sequential(nn.ReLU(), Affine(), nn.Conv2d(3, 2, 8))) == ()


def test_sum_of_vectors_is_listed() -> None:
    class Vectors(Units):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).mean((2, 3))
            return x + torch.relu(nn.functional.linear(x, self.layers[0].weight[:, :, 0, 0]))

    assert [block.reason for block in blocks_of(Vectors(torch.add))] == [
        "its sum is of vectors, not of maps or tokens: 4 numbers each"
    ]


def test_what_is_within_a_unit_or_has_no_layers_is_not_listed() -> None:
    """A gate within a unit, a swish, a sum with positions, a class token in front of tokens."""

    class Gated(Units):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x * x.sigmoid() + torch.arange(8.0)
            y = self.layers[0](x)
            x = x + y * self.layers[1](y).sigmoid()
            return self.fc(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)[:, :4])

    assert [block.droppable for block in blocks_of(Gated(torch.add))] == [True]
