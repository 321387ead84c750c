"""A network without one block: judging it by replay equals rebuilding it, at its cut or behind it."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import tiny_convnext, tiny_mobilenet, tiny_resnet, tiny_transformer
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import (
    batches,
    compute,
    find_feature,
    forward,
    input_of,
    logits_of,
    node_by_name,
    nodes_to_compute,
)
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.network.units.blocks import droppable
from practise_deploy.refit import recoverability
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.candidate import SOLVERS, Candidate
from practise_deploy.refit.criterion import Ends, errors_of
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.points import point_at_cut, points_of
from practise_deploy.refit.rows import Sampler, rows_for, values_for
from practise_deploy.refit.write_back import put_in, start_of
from practise_deploy.training.distillation import Distillation
from samples.lessons import MOBILENET, RESNET, Silent, in_double, measure_recoverability, opened
from samples.lessons import images as images_of

BEHIND = ", behind the cut"
images = partial(images_of, dtype=torch.float64)


def rebuilt(teacher, block, learn: FitImages, method: str, seed: int):
    """The network without the block, the weights of its first site solved from its own values."""
    student = drop_blocks(teacher, [block])
    point = points_of(student, teacher, [block], find_feature(teacher).name)[0]
    equations, sampler = NormalEquations(), Sampler(len(learn), seed)
    for part in batches(len(learn), 64):
        x = learn.batch(part)
        nodes = values_for(point)
        keep = frozenset(node.name for node in nodes)
        with torch.no_grad():
            env = compute(student, nodes_to_compute(nodes, {input_of(student).name}), {input_of(student).name: x}, keep)
            (goal,) = forward(teacher, x, [node_by_name(teacher, point.target)])
            target = sampler.vectors(point, goal)
            equations.add(*rows_for(point, env, target, sampler))
    with torch.no_grad():
        if method != "plain":
            put_in(point, SOLVERS[method.removesuffix(BEHIND)].solve(equations, start_of(point)), equations)
    return student


def stem_behind_pooling() -> nn.Module:
    """Three units behind max pooling; in the second a site reads one value of the network without the first, the skip another."""
    torch.manual_seed(0)
    return Pooled().eval()


class Narrowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x)
        return torch.relu(x + self.wide(self.narrow(x.sin())))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.units = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Narrowed(), Narrowed(), Narrowed())
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.units(F.max_pool2d(self.stem(x), 2)).mean((2, 3)))


CASES = [
    (stem_behind_pooling, RESNET, "units.0"),
    (tiny_transformer, RESNET, "blocks.0.add_1"),
    (tiny_convnext, MOBILENET, "features.1.0"),
    (tiny_mobilenet, MOBILENET, "features.1"),
    (tiny_resnet, RESNET, "layer1.1"),
    (tiny_resnet, RESNET, "layer2.1"),
    (tiny_transformer, RESNET, "blocks.1.add_3"),
    (tiny_convnext, MOBILENET, "features.1.1"),
    (tiny_resnet, RESNET, "layer3.2"),
    (tiny_mobilenet, MOBILENET, "features.3"),
    (tiny_mobilenet, MOBILENET, "features.4"),
    (tiny_mobilenet, MOBILENET, "features.7"),
]


@pytest.mark.parametrize(("make", "shape", "name"), CASES, ids=lambda value: str(getattr(value, "__name__", value)))
def test_r_is_the_error_of_the_rebuilt_network_from_end_to_end(make, shape, name):
    """Whatever the replay saves, it may not change. The last block's entry becomes the feature map."""
    teacher, feature, blocks = in_double(make(), shape)
    data, seed = images(30, shape), 5
    (found,) = measure_recoverability(teacher, feature, [blocks[name]], data, seed, Silent())
    learn, judge = data.split(seed)
    student = rebuilt(teacher, blocks[name], learn, found.method, seed)
    renamed = feature_in(student, feature, [blocks[name]])
    assert (renamed == feature) == (name != "layer3.2")
    error = Distillation(student, teacher, renamed, feature).error(judge, 7)
    assert found.mse.estimate == pytest.approx(error, rel=1e-5)
    plain = Distillation(drop_blocks(teacher, [blocks[name]]), teacher, renamed, feature).error(judge, 64)
    assert found.mse_dropped == pytest.approx(plain, rel=1e-5)
    assert error < plain


@pytest.mark.parametrize(("make", "shape"), [(tiny_resnet, RESNET), (tiny_mobilenet, MOBILENET)])
def test_winner_is_the_best_of_all_ways_to_solve(make, shape):
    teacher, feature, blocks = in_double(make(), shape)
    data = images(20, shape)
    name = "layer2.2" if make is tiny_resnet else "features.4"
    (found,) = measure_recoverability(teacher, feature, [blocks[name]], data, 1, Silent())
    learn, judge = data.split(1)
    x = judge.batch(slice(0, len(judge)))
    ends = [node_by_name(teacher, feature), logits_of(teacher)]
    errors = {}
    with torch.no_grad():
        wanted = Ends(*(value.float() for value in forward(teacher, x, ends)))
        for method in ("plain", *SOLVERS):
            student = rebuilt(teacher, blocks[name], learn, method, 1)
            mine = forward(student, x, [node_by_name(student, feature), logits_of(student)])
            errors[method] = errors_of(wanted, Ends(*(value.float() for value in mine)))
    best = min(errors, key=lambda method: errors[method].relative)
    assert found.method == best
    assert found.mse.estimate == pytest.approx(float(errors[best].features.mean()), rel=1e-4)


