"""A student beside its teacher: which of their values stand for each other, and how far they are apart."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_resnet
from practise_deploy.network.graph.activations import find_feature, forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.training.distillation import (
    Distillation,
    distillation_of,
    find_hints,
    shared_values,
    trained_parameters,
)
from practise_deploy.training.schedule import Schedule
from samples.lessons import features_of

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="module")
def teacher():
    traced, _ = trace(tiny_resnet(), SHAPE)
    return traced.eval()


@pytest.fixture(scope="module")
def blocks(teacher):
    return find_blocks(teacher, SHAPE)


def without(teacher, blocks, *names):
    dropped = [block for block in blocks if block.name in names]
    return drop_blocks(teacher, dropped).eval(), dropped


def value(network, name, x):
    return forward(network, x, [node_by_name(network, name)])[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("layer2.1",), ["layer2.0 layer2.1", "layer2.2", "layer3.0", "layer3.1"]),
        (("layer2.1", "layer2.2"), ["layer2.0 layer2.2", "layer3.0", "layer3.1"]),
        (("layer2.2", "layer3.1"), ["layer2.1 layer2.2", "layer3.0 layer3.1"]),
        (("layer3.2",), []),  # what stays stands for the features themselves
        ((), []),
    ],
)
def test_exits_are_those_of_the_kept_blocks_from_the_first_cut_to_the_features(teacher, blocks, names, expected):
    student, dropped = without(teacher, blocks, *names)
    name_of = {block.exit: block.name for block in blocks}
    found = find_hints(student, blocks, dropped, find_feature(teacher).name)
    told = [" ".join(dict.fromkeys((name_of[own], name_of[theirs]))) for own, theirs in found]
    assert told == expected


def test_stem_stands_for_a_dropped_first_block(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer1.0")
    first, *_ = find_hints(student, blocks, dropped, find_feature(teacher).name)
    assert first == (dropped[0].entry, dropped[0].exit)


def test_loss_adds_the_mean_relative_error_of_the_exits(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer1.1")
    feature, x = find_feature(teacher).name, torch.randn(4, *SHAPE[1:])
    own, hints = feature_in(student, feature, dropped), find_hints(student, blocks, dropped, feature)
    pair = Distillation(student, teacher, own, feature, hints=hints)
    errors = []
    for mine, theirs in ((own, feature), *hints):
        found, wanted = value(student, mine, x), value(teacher, theirs, x)
        errors.append((found - wanted).square().mean() / wanted.var())
    expected = errors[0] + 0.5 * sum(errors[1:]) / len(hints)
    torch.testing.assert_close(pair.loss(x, Schedule(steps=1, scaled=True, hints=0.5)), expected)
    torch.testing.assert_close(pair.loss(x, Schedule(steps=1, scaled=True)), errors[0])


def test_plain_loss_is_the_papers_squared_error(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer1.1")
    feature, x = find_feature(teacher).name, torch.randn(4, *SHAPE[1:])
    pair = Distillation(
        student,
        teacher,
        feature_in(student, feature, dropped),
        feature,
        hints=find_hints(student, blocks, dropped, feature),
    )
    wanted, found = features_of(pair, x)
    torch.testing.assert_close(pair.loss(x, Schedule(steps=1)), (wanted - found).square().mean())


def test_layers_up_to_the_first_cut_are_the_teachers_and_stay(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer2.1", "layer3.1")
    feature, x = find_feature(teacher).name, torch.randn(4, *SHAPE[1:])
    pair = distillation_of(student, teacher, feature, dropped, hints=find_hints(student, blocks, dropped, feature))
    assert pair.shared == (dropped[0].entry,)
    trained = {id(p) for p in trained_parameters(student, pair.student_feature, pair.shared)}
    names = {name.rpartition(".")[0] for name, p in student.named_parameters() if id(p) in trained}
    fronts = ("layer1", "layer2.0", "fc", "conv1", "bn1")
    assert names and not any(name.startswith(fronts) for name in names)
    everything = trained_parameters(student, pair.student_feature, ())
    assert len(everything) > len(trained)
    behind = Schedule(steps=1, scaled=True, hints=3.0, behind_the_cut=True)
    torch.testing.assert_close(pair.loss(x, behind), pair.loss(x, replace(behind, behind_the_cut=False)))
    pair.loss(x, behind).backward()
    with_gradients = {id(p) for p in student.parameters() if p.grad is not None}
    assert with_gradients == trained
    student.zero_grad(set_to_none=True)


def test_layer_that_was_refitted_before_the_cut_is_not_the_teachers(teacher, blocks):
    """The loss is then that of the whole student all the same."""
    student, dropped = without(teacher, blocks, "layer2.1")
    feature, x = find_feature(teacher).name, torch.randn(4, *SHAPE[1:])
    with torch.no_grad():
        student.get_submodule("layer2.0.bn2").weight.mul_(1.5)  # the last writer before the cut
    pair = distillation_of(student, teacher, feature, dropped, hints=find_hints(student, blocks, dropped, feature))
    assert pair.shared and dropped[0].entry not in pair.shared
    trained = {id(p) for p in trained_parameters(student, pair.student_feature, pair.shared)}
    assert id(student.get_submodule("layer2.0.bn2").weight) in trained
    behind = Schedule(steps=1, scaled=True, hints=3.0, behind_the_cut=True)
    torch.testing.assert_close(pair.loss(x, behind), pair.loss(x, replace(behind, behind_the_cut=False)))


def test_nothing_is_shared_where_a_layer_is_used_on_both_sides_of_the_cut():
    network = Nesting().eval()
    network.units[2].inner = network.units[0].inner
    traced, _ = trace(network, SHAPE)
    gone = [block for block in find_blocks(traced, SHAPE) if block.name == "units.1"]
    student = drop_blocks(traced, gone)
    assert shared_values(student, traced, feature_in(student, find_feature(traced).name, gone), gone) == ()


def test_nothing_is_shared_where_the_last_block_goes(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer3.2")
    assert shared_values(student, teacher, dropped[0].entry, dropped) == ()


class Nested(nn.Module):
    """A residual unit within a residual unit."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = x + self.inner(x).relu()
        return x + self.outer(inner).relu()


class Nesting(nn.Module):
    """Three such units between a stem and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.units = nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(Nested(), Nested(), Nested())
        self.head, self.pool, self.fc = nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.head(self.units(self.stem(x))).relu()).flatten(1))


def test_unit_within_a_kept_unit_is_no_exit():
    traced, _ = trace(Nesting().eval(), SHAPE)
    found = find_blocks(traced, SHAPE)
    gone = [block for block in found if block.name == "units.0"]
    student, feature = drop_blocks(traced, gone), find_feature(traced).name
    whole = [block.exit for block in found if block.name in ("units.0", "units.1", "units.2")]
    assert len(found) > 3 and [theirs for _, theirs in find_hints(student, found, gone, feature)] == whole


def test_pair_of_a_student_knows_its_feature_and_its_exits(teacher, blocks):
    student, dropped = without(teacher, blocks, "layer2.1", "layer3.2")
    feature = find_feature(teacher).name
    hints = find_hints(student, blocks, dropped, feature)
    pair = distillation_of(student, teacher, feature, dropped, hints=hints)
    assert pair.hints == hints != () and distillation_of(student, teacher, feature, dropped).hints == ()
    assert pair.student_feature == dropped[-1].entry
