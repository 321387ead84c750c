"""What decides whether a step is computed again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import tiny_resnet
from practise_deploy.images.tiny_set import load_images
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.tracing.trace import trace
from practise_deploy.pipeline import fingerprint as fingerprints
from practise_deploy.pipeline.fingerprint import code, fingerprint
from practise_deploy.settings import Settings
from practise_deploy.terms import Student

STUDENT = Student(
    dropped=("a",), method="refit", mse_before=2.0, mse=1.0, steps=0, seconds=3.0, notes=(), weights={"w": np.zeros(3)}
)


@dataclass(frozen=True, slots=True)
class Recipe:
    rate: float
    dtype: torch.dtype = torch.float32


def test_record_is_told_by_its_fields_and_a_document_by_its_hash():
    assert fingerprint(Recipe(0.1)) == {"rate": 0.1, "dtype": "torch.float32"}
    assert isinstance(fingerprint(STUDENT), str)


def test_student_is_told_by_what_it_computes_and_not_by_how_long_it_took():
    assert fingerprint(replace(STUDENT, seconds=9.0)) == fingerprint(STUDENT)
    assert fingerprint(replace(STUDENT, weights={"w": np.ones(3)})) != fingerprint(STUDENT)


def test_network_is_told_by_its_weights_and_its_structure():
    traced, _ = trace(tiny_resnet(), (1, 3, 16, 16))
    again, _ = trace(tiny_resnet(), (1, 3, 16, 16))
    assert fingerprint(traced) == fingerprint(again)
    with torch.no_grad():
        next(again.parameters()).add_(1e-3)
    fingerprints._NETWORKS.clear()
    assert fingerprint(traced) != fingerprint(again)


def test_fingerprint_does_not_depend_on_what_was_asked_before(tmp_path: Path):
    file = tmp_path / "net.py"
    file.write_text("from networks import tiny_resnet\n")
    network = load_network(Settings(network=f"{file}:tiny_resnet", input_size=16))
    alone = fingerprint(network.traced)
    fingerprints._NETWORKS.clear()
    assert fingerprint(network) != alone == fingerprint(network.traced)


def test_images_are_told_by_their_pixels_and_their_labels():
    images = load_images(Settings(network="digits"), load_network(Settings(network="digits")).summary).fit
    changed = replace(images, pixels=images.pixels.flip(0)), replace(images, labels=torch.arange(len(images)))
    assert len({fingerprint(each) for each in (images, *changed)}) == 3


def test_input_that_nobody_has_spoken_for_is_refused():
    with pytest.raises(AssertionError, match="what decides for a object"):
        fingerprint(object())


def test_another_source_of_the_product_is_another_key(monkeypatch: pytest.MonkeyPatch, tmp_path):
    source = tmp_path / "module.py"
    monkeypatch.setattr(fingerprints.practise_deploy, "__path__", [str(tmp_path)])
    keys = []
    for text in ("a = 1", "a = 2"):
        source.write_text(text)
        keys.append(code.__wrapped__())
    assert keys[0]["practise-deploy"] != keys[1]["practise-deploy"]
    assert keys[0]["torch"] == torch.__version__
