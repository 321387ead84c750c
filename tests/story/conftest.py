"""One finished build, from which the tests go on in copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from story.scripted import device, make_build, one_thread, write_inputs


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_split() -> Iterator[None]:
    """Builds keep some images aside instead of judging all in turns, which takes six students for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("practise_deploy.model.images.FEW", 8)
        yield


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of the finished build: nine basic blocks of a user's network, two of them to be dropped."""
    networks, data = write_inputs(tmp_path_factory.mktemp("inputs"))
    return {"network": f"{networks}:tiny_resnet", "data": data, "drop": 2}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> Path:
    """Its run folder; look, and do not write."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    build = make_build(folder, **given)
    with device():
        assert build.release.verdict.exit_code == 0, build.release.verdict
    assert set(build.run.decisions.values()) == {"computed: there is no earlier result"}
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the run folder, to go on in."""

    def copy() -> Path:
        return Path(shutil.copytree(finished, tmp_path / "run"))

    return copy
