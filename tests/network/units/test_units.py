"""Residual units are found by the flow of values, however a network is written."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cifar_resnets import CifarBlock
from networks import plain_network
from practise_deploy.errors import NoDroppableBlock
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks

torch.set_num_threads(1)  # networks this small run slower on two
SHAPE = (1, 4, 8, 8)


def blocks_of(network: nn.Module, shape: tuple[int, ...] = SHAPE):
    traced, _ = trace(network.eval(), shape)
    return traced, find_blocks(traced, shape)


def test_names_play_no_part():
    class A(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.r = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.r(self.q(x).relu())

    _, (block,) = blocks_of(nn.Sequential(nn.Conv2d(4, 4, 1), A(), nn.Conv2d(4, 4, 1)))
    assert (block.name, block.kind, block.droppable, block.entry) == ("1", "A", True, "_0")


def test_network_without_a_residual_has_no_droppable_block_and_says_what_to_write():
    _, blocks = blocks_of(plain_network(), (1, 3, 16, 16))
    assert blocks == ()
    with pytest.raises(NoDroppableBlock, match="nowhere does a value meet what layers make of it") as error:
        droppable(blocks)
    assert "x + f(x)" in error.value.remedy and "torchvision:resnet50" in error.value.remedy


def test_network_of_shape_changing_units_alone_has_no_droppable_block():
    _, blocks = blocks_of(nn.Sequential(CifarBlock(4, 8, 2), CifarBlock(8, 16, 2)))
    assert [block.reason for block in blocks] == [
        "it changes the shape: 4x8x8 in, 8x4x4 out",
        "it changes the shape: 8x4x4 in, 16x2x2 out",
    ]
    with pytest.raises(NoDroppableBlock):
        droppable(blocks)


class Basic(nn.Module):
    """A stem, three units written into one forward, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        for n in range(6):
            self.add_module(f"c{n}", nn.Conv2d(4, 4, 3, padding=1))
        self.head = nn.Conv2d(4, 2, 1)


class Inlined(Basic):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.c1(F.relu(self.c0(x))) + x)
        x = F.relu(self.c3(F.relu(self.c2(x))) + x)
        return self.head(x)


def test_units_written_into_one_forward_are_found_and_told_apart_by_their_additions():
    _, blocks = blocks_of(Inlined())
    assert [(b.name, b.kind, b.droppable) for b in blocks] == [
        ("add", "residual unit", True),
        ("add_1", "residual unit", True),
    ]
    assert [b.parameters for b in blocks] == [2 * (4 * 4 * 9 + 4)] * 2
    assert blocks[0].latency_class == blocks[1].latency_class


