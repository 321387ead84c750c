"""Tracing: any network becomes a graph that computes the same, or is refused with a reason."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.network.graph.activations import find_feature, forward, input_of, logits_of
from practise_deploy.network.graph.operators import module_of, scope_kinds, scope_of, shape_of
from practise_deploy.network.tracing.trace import trace

SHAPE = (1, 3, 16, 16)


torch.set_num_threads(1)  # networks this small run slower on two


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Branching(nn.Module):
    """Decides on values: no symbolic tracer can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x) if x.sum() > 0 else x


class WritesInPlace(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        z = self.convolution(y)
        if self.how == "iadd":
            z += y
        elif self.how == "method whose result is thrown away":
            z.add_(y)
        elif self.how == "module whose result is thrown away":
            self.relu(z)
        elif self.how == "module that writes into the skip":
            z = self.convolution(self.relu(y)) + y
        elif self.how == "function":
            z = F.relu(z, inplace=True) + z
        return z


@pytest.mark.parametrize("make, side", [(tiny_resnet, 16), (tiny_mobilenet, 32)])
def test_traced_network_computes_exactly_what_the_network_computes(make, side):
    network, x = make(), noise(4, 3, side, side)
    with torch.no_grad():
        expected = network(x)
        traced, opaque = trace(network, (1, 3, side, side))
        assert torch.equal(traced(x), expected)
    assert opaque == ()


def test_shapes_are_those_of_the_asked_input():
    traced, _ = trace(tiny_resnet(), (2, *SHAPE[1:]))
    assert shape_of(input_of(traced)) == (2, 3, 16, 16)
    assert shape_of(logits_of(traced)) == (2, 10)
    assert shape_of(find_feature(traced)) == (2, 32, 4, 4)


@pytest.mark.parametrize(
    "how",
    [
        "iadd",
        "method whose result is thrown away",
        "module whose result is thrown away",
        "module that writes into the skip",
        "function",
    ],
)
def test_writing_in_place_becomes_a_new_value_and_changes_no_result(how):
    network, x = WritesInPlace(how).eval(), noise(*SHAPE)
    with torch.no_grad():
        expected = network(x.clone())
        traced, _ = trace(network, SHAPE)
        found = traced(x.clone())
    assert torch.allclose(found, expected, atol=1e-6)
    assert not any(getattr(module, "inplace", False) for module in traced.modules())
    assert not any(str(node.target).endswith("_") and node.op == "call_method" for node in traced.graph.nodes)


def test_writing_into_a_value_under_two_names_is_refused_rather_than_traced_wrongly():
    class Alias(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            z = y
            z += 1  # y too, which no tracer of Python sees
            return y * z

    with pytest.raises(InputError, match="does not compute what the network computes") as error:
        trace(Alias().eval(), SHAPE)
    assert "two names" in error.value.remedy


def test_network_that_draws_random_numbers_is_refused():
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(3, 16, 16)

    with pytest.raises(InputError, match="does not compute"):
        trace(Noisy().eval(), SHAPE)


def test_module_that_writes_into_its_input_is_refused():
    class Scales(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    with pytest.raises(InputError, match="the module 0 writes into its input"):
        trace(nn.Sequential(Scales(), nn.Conv2d(3, 4, 1)).eval(), SHAPE)


def test_wrong_number_of_channels_is_told_by_the_networks_own_error():
    with pytest.raises(InputError, match=r"expected input.* to have 1 channels, but got 3") as error:
        trace(nn.Sequential(nn.Conv2d(1, 4, 1)).eval(), SHAPE)
    assert "--mean" in error.value.remedy


def test_module_with_control_flow_stays_whole_and_is_named():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), Branching()), nn.Conv2d(8, 4, 1)).eval()
    traced, opaque = trace(network, SHAPE)
    assert opaque == ("1.1",)
    assert [str(node.target) for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1.0", "1.1", "2"]
    x = noise(*SHAPE)
    with torch.no_grad():
        assert torch.equal(traced(x), network(x))


def test_two_untraceable_modules_are_both_named():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), Branching(), nn.ReLU(), Branching()).eval()
    assert trace(network, SHAPE)[1] == ("1", "3")


def test_untraceable_forward_of_the_network_itself_is_an_error_with_a_remedy():
    class Outer(Branching):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    with pytest.raises(InputError, match="cannot be traced") as error:
        trace(Outer().eval(), SHAPE)
    assert "decisions" in error.value.remedy


def test_input_of_a_wrong_size_is_an_error_that_names_the_option():
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 3 * 8 * 8)

    network = nn.Sequential(Fixed(), nn.Linear(192, 2), nn.BatchNorm2d(2)).eval()
    with pytest.raises(InputError, match="does not run on an input of shape") as error:
        trace(network, SHAPE)
    assert "--input-size" in error.value.remedy


def test_further_arguments_keep_their_defaults():
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, mask: Tensor | None = None, double: bool = False) -> Tensor:
            x = self.convolution(x)
            x = x if mask is None else x * mask
            return x * 2 if double else x

    traced, _ = trace(Optional().eval(), SHAPE)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]


