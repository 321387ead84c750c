"""Functions that write in place, in every way that one can be called, become ones that do not."""

import operator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from practise_deploy.errors import InputError
from practise_deploy.network.graph.activations import compute, nodes_to_compute
from practise_deploy.network.tracing import functionalise as writes
from practise_deploy.network.tracing.trace import trace

SHAPE = (1, 3, 8, 8)


class Block(nn.Module):
    """A residual unit behind a function that writes in place, and a mean that reads the sum."""

    def __init__(self, rectify) -> None:
        super().__init__()
        self.inside, self.rectify = nn.Conv2d(3, 3, 1), rectify

    def forward(self, x: Tensor) -> Tensor:
        before = x * 2
        after = self.rectify(before)
        return (before + self.inside(after)).mean((2, 3))


SOLVERS = {
    "torch.relu_": lambda x: torch.relu_(x),
    "F.relu_": lambda x: F.relu_(x),
    "F.relu by position": lambda x: F.relu(x, True),
    "F.relu by name": lambda x: F.relu(x, inplace=True),
    "F.relu6 by position": lambda x: F.relu6(x, True),
    "F.leaky_relu by position": lambda x: F.leaky_relu(x, 0.1, True),
    "F.elu_": lambda x: F.elu_(x),
    "torch.clamp_": lambda x: torch.clamp_(x, 0, 1),
    "input by name": lambda x: F.relu(input=x, inplace=True),
}


@pytest.mark.parametrize("way", SOLVERS)
def test_every_value_is_the_same_whatever_else_is_asked_for(way):
    torch.manual_seed(0)
    network, x = Block(SOLVERS[way]).eval(), torch.randn(SHAPE)
    with torch.no_grad():
        wanted = network(x.clone())
        traced, _ = trace(network, SHAPE)
        assert torch.allclose(traced(x), wanted, atol=1e-6)
        (total,) = [node for node in traced.graph.nodes if node.target in (operator.add, torch.add)]
        values = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
        start = next(node for node in traced.graph.nodes if node.op == "placeholder")

        def asked(*nodes) -> dict:
            return compute(
                traced,
                nodes_to_compute(list(nodes), {start.name}),
                {start.name: x},
                frozenset(node.name for node in nodes),
            )

        assert torch.equal(asked(total)[total.name], asked(*values)[total.name])


def test_writing_without_a_counterpart_is_refused():
    with pytest.raises(InputError, match="nonsense_, which writes in place"):
        writes._counterpart("nonsense_")


@pytest.mark.parametrize(
    "convolve",
    [
        lambda c, x: F.conv2d(x, c.weight, c.bias, padding=1),
        lambda c, x: F.conv2d(x, c.weight, bias=c.bias, stride=1, padding=1),
        lambda c, x: torch.conv2d(x, weight=c.weight, bias=c.bias, padding=1),
    ],
)
def test_functional_convolution_of_a_modules_weight_becomes_that_module(convolve):
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return convolve(self.c, x).mean((2, 3))

    torch.manual_seed(0)
    network, x = Functional().eval(), torch.randn(SHAPE)
    traced, _ = trace(network, SHAPE)
    assert torch.allclose(traced(x), network(x), atol=1e-6)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["c"]


def test_functional_convolution_without_its_modules_bias_stays_a_function():
    class Unbiased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (F.conv2d(x, self.c.weight, padding=1) * self.c.bias[:, None, None]).mean((2, 3))

    torch.manual_seed(0)
    network, x = Unbiased().eval(), torch.randn(SHAPE)
    traced, _ = trace(network, SHAPE)
    assert torch.allclose(traced(x), network(x), atol=1e-6)
    assert not any(node.op == "call_module" for node in traced.graph.nodes)
