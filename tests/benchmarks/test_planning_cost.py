"""The benchmark of what planning costs: both sides are computed in one precision."""

from __future__ import annotations

import torch

from benchmarks.speed.planning import steps_of
from networks import tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from samples.lessons import RESNET, images, opened


def test_papers_steps_are_in_the_precision_that_ours_judges_in():
    teacher, feature, _ = opened(tiny_resnet(), RESNET)
    for dtype in (torch.float32, torch.bfloat16):
        calibration = CalibrationProblem(
            teacher=teacher, feature=feature, images=images(2, RESNET), comparison_dtype=dtype
        )
        assert steps_of(calibration, 3).dtype == dtype
        assert steps_of(calibration, 3).steps == 3
