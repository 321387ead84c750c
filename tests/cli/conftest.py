"""The command line, run inside the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.scripted import ScriptedOrt, exported_once, few_replicates, one_split, one_thread, write_inputs
from practise_deploy.cli import main


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"stdout holds {word}"))


Command = Callable[..., Said]


@pytest.fixture(scope="package", autouse=True)
def _quick() -> Iterator[None]:
    with one_thread(), one_split(), few_replicates(), exported_once():
        yield


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command line in an empty folder, on a scripted device; never a traceback."""
    scripted = ScriptedOrt()
    monkeypatch.setattr("practise_deploy.deployment.target.load_backend", lambda name, options: scripted)
    monkeypatch.setattr("practise_backends.runtimes.catalog.load_backend", lambda name, options=None: scripted)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr("sys.argv", ["practise-deploy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(int(left.value.code or 0), out, err)

    return run


@pytest.fixture(scope="package")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A user's Python file of networks, and an .npz of 40 images."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


FAST = ("--iterations", 2, "--batch-size", 16, "--measure-budget-s", 0.3)


@pytest.fixture
def job(inputs: tuple[Path, Path]) -> tuple[object, ...]:
    """A small job: network, images and patience."""
    networks, data = inputs
    return (f"{networks}:tiny_resnet", "--data", data, *FAST)
