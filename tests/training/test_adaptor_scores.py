"""The paper's scores: all blocks take their SGD steps together, and come out as if each had been trained alone."""

import re

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.activations import node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.units.blocks import droppable
from practise_deploy.run import Silent
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.adaptors import absorb_adaptors, insert_adaptors
from practise_deploy.training.distillation import distillation_of
from practise_deploy.training.mimic import mimic
from practise_deploy.training.schedule import Schedule
from samples.lessons import MOBILENET, RESNET, images, opened


@pytest.mark.parametrize(
    ("make", "shape", "name"), [(tiny_resnet, RESNET, "layer1.1"), (tiny_mobilenet, MOBILENET, "features.4")]
)
def test_a_few_steps_lower_the_error_on_the_images_learned_from(make, shape, name):
    traced, feature, blocks = opened(make(), shape)
    before = {key: value.clone() for key, value in traced.state_dict().items()}
    schedule = Schedule(steps=20, batch_size=16, learning_rate=0.1)
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(40, shape))
    (found,) = measure_by_adaptors(calibration, [blocks[name]], schedule, Silent()).of
    assert found.mse.estimate < 0.9 * found.mse_dropped
    assert (found.fit_images, found.judged_images) == (40, 40)
    assert re.fullmatch(r"1 adaptor, 20 SGD steps|[2-9] adaptors, 20 SGD steps", found.method)
    assert all(torch.equal(before[key], value) for key, value in traced.state_dict().items())
    assert {node.name for node in traced.graph.nodes if "adaptor" in node.name} == set()


def test_measuring_is_the_same_each_time():
    traced, feature, blocks = opened(tiny_resnet(), RESNET)
    schedule = Schedule(steps=3, batch_size=8)
    chosen = [blocks["layer1.1"], blocks["layer3.2"]]
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(20, RESNET))
    first, second = (measure_by_adaptors(calibration, chosen, schedule, Silent()).of for _ in range(2))
    assert first == second
    assert [found.block for found in first] == ["layer1.1", "layer3.2"]


def test_block_with_no_place_for_an_adaptor_is_measured_plain():
    class Walled(nn.Module):
        """One block between poolings."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)
            self.inside = nn.Conv2d(4, 4, 3, padding=1)
            self.last, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.stem(x).relu())
            return self.fc(self.last((x + self.inside(x)).relu()).flatten(1))

    torch.manual_seed(0)
    traced, feature, blocks = opened(Walled().eval(), RESNET)
    (block,) = [each for each in blocks.values() if each.droppable]
    schedule = Schedule(steps=2, batch_size=8)
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(10, RESNET))
    (found,) = measure_by_adaptors(calibration, [block], schedule, Silent()).of
    assert found.method == "plain (no convolution takes an adaptor)"
    assert found.mse.estimate == pytest.approx(found.mse_dropped, rel=1e-5)


def alone(calibration: CalibrationProblem, block, schedule: Schedule) -> float:
    """R of a block as the published code has it: its own student, whole, beside the whole teacher, step by step."""
    student = drop_blocks(calibration.teacher, [block]).requires_grad_(False)
    pair = distillation_of(student, calibration.teacher, calibration.feature, [block])
    adaptors = insert_adaptors(student, block.entry)
    trained = [student.get_parameter(f"{node_by_name(student, each.node).target}.weight") for each in adaptors]
    mimic(pair, trained, (calibration.images, calibration.images), schedule, Silent())
    absorb_adaptors(student, adaptors)
    return pair.error(calibration.images, 64)


@pytest.mark.parametrize(("make", "shape"), [(tiny_resnet, RESNET), (tiny_mobilenet, MOBILENET)])
def test_scores_are_those_of_blocks_trained_one_by_one(make, shape):
    traced, feature, blocks = opened(make(), shape)
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(40, shape))
    schedule = Schedule(steps=12, batch_size=16, learning_rate=0.1)
    chosen = droppable(tuple(blocks.values()))
    found = measure_by_adaptors(calibration, chosen, schedule, Silent()).of
    wanted = [alone(calibration, block, schedule) for block in chosen]
    assert min(each / one.mse_dropped for each, one in zip(wanted, found, strict=True)) < 0.9
    assert [one.mse.estimate for one in found] == pytest.approx(wanted, rel=1e-4)


def test_teacher_looks_at_the_images_of_a_step_once_for_all_blocks():
    traced, feature, blocks = opened(tiny_resnet(), RESNET)
    seen = []
    stem = traced.get_submodule(str(next(node for node in traced.graph.nodes if node.op == "call_module").target))
    stem.register_forward_hook(lambda module, given, made: seen.append(torch.is_grad_enabled()))
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(40, RESNET))
    chosen = [blocks["layer2.1"], blocks["layer3.1"], blocks["layer3.2"]]
    counts = []
    for steps in (1, 6):
        seen.clear()
        measure_by_adaptors(calibration, chosen, Schedule(steps=steps, batch_size=16), Silent())
        counts.append(len(seen))
    assert counts[1] - counts[0] == 5


def test_descent_that_diverges_leaves_the_block_plain_and_says_so():
    traced, feature, blocks = opened(tiny_resnet(), RESNET)
    calibration = CalibrationProblem(teacher=traced, feature=feature, images=images(40, RESNET))
    schedule = Schedule(steps=8, batch_size=16, learning_rate=1e12)
    (found,) = measure_by_adaptors(calibration, [blocks["layer1.1"]], schedule, Silent()).of
    assert found.method.endswith("adaptors diverged)")
    assert found.mse.estimate == found.mse_dropped