@pytest.mark.parametrize(("make", "shape", "name"), CASES[:4], ids=lambda value: str(getattr(value, "__name__", value)))
def test_block_without_a_writer_before_its_cut_is_judged_by_the_first_site_behind_it(make, shape, name):
    teacher, feature, blocks = in_double(make(), shape)
    (found,) = measure_recoverability(teacher, feature, [blocks[name]], images(30, shape), 5, Silent())
    assert point_at_cut(AnnotatedGraph(teacher), AnnotatedGraph(teacher), blocks[name].entry, blocks[name].exit) is None
    assert found.method.endswith(BEHIND)
    assert found.mse.estimate < found.mse_dropped


def test_block_behind_max_pooling_is_measured_plain_where_nothing_can_be_solved_behind_it_either():
    torch.manual_seed(0)
    network = Pooled()
    network.units = network.units[:1]
    teacher, feature, blocks = in_double(network.eval(), RESNET)
    data = images(8, RESNET)
    (found,) = measure_recoverability(teacher, feature, [blocks["units.0"]], data, 0, Silent())
    assert found.method == "plain (no linear writer before the cut, nor behind it)"
    student = drop_blocks(teacher, [blocks["units.0"]])
    error = Distillation(student, teacher, feature_in(student, feature, [blocks["units.0"]]), feature).error(
        data.split(0)[1], 64
    )
    assert found.mse.estimate == found.mse_dropped == pytest.approx(error, rel=1e-5)


class TwoStreams(nn.Module):
    """Two streams of one stem, whose pooled logits are added up: the feature map is in the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), Narrowed(), Narrowed()
        self.one, self.other = nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.one(self.first(x).mean((2, 3))) + self.other(self.second(x).mean((2, 3)))


def test_block_that_the_features_do_not_depend_on_has_no_error_there():
    torch.manual_seed(0)
    teacher, feature, blocks = in_double(TwoStreams().eval(), RESNET)
    judged = measure_recoverability(teacher, feature, list(blocks.values()), images(12, RESNET), 0, Silent())
    found = {each.block: each for each in judged}
    beside = next(name for name, each in found.items() if each.mse_dropped == 0)
    assert found[beside].mse.estimate == 0
    assert all(each.mse_dropped > 0 for name, each in found.items() if name != beside)


class BehindPooling(nn.Module):
    """A unit on a map, and one behind its pooling, where no site leads to the features any more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unit, self.late = nn.Conv2d(3, 8, 3, padding=1), Narrowed(), Narrowed()
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.late(self.unit(torch.tanh(self.stem(x))).mean((2, 3), keepdim=True)).flatten(1))


def test_no_site_behind_the_features_is_taken():
    torch.manual_seed(0)
    teacher, feature, blocks = in_double(BehindPooling().eval(), RESNET)
    block = blocks["unit"]
    assert points_of(drop_blocks(teacher, [block]), teacher, [block], feature) == []
    (found,) = measure_recoverability(teacher, feature, [block], images(12, RESNET), 0, Silent())
    assert found.method.startswith("plain (no linear writer") and found.mse.estimate > 0


@pytest.mark.parametrize(("make", "shape"), [(tiny_mobilenet, MOBILENET), (tiny_transformer, RESNET)])
def test_blocks_refitted_behind_their_cut_are_judged_together_as_each_is_alone(make, shape):
    """Every block is judged from its own values, though they share names with the teacher's that others read."""
    teacher, feature, blocks = in_double(make(), shape)
    data, candidates = images(15, shape), droppable(tuple(blocks.values()))
    together = measure_recoverability(teacher, feature, candidates, data, 0, Silent())
    assert any(each.method.endswith(BEHIND) for each in together)
    for block, found in zip(candidates, together, strict=True):
        assert measure_recoverability(teacher, feature, [block], data, 0, Silent()) == (found,)


def test_judging_in_bf16_judges_so_behind_the_cut_too_and_sums_in_full_precision(monkeypatch):
    """The solutions are the same to the last digit, the errors are not."""
    teacher, feature, blocks = opened(tiny_mobilenet(), MOBILENET)
    changes, errors = list[dict[str, Tensor]](), list[float]()
    solve = Candidate.solve

    def remembering(self: Candidate, equations: NormalEquations) -> None:
        solve(self, equations)
        changes.append(dict(self.changes))

    monkeypatch.setattr(Candidate, "solve", remembering)
    inner = list[torch.dtype]()
    known = Candidate._prefix_values
    monkeypatch.setattr(
        Candidate,
        "_prefix_values",
        lambda *given: (found := known(*given), inner.append(found["features_2_conv_3"].dtype))[0],
    )
    for judging in (torch.float32, torch.bfloat16):
        calibration = CalibrationProblem(
            teacher=teacher, feature=feature, images=images_of(15, MOBILENET), comparison_dtype=judging
        )
        errors.append(
            recoverability.measure_recoverability(calibration, [blocks["features.1"]], Silent()).of[0].mse.estimate
        )
    assert all(torch.equal(change, changes[1][way]) for way, change in changes[0].items())
    assert errors[0] != errors[1] == pytest.approx(errors[0], rel=0.05)
    assert inner == [torch.float32, torch.float32, torch.float32, torch.bfloat16]  # summed and judged, twice
