"""Learned factors behind a layer that can be solved for, and what else its weights are used for."""

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.activations import node_by_name
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.writers import writer_of
from samples.scales import MAP, TOKENS, Gain, Scaled, last_value, writer_at_the_end


@pytest.mark.parametrize(
    ("module", "is_scale"),
    [
        (Gain(6), True),
        (Gain(6, does=lambda x, gain: gain.view(1, 1, -1) * x), True),
        (Gain(1, 6, does=lambda x, gain: torch.mul(x, gain)), True),
        (Gain(6, does=lambda x, gain: x + gain), False),
        (Gain(6, does=lambda x, gain: x.relu() * gain), False),
        (Gain(6, does=lambda x, gain: x * gain + gain), False),
        (Gain(6, does=lambda x, gain: x * gain if x.sum() > 0 else x), False),
        (Gain(1), True),
        (Gain(), True),
    ],
)
def test_module_of_one_parameter_is_a_scale_where_it_multiplies_by_it(module, is_scale):
    traced, last = last_value(nn.Sequential(nn.Linear(4, 6), module), TOKENS)
    writer = writer_of(AnnotatedGraph(traced), last)
    assert (writer is not None) == is_scale
    assert writer is None or writer.factors is traced.get_parameter("1.gain")


@pytest.mark.parametrize("also", ["add", "mul"])
def test_factors_that_are_used_elsewhere_are_no_scale(also):
    traced, _ = trace(Scaled(6, also=also).eval(), TOKENS)
    assert writer_of(AnnotatedGraph(traced), node_by_name(traced, "mul")) is None


@pytest.mark.parametrize("hooked", [0, 1])
def test_hooked_layers_and_scales_are_not_solved_for(hooked):
    network = nn.Sequential(nn.Linear(4, 6), Gain(6))
    assert writer_at_the_end(network, TOKENS) is not None
    network[hooked].register_forward_hook(lambda module, given, made: made.relu())
    assert writer_at_the_end(network, TOKENS) is None


class Tied(nn.Module):
    """Two linear layers and two modules of factors that share what they hold."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.first, self.second, self.gain, self.other = nn.Linear(4, 4), nn.Linear(4, 4), Gain(4), Gain(4)
        if what == "weight":
            self.first.weight = self.second.weight
        elif what == "bias":
            self.first.bias = self.second.bias
        elif what == "factors":
            self.other.gain = self.gain.gain
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        x = self.gain(self.first(x)).relu()
        x = nn.functional.linear(x, self.second.weight) if self.what == "function" else x
        return self.other(self.second(x))


@pytest.mark.parametrize("what", ["nothing", "weight", "bias", "factors", "function"])
def test_weights_that_two_layers_share_are_not_solved_for(what):
    assert (writer_at_the_end(Tied(what), TOKENS) is not None) == (what == "nothing")


def test_layer_scales_of_timm_are_scales():
    layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    for network, shape in (
        (nn.Sequential(nn.Linear(4, 6), layers.LayerScale(6)), TOKENS),
        (nn.Sequential(nn.Linear(4, 6), layers.LayerScale(6, inplace=True)), TOKENS),
        (nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), layers.LayerScale2d(6)), MAP),
    ):
        writer = writer_at_the_end(network, shape)
        assert writer is not None and writer.scale is not None
    assert writer_at_the_end(nn.Sequential(nn.Linear(4, 4), layers.LayerScale2d(3)), MAP) is None
