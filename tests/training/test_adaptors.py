"""The paper's adaptors: where they stand, and that they vanish without a trace."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, resnet50

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.graph.activations import node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.training.adaptors import absorb_adaptors, insert_adaptors

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)
Make = Callable[[], nn.Module]


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


class Biased(nn.Module):
    """Basic blocks without BatchNorm: convolutions with biases, a projection where the second stage begins."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first, self.second = self._branch(6, 6, 1), self._branch(6, 6, 1)
        self.third, self.projection = self._branch(6, 8, 2), nn.Conv2d(6, 8, 1, 2)
        self.fourth = self._branch(8, 8, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    @staticmethod
    def _branch(in_width: int, width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_width, width, 3, stride, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.first(x)).relu()
        x = (x + self.second(x)).relu()
        x = (self.projection(x) + self.third(x)).relu()
        x = (x + self.fourth(x)).relu()
        return self.fc(self.pool(x).flatten(1))


def biased() -> nn.Module:
    torch.manual_seed(0)
    return Biased().eval()


def opened(make: Make, shape: tuple[int, ...]):
    traced, _ = trace(make(), shape)
    return traced, {block.name: block for block in find_blocks(traced, shape)}


def adapted(make: Make, shape: tuple[int, ...], name: str):
    """The network without a block, in fp64, with adaptors around the cut."""
    traced, blocks = opened(make, shape)
    student = drop_blocks(traced, [blocks[name]]).double()
    return student, insert_adaptors(student, blocks[name].entry)


def positions(adaptors) -> tuple[set[str], set[str]]:
    """Convolutions with an adaptor behind them, and in front of them."""
    behind = {adaptor.convolution for adaptor in adaptors if adaptor.behind}
    return behind, {adaptor.convolution for adaptor in adaptors if not adaptor.behind}


def randomise(student, adaptors) -> None:
    """Any matrix, far from the identity."""
    generator = torch.Generator().manual_seed(11)
    for adaptor in adaptors:
        weight = student.get_submodule(str(node_by_name(student, adaptor.node).target)).weight
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / len(weight) ** 0.5)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


# Absorbing.


