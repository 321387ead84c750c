"""Dropping blocks: the student is the network that would have been built without them."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cifar_resnets import make_resnet20
from networks import TinyMobileNet, TinyResNet, tiny_mobilenet, tiny_resnet
from practise_deploy.embedded.digits import make_digits_network
from practise_deploy.network.graph.surgery import drop_blocks, load_weights, splices, weights_of
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.refit.points import cuts_without_point

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


torch.set_num_threads(1)  # networks this small run slower on two


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def blocks_of(network: nn.Module, shape: tuple[int, ...]):
    traced, _ = trace(network, shape)
    return traced, {block.name: block for block in find_blocks(traced, shape)}


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x)


def shortened_resnet(gone: tuple[str, ...]) -> nn.Module:
    """Built by hand: an identity where the block was."""
    network = tiny_resnet()
    for name in gone:
        network.set_submodule(name, nn.Identity())
    return network.eval()


@pytest.mark.parametrize(
    "gone",
    [
        ("layer1.0",),
        ("layer1.1",),
        ("layer3.2",),
        ("layer1.0", "layer1.1"),
        ("layer2.1", "layer2.2"),
        ("layer1.0", "layer1.1", "layer1.2"),
        ("layer1.2", "layer2.1", "layer3.1", "layer3.2"),
    ],
)
def test_student_equals_the_network_built_by_hand_without_the_blocks(gone):
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    student = drop_blocks(traced, [blocks[name] for name in gone])
    x = noise(4, *RESNET[1:])
    assert torch.equal(outputs(student, x), outputs(shortened_resnet(gone), x))


@pytest.mark.parametrize(
    "gone", [("features.1",), ("features.3", "features.4"), ("features.7",), ("features.6", "features.7")]
)
def test_student_of_a_mobilenet_equals_the_one_built_by_hand(gone):
    traced, blocks = blocks_of(tiny_mobilenet(), MOBILENET)
    by_hand = tiny_mobilenet()
    for name in gone:
        by_hand.set_submodule(name, nn.Identity())
    x = noise(2, *MOBILENET[1:])
    assert torch.equal(outputs(drop_blocks(traced, [blocks[name] for name in gone]), x), outputs(by_hand, x))


def test_student_of_option_a_shortcuts_equals_the_one_built_by_hand():
    torch.manual_seed(0)
    network = make_resnet20().eval()
    traced, blocks = blocks_of(network, (1, 3, 32, 32))
    x = noise(2, 3, 32, 32)
    student = outputs(drop_blocks(traced, [blocks["layer1.0"], blocks["layer3.2"]]), x)
    network.layer1[0], network.layer3[2] = nn.Identity(), nn.Identity()
    assert torch.equal(student, outputs(network, x))


def test_all_droppable_blocks_at_once_leave_the_rest_running():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    all_of_them = droppable(blocks.values())
    x = noise(2, *RESNET[1:])
    student = drop_blocks(traced, all_of_them)
    assert torch.equal(outputs(student, x), outputs(shortened_resnet(tuple(b.name for b in all_of_them)), x))
    assert not [block for block in find_blocks(trace(student, RESNET)[0], RESNET) if block.droppable]


def test_order_in_which_blocks_are_named_does_not_matter():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    chain = [blocks[name] for name in ("layer2.2", "layer2.1", "layer1.1", "layer1.0")]
    x = noise(2, *RESNET[1:])
    forwards, backwards = drop_blocks(traced, chain[::-1]), drop_blocks(traced, chain)
    assert torch.equal(outputs(forwards, x), outputs(backwards, x))


def test_dropping_leaves_the_teacher_untouched():
    network = tiny_resnet()
    traced, blocks = blocks_of(network, RESNET)
    x = noise(2, *RESNET[1:])
    before, code = outputs(traced, x), traced.code
    student = drop_blocks(traced, [blocks["layer1.1"]])
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    assert torch.equal(outputs(traced, x), before)
    assert traced.code == code
    assert "layer1.1.conv1.weight" in dict(traced.named_parameters())


def test_dropped_weights_are_gone_and_the_count_falls_by_the_blocks_parameters():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    student = drop_blocks(traced, [blocks["layer3.1"]])
    count = [sum(weight.numel() for weight in network.parameters()) for network in (traced, student)]
    assert count[0] - count[1] == blocks["layer3.1"].parameters == 18560
    assert not [name for name in student.state_dict() if name.startswith("layer3.1.")]


def test_dropping_nothing_is_a_copy():
    traced, _ = blocks_of(tiny_mobilenet(), MOBILENET)
    x = noise(2, *MOBILENET[1:])
    student = drop_blocks(traced, [])
    assert torch.equal(outputs(student, x), outputs(traced, x))
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in traced.parameters()}


def test_shared_weights_compute_the_same_and_keep_the_teacher_whole():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    dropped = [blocks["layer1.1"], blocks["layer1.2"]]
    x = noise(2, *RESNET[1:])
    before = outputs(traced, x)
    shared = drop_blocks(traced, dropped, share_weights=True)
    assert torch.equal(outputs(shared, x), outputs(drop_blocks(traced, dropped), x))
    assert shared.get_submodule("layer1.0.conv1") is traced.get_submodule("layer1.0.conv1")
    assert torch.equal(outputs(traced, x), before)


def test_junction_of_a_chain_joins_its_first_entry_and_its_last_exit():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    dropped = [blocks[name] for name in ("layer1.0", "layer1.1", "layer2.2")]
    found = splices(drop_blocks(traced, dropped), dropped)
    assert found == {
        blocks["layer1.0"].entry: blocks["layer1.1"].exit,
        blocks["layer2.2"].entry: blocks["layer2.2"].exit,
    }


def test_junctions_are_the_same_in_any_order_of_the_blocks():
    traced, blocks = blocks_of(tiny_resnet(), RESNET)
    dropped = [blocks[name] for name in ("layer2.1", "layer2.2")]
    student = drop_blocks(traced, dropped)
    wanted = {blocks["layer2.1"].entry: blocks["layer2.2"].exit}
    assert splices(student, dropped) == splices(student, dropped[::-1]) == wanted


def test_value_that_would_stand_for_two_exits_is_no_junction():
    class Aside(nn.Module):
        """Two residual units side by side."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            both = torch.cat([x + self.a(x), x + self.b(x)], 1)
            return self.fc(self.pool(both).flatten(1))

    torch.manual_seed(0)
    traced, blocks = blocks_of(Aside().eval(), RESNET)
    dropped = [block for block in blocks.values() if block.droppable]
    assert len(dropped) == 2
    student = drop_blocks(traced, dropped)
    assert splices(student, dropped) == {}
    assert cuts_without_point(student, traced, dropped) == [block.name for block in dropped]


