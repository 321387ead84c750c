"""Operations that are executed fused give, in fp64, the values and the gradients of one after another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional as F

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.graph.activations import compute, input_of, logits_of, nodes_to_compute
from practise_deploy.network.graph.execution import execute, fusion_groups
from practise_deploy.network.tracing.trace import trace

SHAPE = (3, 3, 8, 8)
ACTIVATIONS = {"none": nn.Identity, "ReLU": nn.ReLU, "ReLU6": nn.ReLU6, "SiLU": nn.SiLU}


class Twice(nn.Module):
    """A normalised value that an activation and a sum read, and a sum behind which another activation stands."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        normed = self.norm(self.convolution(x))
        return F.relu6(torch.relu(normed) + normed)


def one_by_one(traced: fx.GraphModule, nodes: list[fx.Node], env: dict) -> dict:
    """All values, nothing fused."""
    env = dict(env)
    for node in nodes:
        env[node.name] = execute(traced, node, env)
    return env


def random_network(kind: nn.Module, seed: int) -> fx.GraphModule:
    """The network in fp64 with any weights and statistics."""
    torch.manual_seed(seed)
    network = kind.double().eval()
    with torch.no_grad():
        for name, value in (*network.named_parameters(), *network.named_buffers()):
            if value.is_floating_point():
                value.copy_(torch.randn_like(value).exp() if "var" in name else torch.randn_like(value))
    return trace(network, SHAPE)[0]


def gradients(traced: fx.GraphModule, value: torch.Tensor) -> list[torch.Tensor]:
    """Of a random projection of the value with respect to all weights."""
    traced.zero_grad()
    probe = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=value.dtype)
    value.backward(probe)
    return [parameter.grad.clone() for parameter in traced.parameters() if parameter.grad is not None]


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.detach().abs().max() + 1))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    biased=st.booleans(),
    affine=st.booleans(),
    grouped=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    training=st.booleans(),
)
def test_a_fused_layer_has_the_values_gradients_and_statistics_of_its_parts(
    seed, biased, affine, grouped, activation, training
):
    layer = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=biased, groups=3 if grouped else 1),
        nn.BatchNorm2d(6, affine=affine),
        ACTIVATIONS[activation](),
    )
    fused, plain = (random_network(layer, seed) for _ in range(2))
    fused.train(training), plain.train(training)
    x = torch.randn(SHAPE, dtype=torch.float64)
    end, goal = logits_of(fused), logits_of(plain)
    env = {input_of(fused).name: x}
    found = compute(fused, nodes_to_compute([end], env), env, frozenset([end.name]))[end.name]
    wanted = one_by_one(plain, nodes_to_compute([goal], env), env)[goal.name]
    same(found, wanted)
    for mine, theirs in zip(gradients(fused, found), gradients(plain, wanted), strict=True):
        same(mine, theirs)
    for mine, theirs in zip(fused.buffers(), plain.buffers(), strict=True):
        same(mine.double(), theirs.double())


@pytest.mark.parametrize(
    ("network", "fewer"), [(tiny_resnet, True), (tiny_mobilenet, True), (Twice, True), (nn.Flatten, False)]
)
def test_a_network_has_the_same_values_whatever_is_asked_for(network, fewer):
    traced = random_network(network(), 0)
    env = {input_of(traced).name: torch.randn(SHAPE, dtype=torch.float64)}
    nodes = nodes_to_compute([logits_of(traced)], env)
    wanted = one_by_one(traced, nodes, env)
    assert (len(list(fusion_groups(traced, nodes, frozenset()))) < len(nodes)) is fewer
    for node in nodes:
        found = compute(traced, nodes, env, frozenset([node.name, nodes[-1].name]))
        same(found[node.name], wanted[node.name])
        same(found[nodes[-1].name], wanted[nodes[-1].name])
    assert len(list(fusion_groups(traced, nodes, frozenset(wanted)))) == len(nodes)


def test_a_layer_with_a_hook_is_executed_alone():
    traced = random_network(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()), 0)
    seen = []
    next(m for m in traced.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda *_: seen.append(1))
    env = {input_of(traced).name: torch.randn(SHAPE, dtype=torch.float64)}
    nodes = nodes_to_compute([logits_of(traced)], env)
    found = compute(traced, nodes, env, frozenset([nodes[-1].name]))
    same(found[nodes[-1].name], traced(env[input_of(traced).name]))
    assert len(seen) == 2


@pytest.mark.parametrize("norm", [False, True])
def test_depthwise_convolution_that_is_differentiated_computes_in_fp32(norm):
    """Also with bf16 asked for; others, and all where nothing is differentiated, do as they are asked."""
    layers = [
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        *([nn.BatchNorm2d(8)] if norm else []),
        nn.Conv2d(8, 4, 1),
    ]
    traced, _ = trace(nn.Sequential(*layers).eval(), (1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    everything = list(traced.graph.nodes)[1:-1]
    names = [node.name for node in everything]
    kept = [name for name in names if not (norm and name == names[1])]

    def kinds(*, learning: bool) -> list[torch.dtype]:
        with torch.set_grad_enabled(learning), torch.autocast("cpu", dtype=torch.bfloat16):
            values = compute(traced, everything, {input_of(traced).name: x}, frozenset(kept))
        return [values[name].dtype for name in kept]

    half, full = torch.bfloat16, torch.float32
    assert kinds(learning=True) == [half, full, half]
    assert kinds(learning=False) == [half, half, half]