def test_default_that_is_a_tuple_is_kept():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, size=(1, 1)) -> Tensor:
            return nn.functional.adaptive_avg_pool2d(self.conv(x), size).flatten(1)

    network, x = Pooled().eval(), noise(*SHAPE)
    traced, _ = trace(network, SHAPE)
    assert torch.equal(forward(traced, x, [logits_of(traced)])[0], network(x))


def test_assertions_on_shapes_are_forgotten():
    class Careful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.ndim == 4, f"expected 4 dimensions, found {x.ndim}")
            return x * 2

    traced, _ = trace(Careful().eval(), SHAPE)
    assert [node.name for node in traced.graph.nodes] == ["x", "mul", "output"]


def test_convolution_that_pads_by_a_child_becomes_a_plain_one():
    class SamePadded(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3, stride=2, bias=False)
            self.pad = nn.ZeroPad2d((0, 1, 0, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.pad(x), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    network, x = nn.Sequential(SamePadded(), nn.ReLU()).eval(), noise(*SHAPE)
    traced, _ = trace(network, SHAPE)
    kinds = [type(module_of(traced, node)) for node in traced.graph.nodes if node.op == "call_module"]
    assert kinds == [nn.ZeroPad2d, nn.Conv2d, nn.ReLU]
    with torch.no_grad():
        assert torch.equal(traced(x), network(x))
    assert set(traced.state_dict()) == {"0.weight"}


@pytest.mark.parametrize(
    ("zeros", "own", "becomes"),
    [
        ((1, 1, 1, 1), 0, [(1, 1)]),
        ((2, 2, 1, 1), 1, [(2, 3)]),
        ((0, 1, 0, 1), 0, [None, (0, 0)]),
        ((-1, -1, -1, -1), 0, [None, (0, 0)]),
        ((1, 1, 1, 1), "valid", [(1, 1)]),
    ],
)
def test_zeros_around_on_all_sides_alike_are_the_convolutions_own_padding(zeros, own, becomes):
    network, x = nn.Sequential(nn.ZeroPad2d(zeros), nn.Conv2d(3, 4, 3, padding=own)).eval(), noise(*SHAPE)
    traced, _ = trace(network, SHAPE)
    modules = [module_of(traced, node) for node in traced.graph.nodes if node.op == "call_module"]
    assert [
        getattr(module, "padding", None) if isinstance(module, nn.Conv2d) else None for module in modules
    ] == becomes
    with torch.no_grad():
        torch.testing.assert_close(traced(x), network(x))
    assert network[1].padding == ((own, own) if isinstance(own, int) else own)  # the user's network is left alone


def test_zeros_that_others_read_too_stay():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad, self.convolution = nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pad(x)
            return x + self.convolution(x)

    traced, _ = trace(Shared().eval(), SHAPE)
    assert any(isinstance(module_of(traced, node), nn.ZeroPad2d) for node in traced.graph.nodes)


def test_normalisation_with_an_activation_of_its_own_becomes_a_plain_one():
    layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), layers.BatchNormAct2d(4)).eval()
    network[1].running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.4]))
    network[1].running_var.copy_(torch.tensor([0.5, 2.0, 1.5, 1.0]))
    x = noise(*SHAPE)
    with torch.no_grad():
        expected = network(x)
        traced, _ = trace(network, SHAPE)
        assert torch.allclose(traced(x), expected, atol=1e-6)
    norms = [m for n in traced.graph.nodes if type(m := module_of(traced, n)) is nn.BatchNorm2d]
    assert len(norms) == 1 and not norms[0].training
    assert torch.equal(norms[0].running_var, torch.tensor([0.5, 2.0, 1.5, 1.0]))


def test_tracing_leaves_the_running_statistics_alone():
    network = tiny_resnet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_scopes_name_the_modules_around_a_value_and_their_classes():
    traced, _ = trace(tiny_resnet(), SHAPE)
    node = next(n for n in traced.graph.nodes if str(n.target) == "layer2.1.conv1")
    assert scope_of(node)[-3:] == ("layer2", "layer2.1", "layer2.1.conv1")
    assert scope_kinds(node)["layer2.1"] == "BasicBlock"


class Factor(nn.Module):
    """One parameter and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class RootMeanSquare(nn.RMSNorm):
    """A variant of one of torch's layers."""


def test_modules_of_one_parameter_are_traced_into_but_variants_of_torchs_layers_stay_whole():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Factor(), RootMeanSquare([8, 8])).eval()
    traced, opaque = trace(network, (1, 3, 8, 8))
    found = [(node.op, str(node.target)) for node in traced.graph.nodes][1:-1]
    assert [each for each in found if each[0] != "call_function"] == [
        ("call_module", "0"), ("get_attr", "1.gamma"), ("call_module", "2"),
    ]  # fmt: skip
    assert opaque == () and set(traced.state_dict()) == set(network.state_dict())
