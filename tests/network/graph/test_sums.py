"""A residual unit is one however its sum is written."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from samples.lessons import Silent, images, opened, recover

SHAPE = (1, 3, 8, 8)
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "alpha": lambda x, y: torch.add(x, y, alpha=0.5),
    "method with alpha": lambda x, y: x.add(y, alpha=-0.3),
    "difference": lambda x, y: x - y,
    "difference in place": operator.isub,
    "difference with alpha": lambda x, y: torch.sub(x, y, alpha=2),
}


class Units(nn.Module):
    def __init__(self, total: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.total = total
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1)) for _ in range(3)
        )
        self.head = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.total(x, block(x))
        return self.fc(torch.relu(self.head(x)).mean((2, 3)))


@pytest.mark.parametrize("spelling", SUMS)
def test_unit_is_found_dropped_and_recovered_however_its_sum_is_written(spelling: str) -> None:
    module, x = Units(SUMS[spelling]).eval(), torch.randn(2, *SHAPE[1:])
    teacher, feature, blocks = opened(module, SHAPE)
    assert torch.allclose(teacher(x), module(x), atol=1e-6)
    gone = next(block for block in blocks.values() if block.droppable)
    student = recover(teacher, feature, [gone], images(20, SHAPE), 0, Silent())
    assert student.mse < student.mse_before


@pytest.mark.parametrize("spelling", ["alpha", "difference"])
def test_what_stays_without_the_unit_is_its_input(spelling: str) -> None:
    module, x = Units(SUMS[spelling]).eval(), torch.randn(2, *SHAPE[1:])
    teacher, _ = trace(module, SHAPE)
    blocks = droppable(find_blocks(teacher, SHAPE))
    assert len(blocks) == 3
    student = drop_blocks(teacher, blocks[1:2])
    module.blocks = nn.ModuleList([module.blocks[0], module.blocks[2]])
    assert torch.allclose(student(x), module(x), atol=1e-6)


def test_difference_that_ends_no_unit_is_none() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.a(x) - self.b(x)).mean((2, 3)))

    assert find_blocks(trace(Centred().eval(), SHAPE)[0], SHAPE) == ()
