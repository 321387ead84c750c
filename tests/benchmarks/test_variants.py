"""The ablation of the finetuning: what progressive dropping starts from, and what is paired with what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from benchmarks.reproduce.ablation import rows_of
from benchmarks.reproduce.variants import without_next
from networks import tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks, feature_in, load_weights
from samples.lessons import RESNET, images, opened


@pytest.mark.parametrize("names", [("layer1.1", "layer2.1"), ("layer3.1", "layer2.1"), ("layer1.0", "layer1.1")])
def test_next_block_goes_from_the_student_so_far_and_the_rest_is_refitted_to_it(names):
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    first, second = (blocks[name] for name in names)
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=images(24, RESNET))
    student = drop_blocks(teacher, [first])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.02)  # what finetuning might have done
    before = copy.deepcopy(student.state_dict())
    found = without_next(calibration, student, [first], second)

    assert found.dropped == names
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    plain, refitted = (drop_blocks(teacher, [first, second]) for _ in range(2))
    plain.load_state_dict({name: before[name] for name in plain.state_dict()})
    load_weights(refitted, found.weights)
    wanted = features(student, feature, [first], calibration)
    errors = [
        (features(each, feature, [first, second], calibration) - wanted).square().mean() for each in (plain, refitted)
    ]
    assert errors[1] < 0.8 * errors[0]


def features(network, feature: str, gone, calibration: CalibrationProblem) -> torch.Tensor:
    """A network's features of the images. gone: the teacher's blocks that it is without."""
    with torch.no_grad():
        value = node_by_name(network, feature_in(network, feature, gone))
        (found,) = forward(network, calibration.images.batch(slice(0, len(calibration.images))), [value])
    return found


def run(variant: str, precision: str, correct: int, seed: int = 0) -> dict[str, Any]:
    return {
        "network": "a network", "images": 50, "variant": variant, "precision": precision, "seed": seed,
        "correct": correct, "of": 100, "feature_error": 0.5,
    }  # fmt: skip


def test_runs_of_another_precision_are_not_paired_and_not_averaged():
    done = [run("default", "bfloat16", 90), run("SGD", "float32", 80), run("SGD", "bfloat16", 85, seed=1)]
    rows = {(row["variant"], row["precision"]): row for row in rows_of(done)}
    assert [row["seeds"] for row in rows.values()] == [1, 1, 1]
    assert rows["SGD", "float32"]["differences_points"] == []
    assert rows["SGD", "bfloat16"]["against_default_points"] is None  # no default of that seed


def test_runs_of_one_precision_are_paired_by_seed():
    done = [
        run(*each) for each in (("default", "float32", 90), ("default", "float32", 80, 1), ("default", "bfloat16", 50))
    ]
    done += [run("SGD", "float32", 85), run("SGD", "float32", 82, seed=1)]
    (row,) = [row for row in rows_of(done) if row["variant"] == "SGD"]
    assert row["differences_points"] == pytest.approx([-5.0, 2.0])
    assert (row["precision"], row["mean_percent"], row["seeds"]) == ("float32", 83.5, 2)
