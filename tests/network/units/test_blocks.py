"""Which units can go in the known networks, and why the others cannot."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.activations import find_feature
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two
NETWORKS = Path(__file__).parents[2] / "networks.py"
RESNETS = Path(__file__).parents[3] / "benchmarks" / "cifar_resnets.py"


def stages(prefix: str, counts: tuple[int, ...], first: int) -> list[str]:
    return [
        f"{prefix}{stage}.{n}" for stage, count in enumerate(counts, 1) for n in range(first if stage > 1 else 0, count)
    ]


KNOWN = {
    "torchvision:resnet18": stages("layer", (2, 2, 2, 2), 1),
    "torchvision:resnet34": stages("layer", (3, 4, 6, 3), 1),
    "torchvision:resnet50": stages("layer", (3, 4, 6, 3), 1)[1:],
    "torchvision:mobilenet_v2": [f"features.{n}" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)],
    "efficientnet-lite0": [f"_blocks.{n}" for n in (2, 4, 6, 7, 9, 10, 12, 13, 14)],
    "digits": stages("layer", (3, 3, 3), 1),
    f"{RESNETS}:make_resnet20": stages("layer", (3, 3, 3), 1),
    f"{RESNETS}:make_resnet56": stages("layer", (9, 9, 9), 1),
}
OTHERS = {
    "torchvision:resnet18": {
        "layer2.0": "it changes the shape: 64x56x56 in, 128x28x28 out",
        "layer3.0": "it changes the shape: 128x28x28 in, 256x14x14 out",
        "layer4.0": "it changes the shape: 256x14x14 in, 512x7x7 out",
    },
    "torchvision:resnet50": {
        "layer1.0": "it changes the shape: 64x56x56 in, 256x56x56 out",
        "layer2.0": "it changes the shape: 256x56x56 in, 512x28x28 out",
        "layer3.0": "it changes the shape: 512x28x28 in, 1024x14x14 out",
        "layer4.0": "it changes the shape: 1024x14x14 in, 2048x7x7 out",
    },
    "torchvision:mobilenet_v2": {
        "features.1": "it has no skip connection: 32x112x112 in, 16x112x112 out",
        "features.2": "it has no skip connection: 16x112x112 in, 24x56x56 out",
        "features.4": "it has no skip connection: 24x56x56 in, 32x28x28 out",
        "features.7": "it has no skip connection: 32x28x28 in, 64x14x14 out",
        "features.11": "it has no skip connection: 64x14x14 in, 96x14x14 out",
        "features.14": "it has no skip connection: 96x14x14 in, 160x7x7 out",
        "features.17": "it has no skip connection: 160x7x7 in, 320x7x7 out",
    },
    "efficientnet-lite0": {
        "_blocks.0": "it has no skip connection: 32x112x112 in, 16x112x112 out",
        "_blocks.1": "it has no skip connection: 16x112x112 in, 24x56x56 out",
        "_blocks.3": "it has no skip connection: 24x56x56 in, 40x28x28 out",
        "_blocks.5": "it has no skip connection: 40x28x28 in, 80x14x14 out",
        "_blocks.8": "it has no skip connection: 80x14x14 in, 112x14x14 out",
        "_blocks.11": "it has no skip connection: 112x14x14 in, 192x7x7 out",
        "_blocks.15": "it has no skip connection: 192x7x7 in, 320x7x7 out",
    },
    "digits": {
        "layer2.0": "it changes the shape: 16x28x28 in, 32x14x14 out",
        "layer3.0": "it changes the shape: 32x14x14 in, 64x7x7 out",
    },
    f"{RESNETS}:make_resnet20": {
        "layer2.0": "it changes the shape: 16x32x32 in, 32x16x16 out",
        "layer3.0": "it changes the shape: 32x16x16 in, 64x8x8 out",
    },
}


@pytest.fixture(scope="module")
def found():
    """Networks of the tables above, each loaded once."""
    kept = {}

    def load(name: str):
        if name not in kept:
            if name == "efficientnet-lite0":
                pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite0 is not installed")
            size = 32 if ".py:" in name else None
            network = load_network(Settings(network=name, input_size=size), structure_only=True)
            kept[name] = network.summary, {b.name: b for b in find_blocks(network.traced, network.input_shape)}
        return kept[name]

    return load


@pytest.mark.parametrize("name", KNOWN, ids=lambda name: name.rpartition("/")[2])
def test_droppable_blocks_of_a_known_network_are_exactly_these(name, found):
    assert [block.name for block in found(name)[1].values() if block.droppable] == KNOWN[name]


@pytest.mark.parametrize("name", OTHERS, ids=lambda name: name.rpartition("/")[2])
def test_every_other_block_says_why_it_stays(name, found):
    assert {block.name: block.reason for block in found(name)[1].values() if not block.droppable} == OTHERS[name]


@pytest.mark.parametrize(
    "name, parameters, macs",
    [
        ("torchvision:resnet18", 11_689_512, 1_814_073_344),
        ("torchvision:resnet34", 21_797_672, 3_663_761_408),
        ("torchvision:resnet50", 25_557_032, 4_089_184_256),
        ("torchvision:mobilenet_v2", 3_504_872, 300_774_272),
        ("efficientnet-lite0", 4_652_008, 385_187_552),
        (f"{RESNETS}:make_resnet20", 269_722, 40_551_040),
    ],
)
def test_networks_have_the_published_parameters_and_multiply_accumulates(name, parameters, macs, found):
    facts, _ = found(name)
    assert (facts.parameters, facts.macs) == (parameters, macs)


@pytest.mark.parametrize(
    "name, block, parameters, macs, shape",
    [
        ("torchvision:resnet18", "layer1.1", 73_984, 2 * 64 * 64 * 9 * 56 * 56, (64, 56, 56)),
        ("torchvision:resnet18", "layer4.1", 4_720_640, 2 * 512 * 512 * 9 * 7 * 7, (512, 7, 7)),
        ("torchvision:resnet50", "layer1.1", 70_400, (2 * 64 * 256 + 9 * 64 * 64) * 56 * 56, (256, 56, 56)),
        ("torchvision:mobilenet_v2", "features.5", 14_848, (2 * 32 * 192 + 9 * 192) * 28 * 28, (32, 28, 28)),
        ("digits", "layer3.2", 73_984, 2 * 64 * 64 * 9 * 7 * 7, (64, 7, 7)),
    ],
)
def test_block_has_its_own_parameters_and_multiply_accumulates(name, block, parameters, macs, shape, found):
    it = found(name)[1][block]
    assert (it.parameters, it.macs, it.shape) == (parameters, macs, shape)


def test_blocks_of_equal_operators_and_shapes_share_a_latency_class_and_no_others(found):
    blocks = found("torchvision:mobilenet_v2")[1].values()
    together = {}
    for block in blocks:
        together.setdefault(block.latency_class, []).append(block.name.removeprefix("features."))
    assert sorted(map(",".join, together.values())) == sorted(
        ["3", "5,6", "8,9,10", "12,13", "15,16", "1", "2", "4", "7", "11", "14", "17"]
    )


def test_entry_of_a_block_is_the_exit_of_the_one_before(found):
    blocks = list(found("torchvision:resnet34")[1].values())
    assert [block.entry for block in blocks[1:]] == [block.exit for block in blocks[:-1]]
    assert blocks[0].entry == "maxpool"


class Turned(nn.Module):
    """Residual units that all multiply by the same angles, made of the sizes of the first one's input."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.register_buffer("periods", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        angles = (self.periods[:, None, None] / x.size(2)).cos()
        for unit in self.units:
            x = x + unit(x * angles)
        return x.mean((2, 3))


