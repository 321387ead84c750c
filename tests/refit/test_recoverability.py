"""R(B): judged on images kept aside, by a replay that equals rebuilding the network."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.units.blocks import droppable
from practise_deploy.refit import recoverability
from practise_deploy.refit.candidate import SOLVERS
from practise_deploy.refit.criterion import Ends, errors_of, interactions_of, mean_interval
from practise_deploy.refit.normal_equations import NormalEquations
from samples.lessons import MOBILENET, RESNET, Silent, in_double, measure_recoverability
from samples.lessons import images as images_of

images = partial(images_of, dtype=torch.float64)


def test_measuring_all_blocks_together_is_measuring_each_alone():
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    data, candidates = images(15, RESNET), droppable(tuple(blocks.values()))
    together = measure_recoverability(teacher, feature, candidates, data, 0, Silent())
    assert [each.block for each in together] == [block.name for block in candidates]
    for block, found in list(zip(candidates, together, strict=True))[::3]:
        (alone,) = measure_recoverability(teacher, feature, [block], data, 0, Silent())
        assert alone == found


def test_every_block_is_measured_with_an_interval():
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    for found in measure_recoverability(
        teacher, feature, droppable(tuple(blocks.values())), images(10, RESNET), 0, Silent()
    ):
        assert found.mse.low <= found.mse.estimate <= found.mse.high


def test_plain_drop_competes_and_wins_where_refits_are_worse(monkeypatch):
    for way in ("solve", "with_bias", "with_scale"):
        monkeypatch.setattr(NormalEquations, way, lambda self, *given: given[-1] * 3 + 1)
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    (found,) = measure_recoverability(teacher, feature, [blocks["layer1.1"]], images(10, RESNET), 0, Silent())
    assert found.method == "plain"
    assert found.mse.estimate == found.mse_dropped > 0


def test_images_that_judge_are_not_among_those_that_fit():
    for count in (8, 10, 37, 1200):
        pixels = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
        learn, judge = FitImages(pixels, None, images(1, RESNET).preprocessing).split(7)
        first, second = set(learn.pixels.flatten().tolist()), set(judge.pixels.flatten().tolist())
        assert not first & second
        assert first | second == set(range(count))
        assert 2 <= len(second) <= 100


def test_images_that_judge_come_in_random_order_though_files_come_class_by_class():
    pixels = torch.arange(1200, dtype=torch.float32).view(-1, 1, 1, 1)
    data = FitImages(pixels, None, images(1, RESNET).preprocessing)
    for judge in (data.split(7)[1], *(judge for _, judge in data.subset(torch.arange(100)).folds(7))):
        order = judge.pixels.flatten().tolist()
        assert order != sorted(order)


def test_changing_the_judging_images_changes_no_solution(monkeypatch):
    """What is solved comes from the learning images alone; what is reported from the others alone."""
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    solutions: list[Tensor] = []
    solve = NormalEquations.solve

    def remembering(self: NormalEquations, ridge: float, start: Tensor) -> Tensor:
        solutions.append(solve(self, ridge, start))
        return solutions[-1]

    monkeypatch.setattr(NormalEquations, "solve", remembering)
    data, other = images(20, RESNET), images(20, RESNET)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    other.pixels[order[:4]] = images(4, RESNET, seed=50).pixels
    block = [blocks["layer2.1"]]
    first, second = (measure_recoverability(teacher, feature, block, each, 0, Silent())[0] for each in (data, other))
    half = len(solutions) // 2
    assert half == len(SOLVERS)
    assert all(torch.equal(a, b) for a, b in zip(solutions[:half], solutions[half:], strict=True))
    assert first.mse.estimate != second.mse.estimate
    assert (first.fit_images, first.judged_images) == (16, 4)


def test_measuring_is_the_same_each_time_and_depends_on_the_seed():
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    data = images(20, RESNET)
    first, again, other = (
        measure_recoverability(teacher, feature, [blocks["layer2.1"]], data, seed, Silent()) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_batches_do_not_change_the_result(monkeypatch):
    teacher, feature, blocks = in_double(tiny_mobilenet(), MOBILENET)
    data = images(20, MOBILENET)
    block = [blocks["features.4"]]
    (whole,) = measure_recoverability(teacher, feature, block, data, 0, Silent())
    monkeypatch.setattr(CalibrationProblem, "batch_size", property(lambda self: 3))
    (parts,) = measure_recoverability(teacher, feature, block, data, 0, Silent())
    assert parts.mse.estimate == pytest.approx(whole.mse.estimate, rel=1e-5)
    assert parts.relative == pytest.approx(whole.relative, rel=1e-5)
    assert parts.judged_images == whole.judged_images == 4


def test_relative_error_is_of_the_features_variance():
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    data = images(20, RESNET)
    (found,) = measure_recoverability(teacher, feature, [blocks["layer1.1"]], data, 0, Silent())
    _, judge = data.split(0)
    (values,) = forward(teacher, judge.batch(slice(0, 4)), [node_by_name(teacher, feature)])
    variance = values.flatten(1).var(1).mean().item()
    assert found.relative == pytest.approx(found.mse.estimate / variance, rel=1e-6)


def test_weights_and_hooks_of_the_teacher_are_left_as_they_were():
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    code = teacher.code
    measure_recoverability(teacher, feature, list(blocks.values())[:2], images(10, RESNET), 0, Silent())
    assert teacher.code == code
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_squared_errors_are_by_image():
    wanted = torch.zeros(2, 3, 2, 2)
    found = torch.stack([torch.full((3, 2, 2), 2.0), torch.full((3, 2, 2), -3.0)])
    assert errors_of(Ends(wanted, None), Ends(found, None)).features.tolist() == [4.0, 9.0]


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 50])
def test_interval_of_the_mean_holds_the_mean_and_is_not_negative(count):
    errors = np.random.default_rng(0).gamma(0.5, size=count)
    found = mean_interval(errors)
    assert found.estimate == pytest.approx(errors.mean())
    assert 0 <= found.low <= found.estimate <= found.high
    assert not math.isnan(found.high)


# Few images, and sets.


def test_few_images_are_judged_in_five_turns_by_solutions_that_did_not_see_them():
    data = images(23, RESNET, few=200)
    folds = data.folds(0)
    judged = torch.cat([judge.pixels for _, judge in folds])
    assert len(folds) == 5 and len(judged) == 23
    assert {image.numpy().tobytes() for image in judged} == {image.numpy().tobytes() for image in data.pixels}
    for learn, judge in folds:
        seen = {image.numpy().tobytes() for image in learn.pixels}
        assert len(learn) + len(judge) == 23 and not seen & {image.numpy().tobytes() for image in judge.pixels}
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    (found,) = measure_recoverability(teacher, feature, [blocks["layer2.1"]], data, 0, Silent())
    assert (found.judged_images, found.fit_images) == (23, 18)


@pytest.mark.parametrize(("count", "side", "turns", "learned", "judged"), [
    (23, 16, 5, 18, 23), (220, 16, 5, 159, 199), (260, 16, 1, 160, 100), (500, 16, 1, 160, 200), (500, 96, 1, 160, 64),
])  # fmt: skip
def test_sets_are_compared_by_as_many_judges_as_there_are_up_to_what_is_enough(count, side, turns, learned, judged):
    folds = images(count, (1, 1, side, side), few=200).comparison_folds(0)
    assert (len(folds), len(folds[0][0]), sum(len(judge) for _, judge in folds)) == (turns, learned, judged)
    for learn, judge in folds:
        seen = {image.numpy().tobytes() for image in learn.pixels}
        assert len(seen) == len(learn) and not seen & {image.numpy().tobytes() for image in judge.pixels}


def interactions(data: FitImages, names: tuple[str, ...]):
    teacher, feature, blocks = in_double(tiny_resnet(), RESNET)
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=data)
    return recoverability.measure_recoverability(calibration, [blocks[name] for name in names], Silent())


@pytest.mark.parametrize("few", [8, 200])
def test_diagonal_of_the_interactions_is_the_blocks_own_error(few):
    found = interactions(images(20, RESNET, few=few), ("layer1.1", "layer2.1"))
    features = found.interactions["features"]
    assert features.shape == (found.of[0].judged_images, 2, 2)
    np.testing.assert_allclose(features, features.transpose(0, 2, 1), atol=1e-12)
    np.testing.assert_allclose(
        [features[:, n, n].mean() for n in range(2)], [each.relative for each in found.of], rtol=1e-4
    )


def test_interactions_are_inner_products_of_what_changes():
    generator = torch.Generator().manual_seed(0)
    wanted, first, second = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    products = interactions_of(Ends(wanted, None), [Ends(wanted + first, None), Ends(wanted + second, None)])
    torch.testing.assert_close(products[:, 0, 1], (first * second).mean(1))
    both = (first + second).square().mean(1)
    torch.testing.assert_close(products.sum((1, 2)), both)
