"""The API on a scripted device, in an empty folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from networks import tiny_resnet
from pipeline.scripted import ScriptedOrt, device, few_replicates, one_split, one_thread


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with one_thread(), one_split(), few_replicates(), device(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("practise_backends.runtimes.catalog.load_backend", lambda name, options=None: ScriptedOrt())
        yield


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)


@pytest.fixture(scope="session")
def module() -> nn.Module:
    """A user's network, in training mode."""
    return tiny_resnet().train()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """40 raw images, channels last."""
    return np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
