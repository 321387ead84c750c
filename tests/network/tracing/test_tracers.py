"""Tracing with the sizes of an input: decisions on sizes are followed, those on anything else are not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from practise_deploy.errors import InputError
from practise_deploy.network.tracing.trace import trace

SHAPE = (1, 3, 16, 16)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Windows(nn.Module):
    """Pads to whole windows where it has to, by the sizes that it is given."""

    def __init__(self, side: int = 3, first: bool = True) -> None:
        super().__init__()
        self.side, self.first, self.mixed = side, first, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape if self.first else (x.size(0), *x.size()[1:])
        assert x.dim() == x.ndim == 4
        right, below = -width % self.side, -height % self.side
        if right or below:
            x = F.pad(x, (0, right, 0, below))
        x = x.view(n, channels, (height + below) // self.side, self.side, -1, self.side).transpose(3, 4)
        x = self.mixed(x.reshape(-1, channels, self.side, self.side))
        x = x.view(n, channels, (height + below) // self.side, -1, self.side, self.side).transpose(3, 4)
        return x.reshape(n, channels, height + below, width + right)[:, :, :height, :width]


@pytest.mark.parametrize("first", [True, False])
def test_decisions_on_sizes_are_taken_as_for_the_input_and_leave_the_number_of_images_open(first):
    network = nn.Sequential(Windows(3, first), nn.ReLU(), Windows(4, first)).eval()
    traced, whole = trace(network, SHAPE)
    assert whole == ()
    assert {"0.mixed", "2.mixed"} < {node.target for node in traced.graph.nodes}
    for count in (1, 2, 5):
        x = noise(count, *SHAPE[1:])
        with torch.no_grad():
            torch.testing.assert_close(traced(x), network(x))


def test_only_what_decides_on_more_than_sizes_stays_whole():
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rest = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(x) if x.sum() > 0 else x

    network = nn.Sequential(Windows(), nn.Sequential(Doubles(), nn.ReLU()), Windows()).eval()
    traced, whole = trace(network, SHAPE)
    assert whole == ("1.0",)
    assert {"0.mixed", "1.0", "2.mixed"} < {node.target for node in traced.graph.nodes}


class Decides(nn.Module):
    """Its own forward decides, not that of a module in it."""

    def __init__(self, by) -> None:
        super().__init__()
        self.by, self.convolution = by, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x) if self.by(x) else x


@pytest.mark.parametrize(
    "by",
    [lambda x: x.shape[0] == 1, lambda x: x.numel() > 0, lambda x: x.sum() > 0, lambda x: x.nonzero().shape[0] > 3],
    ids=["images", "all numbers", "values", "a size that depends on values"],
)
def test_decisions_on_the_number_of_images_or_on_values_are_refused(by):
    with pytest.raises(InputError, match="cannot be traced"):
        trace(Decides(by).eval(), SHAPE)


@pytest.mark.parametrize(
    "by",
    [
        lambda x: x.shape[1] == 3,
        lambda x: len(x.shape[2:]) == 2,
        lambda x: x.size(-1) > 8,
        lambda x: x.flatten(2).shape[-1] == 256,
        lambda x: (x * 2).shape == x.transpose(2, 3).shape,
    ],
)
def test_networks_own_forward_may_decide_on_sizes(by):
    traced, whole = trace(Decides(by).eval(), SHAPE)
    assert whole == () and "convolution" in {node.target for node in traced.graph.nodes}


def test_tracing_with_sizes_leaves_weights_and_modes_as_they_are():
    network = nn.Sequential(Windows(), nn.BatchNorm2d(3), nn.Dropout()).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(type(value) in (nn.Parameter, Tensor) for value in network.state_dict(keep_vars=True).values())