@pytest.mark.parametrize("make", [tiny_resnet, tiny_mobilenet, make_digits_network])
def test_weights_survive_a_round_trip_through_arrays(make):
    network = make().eval()
    arrays = weights_of(network)
    fresh = make().eval()
    with torch.no_grad():
        for weight in fresh.parameters():
            weight.zero_()
    load_weights(fresh, arrays)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_arrays_do_not_share_memory_with_the_network():
    network = tiny_resnet()
    arrays = weights_of(network)
    before = arrays["fc.weight"].copy()
    with torch.no_grad():
        network.fc.weight.zero_()
    assert (arrays["fc.weight"] == before).all() and before.any()


def test_convolution_that_got_a_bias_takes_it_from_the_arrays():
    traced, _ = blocks_of(tiny_resnet(), RESNET)
    arrays = weights_of(traced)
    arrays["layer1.0.conv2.bias"] = arrays["layer1.0.bn2.bias"] + 1
    load_weights(traced, arrays)
    assert torch.equal(traced.get_submodule("layer1.0.conv2").bias, torch.from_numpy(arrays["layer1.0.conv2.bias"]))


def test_weights_of_another_network_are_refused():
    with pytest.raises((RuntimeError, AttributeError)):
        load_weights(TinyMobileNet(), weights_of(TinyResNet(3)))
