"""Values of a traced network: computed from the nearest known ones; the feature; multiply-accumulates."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_resnet
from practise_deploy.network.graph.activations import find_feature, forward, logits_of, macs_by_node, nodes_to_compute
from practise_deploy.network.tracing.trace import trace

SHAPE = (1, 3, 16, 16)


torch.set_num_threads(1)  # networks this small run slower on two


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_values_are_computed_from_the_nearest_known_ones_only():
    traced, _ = trace(tiny_resnet(), SHAPE)
    feature, logits = find_feature(traced), logits_of(traced)
    assert [n.name for n in nodes_to_compute([logits], {feature.name})] == ["avgpool", "flatten", "fc"]
    x = noise(3, 3, 16, 16)
    with torch.no_grad():
        values = forward(traced, x, [feature, logits])
        torch.testing.assert_close(values[1], traced(x))
    assert values[0].shape == (3, 32, 4, 4)


def test_feature_without_pooling_is_the_input_of_the_last_linear_layer_and_without_that_the_output():
    linear, _ = trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(392, 5)).eval(), SHAPE)
    assert str(find_feature(linear).target) == "1"
    convolutions, _ = trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)).eval(), SHAPE)
    assert find_feature(convolutions) is logits_of(convolutions)


@pytest.mark.parametrize("pool", ["function", "mean", "module"])
def test_feature_is_found_before_a_pooling_of_one_position(pool):
    class Deep(nn.Module):
        """Its last map has one position; a strided depthwise convolution before it has as many channels."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.last = nn.Conv2d(3, 3, 3, 2, 1, groups=3), nn.Conv2d(3, 3, 1)
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.down(x))
            if pool == "mean":
                return self.fc(x.mean((2, 3)))
            x = self.pool(x) if pool == "module" else nn.functional.adaptive_avg_pool2d(x, 1)
            return self.fc(x.flatten(1))

    traced, _ = trace(Deep().eval(), (1, 3, 2, 2))
    assert find_feature(traced).name == "last"


def test_feature_is_found_before_pooling_by_a_mean():
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    traced, _ = trace(nn.Sequential(nn.Conv2d(3, 2, 3), Mean(), nn.Linear(2, 5)).eval(), SHAPE)
    assert str(find_feature(traced).target) == "0"


def test_multiply_accumulates_are_counted_for_convolutions_linear_layers_and_attention():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(2), nn.Linear(256, 8), Attention()
    ).eval()
    traced, _ = trace(network, SHAPE)
    found = list(macs_by_node(traced, torch.zeros(SHAPE)).values())
    assert found[0] == 3 * 8 * 9 * 256
    assert found[2] == 8 * 256 * 8
    attention = 4 * 8 * 8 * 8 + 2 * 8 * 8 * 8  # four projections of 8 tokens, then scores and mixture
    assert sum(found[3:]) == attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_counting_of_multiply_accumulates_holds_no_value_longer_than_it_is_needed():
    alive: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alive.append(sum(one() is not None for one in made))
            out = x + 1
            made.append(weakref.ref(out))
            return out

    network = nn.Sequential(*(Noting() for _ in range(5)), nn.Conv2d(3, 2, 8)).eval()
    traced, _ = trace(network, (1, 3, 8, 8))
    alive.clear(), made.clear()
    macs_by_node(traced, torch.zeros(1, 3, 8, 8))
    assert alive == [0, 1, 1, 1, 1]


def test_multiply_accumulates_are_counted_where_a_module_takes_a_view_of_a_parameter():
    class Queries(nn.Module):
        """Learned queries, projected, as attention pooling has them."""

        def __init__(self) -> None:
            super().__init__()
            self.queries, self.projected = nn.Parameter(torch.randn(1, 5, 3)), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.projected(self.queries.expand(x.shape[0], -1, -1)) @ x.flatten(2)).mean(2)

    traced, _ = trace(Queries().eval(), (1, 3, 8, 8))
    assert sum(macs_by_node(traced, torch.zeros(1, 3, 8, 8)).values()) == 5 * 3 * 3 + 5 * 3 * 64
    assert all(parameter.requires_grad for parameter in traced.parameters())
