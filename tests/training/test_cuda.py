"""Planning on a GPU gives what it gives on the CPU; everything stays where the calibration is."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import backend_registration

from networks import tiny_convnext, tiny_mobilenet, tiny_resnet, tiny_swin
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import find_feature
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.refit.recover import recover, verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.run import Silent
from practise_deploy.terms import Preprocessing
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.schedule import Schedule


def lesson_of(make, side):
    traced, _ = trace(make(), (1, 3, side, side))
    prepared = Preprocessing(
        channels=3, size=(side, side), resize=side, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear",
        augment="none",
    )  # fmt: skip
    pixels = torch.randn((12, 3, side, side), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    data = FitImages(pixels, None, prepared)
    calibration = CalibrationProblem(teacher=traced.double(), feature=find_feature(traced).name, images=data)
    return calibration, droppable(find_blocks(calibration.teacher, (1, 3, side, side)))


def test_a_lesson_stays_itself_on_its_own_device():
    calibration, _ = lesson_of(tiny_resnet, 16)
    assert calibration.to(torch.device("cpu")) is calibration


def test_a_lesson_goes_to_a_device_and_the_teacher_stays():
    calibration, _ = lesson_of(tiny_resnet, 16)
    there = calibration.to(torch.device("meta"))
    assert there.device.type == "meta"
    assert {value.device.type for value in there.teacher.state_dict().values()} == {"meta"}
    assert {value.device.type for value in calibration.teacher.state_dict().values()} == {"cpu"}
    assert len(there.images) == len(calibration.images)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("make", "side"), [(tiny_resnet, 16), (tiny_mobilenet, 32), (tiny_convnext, 32), (tiny_swin, 32)]
)
def test_planning_agrees_with_the_cpu(make, side, gpu):
    calibration, blocks = lesson_of(make, side)
    there = calibration.to(torch.device(gpu))
    here, far = (measure_recoverability(each, blocks[:3], Silent()) for each in (calibration, there))
    for a, b in zip(here.of, far.of, strict=True):
        assert (a.block, a.method) == (b.block, b.method)
        assert b.mse.estimate == pytest.approx(a.mse.estimate, rel=1e-6)
    for name, products in here.interactions.items():
        np.testing.assert_allclose(far.interactions[name], products, rtol=1e-5, atol=1e-9)
    on_cpu, on_gpu = (verified_without(each, blocks[:1], Silent()) for each in (calibration, there))
    assert on_gpu.errors == pytest.approx(on_cpu.errors, rel=1e-6)
    assert on_gpu.loss.points.estimate == pytest.approx(on_cpu.loss.points.estimate, abs=1e-4)
    assert on_gpu.loss.agreement_percent == on_cpu.loss.agreement_percent


@pytest.mark.gpu
@pytest.mark.parametrize(("make", "side"), [(tiny_resnet, 16), (tiny_swin, 32)])
def test_refit_agrees_with_the_cpu(make, side, gpu):
    calibration, blocks = lesson_of(make, side)
    students = [recover(each, blocks[-1:], Silent()) for each in (calibration, calibration.to(torch.device(gpu)))]
    assert students[1].relative == pytest.approx(students[0].relative, rel=1e-6)
    assert all(isinstance(value, np.ndarray) for value in students[1].weights.values())


@pytest.mark.gpu
def test_the_papers_adaptors_are_trained_on_the_gpu(gpu):
    calibration, blocks = lesson_of(tiny_resnet, 16)
    schedule = Schedule(steps=3, batch_size=8)
    found = [
        measure_by_adaptors(each, blocks[:1], schedule, Silent())
        for each in (calibration, calibration.to(torch.device(gpu)))
    ]
    assert found[1].of[0].mse.estimate == pytest.approx(found[0].of[0].mse.estimate, rel=1e-4)


@pytest.mark.slow
def test_nothing_is_left_behind_on_the_way_to_another_device():
    """The tests that are marked `gpu`, in a process of their own, on a device beside the CPU."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} cannot be given a device in Python")
    tests = Path(__file__).parents[1]
    marked = [
        file
        for room in ("images", "network", "refit", "training")
        for file in (tests / room).glob("test_*.py")
        if "@pytest.mark.gpu" in file.read_text(encoding="utf-8")
    ]
    words = ["-p", "standin.far", "-p", "no:cacheprovider", "-m", "gpu", "-q", *sorted(marked)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    paths = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, words)],
        capture_output=True, text=True, env={**variables, "PYTHONPATH": paths}, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    last = ended.stdout.strip().splitlines()[-1]
    assert "passed" in last and "skipped" not in last, last
