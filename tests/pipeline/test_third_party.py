"""A backend from outside goes through everything, and nothing of ours knows its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.scripted import write_inputs

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
ROOT = Path(__file__).parents[2]
FAST = ("--iterations", "2", "--batch-size", "16", "--measure-budget-s", "0.3", "--no-frontier")


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    paths = [THIRD_PARTY, ROOT, ROOT / "tests", ROOT / "backends", *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "-m", program, *map(str, words)],
        capture_output=True, text=True, env=variables, timeout=300, check=False,
    )  # fmt: skip


def document(program: str, *words: object) -> Any:
    ended = run(program, *words, "--json")
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build for the third party's device."""
    folder = tmp_path_factory.mktemp("acme")
    networks, data = write_inputs(folder)
    words = (
        "build",
        f"{networks}:tiny_resnet",
        "--data",
        data,
        "--backend",
        "acme",
        "--out",
        folder / "run",
        "--drop",
        1,
    )
    release = document("practise_deploy.cli", *words, "--max-drop", "none", "--tiles", 4, *FAST)
    assert release["compiled"]["path"] == "model.acme" and release["compiled"]["provider"] == "acme 1.0"
    assert release["bench"]["conditions"]["clock"] == "gpu_compute"
    assert release["bench"]["device"]["facts"] == {"tiles": "4"}
    assert "--tiles 4" in release["command"]
    assert {"before": "ONNX", "after": "engine"}.items() <= release["verification"]["links"][2].items()
    return folder / "run"


def test_third_party_is_at_most_eighty_lines():
    assert len((THIRD_PARTY / "acme_backend.py").read_text().splitlines()) <= 80


def test_build_compiles_an_engine_for_it_and_proves_it(built: Path):
    assert (built / "model.acme").read_bytes().startswith(b"ACME")


def test_compare_measures_its_engines(built: Path):
    words = ("compare", built / "original.onnx", built / "model.acme", "--backend", "acme", "--measure-budget-s", 0.3)
    comparison = document("practise_backends.cli", *words)
    assert comparison["backend"] == "acme" and comparison["speedup"]["low"] > 1


def test_bench_of_both_programs_takes_its_engines(built: Path):
    for program in ("practise_backends.cli", "practise_deploy.cli"):
        words = ("bench", built / "model.acme", "--backend", "acme", "--measure-budget-s", 0.3)
        assert document(program, *words)["backend"] == "acme"


def test_engine_that_is_none_of_its_own_is_refused(built: Path, tmp_path: Path):
    (tmp_path / "other.acme").write_bytes(b"other")
    ended = run("practise_backends.cli", "bench", tmp_path / "other.acme", "--backend", "acme")
    assert ended.returncode == 2 and "is no engine of Acme's" in ended.stderr


def test_kit_is_written_and_measured_for_it(built: Path, tmp_path: Path):
    kit = document("practise_deploy.cli", "kit", built, "--kit", tmp_path / "kit")
    assert kit["backend"] == "acme"
    table = document("practise_backends.cli", "table", tmp_path / "kit", "--measure-budget-s", 0.3)
    assert table["device"]["facts"] == {"tiles": "4"}
    assert table["backend"] == "acme" and all(saving["distinguishable"] for saving in table["savings"])


def test_doctor_finds_it():
    assert "acme" in document("practise_backends.cli", "doctor", "--backend", "acme")["usable"]


def test_options_of_its_own_are_flags_of_both_programs_and_refused_elsewhere(built: Path, tmp_path: Path):
    assert "--tiles N" in run("practise_backends.cli", "compare", "--help").stdout
    assert "--tiles" in run("practise_deploy.cli", "build", "--help").stdout
    ended = run("practise_backends.cli", "bench", built / "model.onnx", "--tiles", 4)
    assert ended.returncode == 2 and "backend 'ort' has no --tiles" in ended.stderr
    ended = run("practise_deploy.cli", "build", "digits", "--backend", "acme", "--tiles", "none", "--out", tmp_path)
    assert ended.returncode == 2 and "'none' is not a whole number" in ended.stderr


def test_nothing_of_ours_knows_its_name():
    sources = [*(ROOT / "practise_deploy").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    assert not [file for file in sources if "acme" in file.read_text(encoding="utf-8").lower()]