@pytest.mark.parametrize(
    ("make", "shape", "name"),
    [
        (tiny_resnet, RESNET, "layer1.1"),
        (tiny_resnet, RESNET, "layer2.1"),  # behind a projection
        (tiny_resnet, RESNET, "layer2.2"),  # before the next stage's strided convolutions
        (tiny_resnet, RESNET, "layer3.2"),  # nothing reads what is left
        (tiny_mobilenet, MOBILENET, "features.3"),
        (tiny_mobilenet, MOBILENET, "features.7"),
        (biased, RESNET, "add_1"),
        (biased, RESNET, "add_3"),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_network_without_adaptors_computes_what_the_one_with_random_ones_did(make, shape, name):
    student, adaptors = adapted(make, shape, name)
    x = noise(3, *shape[1:])
    with torch.no_grad():
        plain = student(x)
        randomise(student, adaptors)
        wanted = student(x)
        absorb_adaptors(student, adaptors)
        found = student(x)
    assert float((wanted - plain).abs().max()) > 1e-3  # the adaptors did something
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("make", "name"), [(tiny_resnet, "layer2.1"), (biased, "add_1")])
def test_nothing_of_the_adaptors_is_left(make, name):
    traced, blocks = opened(make, RESNET)
    plain = drop_blocks(traced, [blocks[name]])
    student, adaptors = adapted(make, RESNET, name)
    assert len(student.state_dict()) > len(plain.state_dict())
    absorb_adaptors(student, adaptors)
    assert [str(node.target) for node in student.graph.nodes] == [str(node.target) for node in plain.graph.nodes]
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    assert {key: value.shape for key, value in student.state_dict().items()} == shapes
    assert "adaptor" not in student.code


def test_identities_change_nothing_before_or_after():
    traced, blocks = opened(tiny_resnet, RESNET)
    plain = drop_blocks(traced, [blocks["layer2.1"]]).double()
    student, adaptors = adapted(tiny_resnet, RESNET, "layer2.1")
    x = noise(2, *RESNET[1:])
    with torch.no_grad():
        assert torch.equal(student(x), plain(x))
        absorb_adaptors(student, adaptors)
        assert torch.equal(student(x), plain(x))


def test_adaptors_are_1x1_without_bias():
    student, adaptors = adapted(tiny_resnet, RESNET, "layer2.1")
    for adaptor in adaptors:
        module = student.get_submodule(str(node_by_name(student, adaptor.node).target))
        assert (module.kernel_size, module.bias) == ((1, 1), None)


# Positions.


@pytest.mark.parametrize(
    ("name", "behind", "before"),
    [
        (
            "layer1.1",
            {"conv1", "layer1.0.conv2"},
            {"layer1.2.conv1", "layer2.0.conv1", "layer2.0.downsample.0"},
        ),
        (
            "layer1.2",
            {"conv1", "layer1.0.conv2", "layer1.1.conv2"},
            {"layer2.0.conv1", "layer2.0.downsample.0"},
        ),
        (
            "layer2.1",
            {"layer2.0.conv2", "layer2.0.downsample.0"},
            {"layer2.2.conv1", "layer3.0.conv1", "layer3.0.downsample.0"},
        ),
        ("layer3.1", {"layer3.0.conv2", "layer3.0.downsample.0"}, {"layer3.2.conv1"}),
        ("layer3.2", {"layer3.0.conv2", "layer3.0.downsample.0", "layer3.1.conv2"}, set()),
    ],
)
def test_adaptors_of_a_resnet_are_around_the_stream_of_the_dropped_block(name, behind, before):
    assert positions(adapted(tiny_resnet, RESNET, name)[1]) == (behind, before)


@pytest.mark.parametrize(
    ("make", "name", "behind", "before"),
    [
        # the stem writes through max pooling: no adaptor there
        (resnet18, "layer1.1", {"layer1.0.conv2"}, {"layer2.0.conv1", "layer2.0.downsample.0"}),
        (
            resnet18,
            "layer2.1",
            {"layer2.0.conv2", "layer2.0.downsample.0"},
            {"layer3.0.conv1", "layer3.0.downsample.0"},
        ),
        (resnet18, "layer4.1", {"layer4.0.conv2", "layer4.0.downsample.0"}, set()),
        (
            resnet50,
            "layer2.2",
            {"layer2.0.conv3", "layer2.0.downsample.0", "layer2.1.conv3"},
            {"layer2.3.conv1", "layer3.0.conv1", "layer3.0.downsample.0"},
        ),
        (
            mobilenet_v2,
            "features.5",
            {"features.4.conv.2"},
            {"features.6.conv.0.0", "features.7.conv.0.0"},
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_adaptors_of_torchvision_networks_are_where_the_paper_puts_them(make, name, behind, before):
    with torch.device("meta"):
        network = make()
    network = network.to_empty(device="cpu").eval()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
    shape = (1, 3, 32, 32)
    traced, blocks = opened(lambda: network, shape)
    student = drop_blocks(traced, [blocks[name]])
    assert positions(insert_adaptors(student, blocks[name].entry)) == (behind, before)


# Measuring.


def test_padding_between_stream_and_reader_does_not_hide_the_reader():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.pad, self.branch = nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(8, 8, 3, bias=False)
            self.head_pad, self.head = nn.Identity(), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            x = x + self.branch(self.pad(x))
            return self.head(self.head_pad(x)).mean((2, 3))

    traced, _ = trace(Padded().eval(), (1, 3, 8, 8))
    (block,) = droppable(find_blocks(traced, (1, 3, 8, 8)))
    student = drop_blocks(traced, [block])
    adaptors = insert_adaptors(student, block.entry)
    assert [(a.convolution, a.behind) for a in adaptors] == [("stem", True), ("head", False)]
