"""Networks that are judged by other things than one row of scores, from beginning to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from practise_deploy.errors import InputError
from practise_deploy.outcome import Answer
from practise_deploy.terms import TaskKind

from .scripted import device, make_build

NETWORKS = """
import torch
from dataclasses import dataclass
from torch import nn
from networks import tiny_resnet

@dataclass
class Found:
    pose: torch.Tensor
    classes: torch.Tensor

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = tiny_resnet()
        self.pose, self.classes = nn.Linear(10, 3), nn.Linear(10, 5)
    def forward(self, x):
        x = self.network(x)
        return Found(self.pose(x), self.classes(x))

class Segments(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 4, 1)
        self.units = nn.ModuleList(nn.Conv2d(8, 8, 3, 1, 1) for _ in range(3))
    def forward(self, x):
        x = self.stem(x)
        for unit in self.units:
            x = x + 0.2 * unit(x).relu()
        return {"out": self.last(x)}

def heads(): torch.manual_seed(0); return Heads()
def segments(): torch.manual_seed(0); return Segments()
"""


def given(folder: Path, name: str, **more: object) -> dict[str, object]:
    (folder / "nets.py").write_text(NETWORKS)
    np.savez(folder / "images.npz", images=np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    asked = {"network": f"{folder / 'nets.py'}:{name}", "data": folder / "images.npz", "drop": 1, "iterations": 1}
    return {**asked, "max_drop": 100.0, "frontier": False, **more}


def test_outputs_of_a_dataclass_are_shipped_by_name_and_one_of_them_is_judged(tmp_path: Path):
    with device():
        release = make_build(tmp_path / "run", **given(tmp_path, "heads")).release
    task = release.network.task
    assert (task.kind, task.names, task.output) == (TaskKind.CLASSIFICATION, ("pose", "classes"), 0)
    assert any(
        "judged as classification, by its output 'pose'; classes: compared" in note for note in release.network.notes
    )
    model = onnx.load(tmp_path / "run" / "model.onnx")
    assert [output.name for output in model.graph.output] == ["pose", "classes"]
    assert release.verification.faithful and release.verification.loss is not None


def test_maps_are_judged_pixel_by_pixel_and_the_page_says_so(tmp_path: Path):
    with device():
        release = make_build(tmp_path / "run", **given(tmp_path, "segments")).release
    loss = release.verification.loss
    assert release.network.task.kind is TaskKind.SEGMENTATION and loss is not None
    assert (
        loss.points.estimate == pytest.approx(100 - loss.agreement_percent.estimate) and 0 < loss.points.estimate < 100
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Same pixels" in page and "Agreement lost" in page and "of pixels" in release.verdict.sentence


def test_labels_of_pixels_say_how_many_are_right_before_and_after(tmp_path: Path):
    asked = given(tmp_path, "segments", frontier=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels, labels=rng.integers(0, 4, (40, 16, 16)))
    with device():
        release = make_build(tmp_path / "run", **asked).release
    loss, accuracy = release.verification.loss, release.verification.accuracy
    assert loss is not None and loss.of_accuracy and not loss.estimated
    before, after = accuracy["teacher"].percent.estimate, accuracy["engine"].percent.estimate
    assert loss.points.estimate == pytest.approx(before - after) and 10 < before < 40  # a quarter by chance
    assert all(point.accuracy for point in release.frontier.points) and release.plan.chosen.loss.of_accuracy
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Pixels right" in page and "Accuracy lost" in page and "Agreement lost" not in page
    assert release.verdict.answer is Answer.NOT_PROVEN and "indistinguishable from chance" in release.verdict.sentence
    assert "pixels right" in release.verdict.sentence and "top-1" not in page.lower()


def test_metric_of_the_users_own_judges_and_is_tried_before_anything_is_measured(tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "import numpy as np\ndef near(a, b):\n    return (np.abs(a - b).mean((1, 2, 3)) < 10).astype(float)\ndef broken(a, b):\n    return a.missing\n"
    )
    with device():
        release = make_build(
            tmp_path / "run", **given(tmp_path, "segments", task=f"{tmp_path / 'own.py'}:near")
        ).release
        broken = make_build(tmp_path / "other", **given(tmp_path, "segments", task=f"{tmp_path / 'own.py'}:broken"))
        with pytest.raises(InputError, match=r"own\.py:broken failed: AttributeError"):
            assert broken.release
    assert release.verification.loss is not None and release.verification.loss.agreement_percent.estimate == 100
    assert "by the metric" in release.verdict.sentence
    assert not (tmp_path / "other" / "latency.json").exists()
