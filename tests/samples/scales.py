"""Layers with learned factors behind them, as the tests of writers share them."""

import torch
from torch import Tensor, nn

from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.writers import writer_of

TOKENS, MAP = (2, 5, 4), (2, 3, 5, 4)


def last_value(network: nn.Module, shape: tuple[int, ...]):
    traced, _ = trace(network.eval(), shape)
    return traced, list(traced.graph.nodes)[-2]


def writer_at_the_end(network: nn.Module, shape: tuple[int, ...]):
    traced, last = last_value(network, shape)
    return writer_of(AnnotatedGraph(traced), last)


class Scaled(nn.Module):
    """A linear layer whose output is multiplied by factors of some shape. also: what else they are used for behind it."""

    def __init__(self, *shape: int, also: str = "", learned: bool = True) -> None:
        super().__init__()
        self.fc, self.also = nn.Linear(4, 6), also
        if learned:
            self.factors = nn.Parameter(torch.rand(shape))
        else:
            self.register_buffer("factors", torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x) * self.factors
        return getattr(torch, self.also)(y.relu(), self.factors) if self.also else y


class Reshaped(nn.Module):
    """Factors that are reshaped before they multiply, from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.factors = nn.Conv2d(4, 6, 1), nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.factors.reshape(1, -1, 1, 1) * self.conv(x)


class Gain(nn.Module):
    """A module of one parameter, as a network may have its own. does: with the input and it."""

    def __init__(self, *shape: int, does=lambda x, gain: x * gain) -> None:
        super().__init__()
        self.gain, self.does = nn.Parameter(torch.rand(shape)), does

    def forward(self, x: Tensor) -> Tensor:
        return self.does(x, self.gain)
