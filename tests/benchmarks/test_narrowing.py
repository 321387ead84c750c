"""Which filters go: widths that a device rewards, what they cost, and the widest network that is as fast as asked."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

import networks
from practise_backends.terms import Interval
from practise_deploy.network.graph.activations import forward, node_by_name
from samples.lessons import RESNET, images, opened

pytest.importorskip("torch_pruning", reason="filter pruning needs the extra 'bench'")
from benchmarks.reproduce.tiny import narrowing
from benchmarks.reproduce.tiny.filters import prune_filters
from benchmarks.reproduce.tiny.narrowing import Matched, Rung


def interval(estimate: float, half: float = 0.1) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def test_ladder_of_a_narrow_layer_has_every_multiple_of_eight():
    assert narrowing.ladder(64) == (56, 48, 40, 32, 24, 16, 8)
    assert narrowing.ladder(8) == ()


@pytest.mark.parametrize("width", [96, 144, 240, 672, 1152, 2048])
def test_ladder_of_a_wide_layer_has_few_rungs_as_far_apart_in_blocks_of_sixteen(width):
    rungs = narrowing.ladder(width)
    assert 4 <= len(rungs) <= narrowing.MOST_RUNGS
    assert all(rung % 16 == 0 and rung < width for rung in rungs)
    assert len({wide - narrow for wide, narrow in itertools.pairwise(rungs)}) == 1
    assert rungs[-1] == rungs[0] - rungs[1]


def test_width_that_saves_no_more_than_a_wider_one_is_left_out():
    staircase = {56: interval(-0.1), 48: interval(5.4), 40: interval(5.3), 32: interval(10.5), 24: interval(10.45)}
    assert narrowing.rewarded(staircase) == [48, 32]


def test_width_that_may_save_no_more_is_left_out_whatever_its_estimate():
    assert narrowing.rewarded({24: interval(0.5, half=0.6), 16: interval(3.0), 8: interval(3.3, half=0.4)}) == [16]


def test_convolutions_are_alike_in_the_same_place_of_units_of_one_class():
    blocks = [SimpleNamespace(name=name, latency_class=number) for name, number in (("a.1", 0), ("a.10", 0), ("b", 1))]
    names = ["a.1.conv1", "a.1.conv2", "a.10.conv1", "b.conv1", "stem", "head"]
    assert narrowing.alike(names, blocks) == [
        ("a.1.conv1", "a.10.conv1"), ("a.1.conv2",), ("b.conv1",), ("stem",), ("head",),
    ]  # fmt: skip


def test_chain_narrows_where_a_percent_costs_least_and_passes_over_rungs_that_are_poor_bargains():
    rungs = {
        "a": (Rung(32, 0, 0), Rung(16, 2.0, 0.2), Rung(8, 3.0, 3.0)),  # 0.1 a percent, then 2.8
        "b": (Rung(64, 0, 0), Rung(48, 1.0, 1.0), Rung(32, 4.0, 2.0)),  # 1.0, or 0.5 for both at once
    }
    found = [{name: rung.width for name, rung in each.items()} for each in narrowing.chain(rungs)]
    assert found == [{"a": 32, "b": 64}, {"a": 16, "b": 64}, {"a": 16, "b": 32}, {"a": 8, "b": 32}]


def test_search_begins_where_the_savings_add_up_to_what_is_asked():
    structures = narrowing.chain({name: (Rung(16, 0, 0), Rung(8, 3.0, 0.1)) for name in "abcd"})
    assert narrowing.begin_at(structures, 6.4) == 2
    assert narrowing.begin_at(structures, 6.6) == 3
    assert narrowing.begin_at(structures, 60.0) == 4


class Device:
    """Saves what it is told to, and remembers what it was asked."""

    def __init__(self, savings: list[float], goal: float) -> None:
        self.savings, self.goal, self.asked = savings, interval(goal), []

    def __call__(self, places: range) -> dict[int, Matched]:
        self.asked.extend(places)
        return {place: Matched(interval(self.savings[place]), self.goal) for place in places}


@pytest.mark.parametrize("begin", [0, 12, 20, 27, 39])
def test_widest_structure_that_saves_enough_is_found_wherever_the_search_begins(begin):
    device = Device([float(place) for place in range(40)], goal=20.3)
    place, matched = narrowing.widest(begin, 40, device)
    assert (place, matched.saving.estimate) == (20, 20.0)
    assert 19 in device.asked
    assert len(device.asked) == len(set(device.asked)) < 40


def test_widest_is_taken_even_where_a_narrower_structure_saves_less():
    assert narrowing.widest(3, 5, Device([0.0, 5.0, 19.8, 12.0, 21.0], goal=20.0))[0] == 2


def test_structure_that_saves_most_is_taken_where_none_saves_enough():
    device = Device([0.0, 5.0, 7.0, 6.0], goal=20.0)
    assert narrowing.widest(0, 4, device)[0] == 2


def test_ladders_keep_what_a_device_rewards_and_tell_the_error_of_each_width_alone(monkeypatch):
    teacher, feature, blocks = opened(networks.tiny_resnet(), RESNET)
    subject = SimpleNamespace(
        name="resnet20", teacher=teacher, feature=feature, blocks=tuple(blocks.values()), pool=range(6),
        network=SimpleNamespace(input_shape=RESNET), tiny_set=lambda count, seed: images(count, RESNET),
    )  # fmt: skip

    def in_blocks_of_sixteen(subject, networks, stopping_rule):
        return {name: interval(sum(_saved(network)) or -0.3) for name, network in networks.items()}

    def _saved(network):
        for name in wide:
            yield 2.0 * (
                -(-teacher.get_submodule(name).out_channels // 16) - -(-network.get_submodule(name).out_channels // 16)
            )

    wide = ["layer3.0.conv1", "layer3.1.conv1", "layer3.2.conv1"]
    monkeypatch.setattr(narrowing, "reductions_of", in_blocks_of_sixteen)
    found = {each.convolutions: each for each in narrowing.measure_ladders(subject)}
    twins = found[tuple(wide[1:])]
    assert twins.saving_percent[16].estimate == pytest.approx(2.0)  # of one: two were narrowed, and saved 4
    assert {name: list(harm) for name, harm in twins.harm.items()} == {name: [16] for name in wide[1:]}
    assert all(not any(each.harm.values()) for names, each in found.items() if not set(names) & set(wide))
    alone = prune_filters(teacher, [wide[1]], [16], RESNET)
    assert twins.harm[wide[1]][16] == pytest.approx(_error(alone, teacher, feature, images(6, RESNET)), rel=1e-4)


def _error(student, teacher, feature, data) -> float:
    with torch.no_grad():
        found, wanted = (
            forward(net, data.batch(slice(0, 6)), [node_by_name(net, feature)])[0] for net in (student, teacher)
        )
    return float((found - wanted).square().mean())
