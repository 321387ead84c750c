"""What both programs do before anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from practise_backends.cli import program


def test_runtime_leaves_no_files_of_its_own(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry keeps some among the temporary files and in the cache."""
    code = "from practise_backends.cli.program import begin; begin(); import onnxruntime"
    places = {name: str(tmp_path) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env=kept | places, check=True)
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_says_of_telemetry_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    program.begin()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_variables_that_the_program_sets_are_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_SET_HERE", {})
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    program.begin()
    program.set_default("OMP_NUM_THREADS", "1")
    found = program.users_variables()
    assert "ORT_DISABLE_TELEMETRY" not in found and found["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert program.users_variables()["ORT_DISABLE_TELEMETRY"] == "0"