def test_inner_value_used_outside_keeps_the_block_and_is_named():
    class Leaky(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            inner = self.c0(x)
            x = F.relu(self.c1(F.relu(inner)) + x)
            return self.head(x) + self.head(inner)

    blocks = {b.name: b for b in blocks_of(Leaky())[1]}
    assert blocks["add"].reason == "its inner value c0 is also used outside of it"


def test_size_of_an_inner_value_used_inside_does_not_hold_the_block():
    class Reshapes(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            inner = self.c0(x)
            n, c, h, w = inner.shape
            inner = inner.reshape(n, c, h * w).reshape(n, c, h, w)
            return self.head(x + self.c1(inner))

    _, (block,) = blocks_of(Reshapes())
    assert block.droppable, block.reason


def test_block_before_activation_ends_in_its_addition():
    class PreActivation(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.c1(F.relu(self.c0(F.relu(x))))
            x = x + self.c3(F.relu(self.c2(F.relu(x))))
            return self.head(F.relu(x))

    traced, blocks = blocks_of(PreActivation())
    assert [(b.entry, b.exit, b.droppable) for b in blocks] == [("stem", "add", True), ("add", "add_1", True)]
    student = drop_blocks(traced, blocks)
    assert [n.name for n in student.graph.nodes if n.op != "placeholder"] == ["stem", "relu_4", "head", "output"]


def test_relu_after_the_addition_stays_where_the_entry_can_be_negative():
    class Linear(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(F.relu(x + self.c0(x)))

    _, (block,) = blocks_of(Linear())
    assert (block.entry, block.exit) == ("stem", "add")


def test_relu_after_the_addition_goes_where_the_entry_is_pooled_from_a_relu():
    class Pooled(Basic):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(F.relu(self.stem(x)))
            return self.head(F.relu(x + self.c0(x)))

    _, (block,) = blocks_of(Pooled())
    assert (block.entry, block.exit) == ("pool", "relu_1")


@pytest.mark.parametrize("how", ["iadd", "add_", "torch.add", "method add"])
def test_addition_is_found_however_it_is_written(how):
    class Written(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            out = self.c0(x)
            if how == "iadd":
                out += x
            elif how == "add_":
                out.add_(x)
            else:
                out = torch.add(out, x) if how == "torch.add" else out.add(x)
            return self.head(F.relu(out))

    _, (block,) = blocks_of(Written())
    assert block.droppable and block.entry == "relu"


def test_unit_around_a_smaller_unit_stays_and_the_smaller_one_is_offered():
    class Nested(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            inner = self.c0(x)
            inner = inner + self.c1(inner)
            return self.head(F.relu(x + self.c2(inner)))

    blocks = {b.name: b for b in blocks_of(Nested())[1]}
    assert blocks["add"].droppable
    assert blocks["add_1"].reason == "it holds a smaller residual unit, which is offered instead"


def test_two_branches_of_different_depth_over_one_entry_are_one_unit():
    class TwoBranches(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            return self.head(self.c0(x) + self.c2(self.c1(x)))

    _, (block,) = blocks_of(TwoBranches())
    assert (block.entry, block.droppable) == ("relu", True)


def test_adding_a_learned_bias_or_a_number_is_no_residual_unit():
    class Biased(Basic):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(8 * 8, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            bias = self.table.t().reshape(1, 4, 8, 8)
            return self.head(self.c0(x) + bias + 1.0)

    assert blocks_of(Biased())[1] == ()


def test_addition_without_weights_of_its_own_is_no_block():
    class Doubled(Basic):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            return self.head(x + F.relu(x))

    assert blocks_of(Doubled())[1] == ()


def test_unit_with_an_untraceable_module_inside_is_found_around_it():
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.convolution(x) if x.mean() > -1e9 else x

    class Around(Basic):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Decides()

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            return self.head(x + self.inner(x))

    traced, opaque = trace(Around().eval(), SHAPE)
    (block,) = find_blocks(traced, SHAPE)
    assert opaque == ("inner",)
    assert (block.droppable, block.parameters, block.macs) == (True, 4 * 4 * 9 + 4, 4 * 4 * 9 * 64)


def test_transformer_has_two_units_in_each_layer_attention_and_perceptron():
    from torchvision.models import VisionTransformer

    network = VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3)
    _, blocks = blocks_of(network, (1, 3, 16, 16))
    layer = "encoder.layers.encoder_layer_"
    assert [b.name for b in blocks if b.droppable] == [
        f"{layer}0.add_1",
        f"{layer}0.add_2",
        f"{layer}1.add_3",
        f"{layer}1.add_4",
    ]
    assert [b.latency_class for b in blocks] == [0, 1, 0, 1]
    assert [b.macs for b in blocks[:2]] == [4 * 5 * 64 + 2 * 25 * 8, 2 * 5 * 8 * 16]


def test_networks_of_timm_with_their_own_norms_and_arguments_are_understood():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    _, lite = blocks_of(timm.create_model("efficientnet_lite0"), (1, 3, 64, 64))
    assert [b.name for b in lite if b.droppable] == [
        f"blocks.{n}" for n in ("1.1", "2.1", "3.1", "3.2", "4.1", "4.2", "5.1", "5.2", "5.3")
    ]
    _, vit = blocks_of(timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32), (1, 3, 32, 32))
    assert [b.droppable for b in vit] == [True] * 4
