"""A map of a whole stream costs nothing: in fp64 the network without it computes what the one with it did."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from practise_deploy.network.activations import compute, find_feature, input_of, logits_of, order_of
from practise_deploy.network.operators import module_of
from practise_deploy.network.trace import trace
from practise_deploy.refit.pointwise import Pointwise
from practise_deploy.refit.streams import absorb, insert, stream_of
from practise_deploy.refit.writers import Site, writers_into

SHAPE = (2, 3, 8, 8)
seeds = st.integers(0, 10**6)


class Inverted(nn.Module):
    """Expand, depthwise, project: linear where it ends."""

    def __init__(self, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.pad = nn.ZeroPad2d((0, 2, 0, 2))
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, stride, groups=2 * width, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(2 * width)
        self.project, self.project_norm = nn.Conv2d(2 * width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skips = width == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand_norm(self.expand(x)))
        y = self.project_norm(self.project(F.relu6(self.depthwise_norm(self.depthwise(self.pad(y))))))
        return x + y if self.skips else y


class Mixing(nn.Module):
    """x + W x without a norm: a convolution that reads the stream and writes to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x)


class Linear(nn.Module):
    """A linear stream as MobileNetV2's, in two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
        self.blocks = nn.Sequential(
            Inverted(4, 5, 1), Inverted(5, 5, 1), Mixing(5), nn.Dropout(), Inverted(5, 5, 1),
            Inverted(5, 6, 2), Inverted(6, 6, 1),
        )  # fmt: skip
        self.pad = nn.ZeroPad2d((0, 2, 0, 2))
        self.head = nn.Sequential(nn.Conv2d(6, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU6())
        self.pool, self.classes = nn.AdaptiveAvgPool2d(1), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.pool(self.head(self.pad(self.blocks(self.stem(x))))).flatten(1))


class Basic(nn.Module):
    """A basic block of a post-activation ResNet; a convolution is its shortcut where the shape changes."""

    def __init__(self, width: int, outputs: int, stride: int, *, normed: bool = True) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(width, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=not normed)
        self.second_norm = nn.BatchNorm2d(outputs) if normed else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(width, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(y + self.shortcut(x))


class PostActivation(nn.Module):
    """Three stages; one block of the second ends in a convolution without norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(
            Basic(4, 4, 1), Basic(4, 4, 1), Basic(4, 5, 2), Basic(5, 5, 1, normed=False), Basic(5, 5, 1),
            Basic(5, 6, 2), Basic(6, 6, 1),
        )  # fmt: skip
        self.pool, self.classes = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.pool(self.blocks(self.stem(x))).flatten(1))


@cache
def opened(make: type[nn.Module]) -> fx.GraphModule:
    return trace(make().double().eval(), SHAPE)[0]


def random_network(make: type[nn.Module], seed: int) -> fx.GraphModule:
    """A network with random weights, and BatchNorm that does something."""
    network, generator = copy.deepcopy(opened(make)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(std=(2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.1, 3.0, generator=generator)
                module.weight.uniform_(-1.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
    return network


def mappable(network: fx.GraphModule) -> list[Site]:
    """Every value that has writers and a stream behind it."""
    feature = find_feature(network).name
    sites = [Site(node, writers_into(network, node), node.name) for node in network.graph.nodes]
    return [site for site in sites if site.writers and stream_of(network, site, feature)]


def random_map(network: fx.GraphModule, site: Site, seed: int) -> tuple[Tensor, Tensor]:
    """A well-conditioned map with its bias: positive and diagonal where there are ReLUs behind."""
    width, generator = site.value.meta["shape"][1], torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    scales = torch.exp(draw(width).clamp(-2, 2))
    stream = stream_of(network, site, find_feature(network).name)
    assert stream is not None
    left, right = (
        torch.eye(width).double() if stream.diagonal else torch.linalg.qr(draw(width, width))[0] for _ in "12"
    )
    return left @ torch.diag(scales) @ right, draw(width)


def with_values_mapped(network: fx.GraphModule, maps: dict[str, tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """The output when the named values are replaced by A z + b, one after another."""
    env, end = {input_of(network).name: x}, logits_of(network)
    for name, (matrix, bias) in maps.items():
        (node,) = [each for each in network.graph.nodes if each.name == name]
        everything = frozenset(each.name for each in network.graph.nodes)
        env = compute(network, order_of([node], env), env, everything)
        env[name] = torch.einsum("ab,nbhw->nahw", matrix, env[name]) + bias[:, None, None]
    return compute(network, order_of([end], env), env, frozenset([end.name]))[end.name]


def noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def skeleton(network: fx.GraphModule) -> tuple[list[str], dict[str, torch.Size]]:
    """The graph, and the state dict's keys with their shapes."""
    nodes = [node.format_node() or "" for node in network.graph.nodes]
    return nodes, {name: value.shape for name, value in network.state_dict().items()}


def close(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).norm()) <= 1e-10 * float(wanted.norm())


@pytest.mark.parametrize(("make", "count"), [(Linear, 6), (PostActivation, 5)])
def test_streams_of_the_networks_below_are_found(make: type[nn.Module], count: int):
    values = {site.value.name for site in mappable(opened(make))}
    assert len([name for name in values if "add" in name or "project" in name]) == count


@pytest.mark.parametrize("make", [Linear, PostActivation])
@given(seed=seeds, which=seeds)
@settings(max_examples=40, deadline=None)
def test_network_that_absorbed_a_map_computes_what_the_one_with_it_did(make: type[nn.Module], seed: int, which: int):
    network, x = random_network(make, seed), noise()
    sites = mappable(network)
    site = sites[which % len(sites)]
    matrix, bias = random_map(network, site, seed + 1)
    before = skeleton(network)
    with torch.no_grad():
        plain, wanted = network(x), with_values_mapped(network, {site.value.name: (matrix, bias)}, x)
        insert(network, site, matrix, bias)
        inserted = network(x)
        assert [isinstance(module_of(network, user), Pointwise) for user in site.value.users] == [True]
        absorb(network)
        found = network(x)
    assume(not close(plain, wanted))  # a rectifier may hide the map, and such a draw shows nothing
    assert close(inserted, wanted)
    assert close(found, wanted)
    assert skeleton(network) == before


@pytest.mark.parametrize("make", [Linear, PostActivation])
@given(seed=seeds, chosen=st.sets(st.integers(0, 9), min_size=2))
@settings(max_examples=40, deadline=None)
def test_maps_that_follow_each_other_are_absorbed_too(make: type[nn.Module], seed: int, chosen: set[int]):
    network, x = random_network(make, seed), noise()
    sites = [site for place, site in enumerate(mappable(network)) if place in chosen]
    maps = {site.value.name: random_map(network, site, seed + place) for place, site in enumerate(sites)}
    before = skeleton(network)
    with torch.no_grad():
        wanted = with_values_mapped(network, maps, x)
        for site in sites:
            insert(network, site, *maps[site.value.name])
        inserted = network(x)
        absorb(network)
        found = network(x)
    assert close(inserted, wanted)
    assert close(found, wanted)
    assert not [module for module in network.modules() if isinstance(module, Pointwise)]
    assert skeleton(network) == before
