"""One finished build, from which the tests go on in copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.scripted import device, few_replicates, make_build, one_split, one_thread, write_inputs


@pytest.fixture(scope="package", autouse=True)
def _quick() -> Iterator[None]:
    with one_thread(), one_split(), few_replicates():
        yield


@pytest.fixture(scope="package")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of the finished build: nine basic blocks of a user's network, two of them to be dropped."""
    networks, data = write_inputs(tmp_path_factory.mktemp("inputs"))
    return {"network": f"{networks}:tiny_resnet", "data": data, "drop": 2}


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> Path:
    """Its run folder; look, and do not write."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    build = make_build(folder, **given)
    with device():
        assert build.release.verdict.exit_code == 0, build.release.verdict
    assert set(build.context.run.decisions.values()) == {"computed: there is no earlier result"}
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the run folder, to go on in."""

    def copy() -> Path:
        return Path(shutil.copytree(finished, tmp_path / "run"))

    return copy