class Reused(Turned):
    """What one unit makes of its input is read behind it."""

    def forward(self, x: Tensor) -> Tensor:
        inner = self.units[0](x)
        x = x + inner
        x = x + self.units[1](x)
        return (x * inner).mean((2, 3))


def test_what_is_made_without_the_images_belongs_to_no_unit_alone():
    network = Turned().eval()
    traced, _ = trace(network, (1, 3, 8, 8))
    blocks = find_blocks(traced, (1, 3, 8, 8))
    assert [block.droppable for block in blocks] == [True] * 3
    assert {block.parameters for block in blocks} == {3 * 3 * 9 + 3} and len({b.latency_class for b in blocks}) == 1
    x, angles = torch.randn(2, 3, 8, 8), (network.periods[:, None, None] / 8).cos()
    with torch.no_grad():
        kept = x + network.units[1](x * angles)
        torch.testing.assert_close(drop_blocks(traced, [blocks[0], blocks[2]])(x), kept.mean((2, 3)))


def test_what_a_unit_makes_of_its_input_for_others_keeps_it():
    traced, _ = trace(Reused().eval(), (1, 3, 8, 8))
    first, second = find_blocks(traced, (1, 3, 8, 8))
    assert not first.droppable and "is also used outside" in first.reason
    assert second.droppable


class Cells(nn.Module):
    """Two sums without a skip; one rectifier is shared by both, as an exporter writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        active = torch.relu(x)
        a, b, c, d = (layer(each) for layer, each in zip(self.layers, [active, x, active, x], strict=True))
        return torch.cat([a + b, c + d], 1).mean((2, 3))


def test_rectifier_that_other_branches_read_stays_with_them():
    network = Cells().eval()
    traced, _ = trace(network, (1, 3, 8, 8))
    first, second = find_blocks(traced, (1, 3, 8, 8))
    assert first.droppable and second.droppable
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        x = network.stem(images)
        kept = network.layers[2](torch.relu(x)) + network.layers[3](x)
        without = drop_blocks(traced, [first])(images)
        torch.testing.assert_close(without, torch.cat([x, kept], 1).mean((2, 3)))


class EndsInAUnit(nn.Module):
    """Nothing stands behind its last sum, which is what a student is compared by."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow = nn.Conv2d(3, 8, 1), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.narrow(torch.relu(self.wide(x))) + x


def test_network_without_a_head_is_compared_by_its_last_sum_and_the_unit_there_can_go():
    shape = (1, 3, 2, 2)
    traced, _ = trace(EndsInAUnit().eval(), shape)
    (block,) = find_blocks(traced, shape)
    assert block.droppable and find_feature(traced).name == block.exit
