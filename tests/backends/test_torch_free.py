"""`practise-measure` where torch is not installed: blocked here, and really absent in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

from backends.kits import CUTS, make_kit
from practise_backends.options import Measuring
from practise_deploy.deployment.latency_table import read_table
from practise_deploy.deployment.wheel import device_wheel

BACKENDS = Path(__file__).parents[2] / "backends"
NOT_OURS = "rapidocr-onnxruntime"  # its wheel brings three small ONNX networks
SHAPES = {"cls": "x=1x3x48x192", "det": "x=1x3x96x96"}
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "onnx"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
from practise_backends.cli import main
sys.exit(main(sys.argv[1:]))
"""
FIND = """
import importlib.util, json, pathlib
found = {name: importlib.util.find_spec(name) is not None for name in ("torch", "torchvision", "onnx")}
package = pathlib.Path(importlib.util.find_spec("rapidocr_onnxruntime").submodule_search_locations[0])
files = {key: str(path) for key in ("cls", "det") for path in package.rglob(f"*_{key}_*.onnx")}
print(json.dumps({"found": found, "files": files}))
"""


def told(command: Sequence[str], *, codes: tuple[int, ...] = (0,), timeout: float = 300) -> str:
    """What a command printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, env=dict(os.environ, PYTHONPATH="")
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def check_engine(engine: dict[str, Any], file: str) -> None:
    """The figures that every network has."""
    assert engine["file"] == file
    assert engine["p50_ms"]["low"] <= engine["p50_ms"]["estimate"] <= engine["p50_ms"]["high"]
    assert min(engine[key] for key in ("load_ms", "first_run_ms", "file_mb", "throughput_per_s")) > 0


def test_compare_and_bench_need_neither_torch_nor_onnx(make_network: Callable, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    for file, convolutions in zip(files, (6, 2), strict=True):
        onnx.save(make_network(convolutions), file)
    measure = [sys.executable, "-c", BLOCKED]
    compared = json.loads(told([*measure, "compare", *files, "--measure-budget-s", "0.5", "--json"], codes=(0, 1)))
    assert compared["verdict"] in ("faster", "slower", "cannot tell")
    benched = json.loads(told([*measure, "bench", files[0], "--measure-budget-s", "0.5", "--batches", "1,2", "--json"]))
    check_engine(benched["engines"][0], files[0])
    assert [one["batch"] for one in benched["throughput"]] == [1, 2]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with practise-backends and somebody else's networks; torch is not in it."""
    place = tmp_path_factory.mktemp("elsewhere") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
    pip = [str(place / "bin" / "pip"), "--disable-pip-version-check", "--quiet", "--retries", "1"]
    source = tmp_path_factory.mktemp("source") / "backends"
    _copy_sources(source)
    for wanted in ([f"{source}[ort]"], ["--no-deps", NOT_OURS]):
        done = subprocess.run([*pip, "install", *wanted], capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            unreachable = ("Could not fetch", "No matching distribution", "Connection", "Temporary failure")
            assert any(word in done.stderr for word in unreachable), done.stderr
            pytest.skip(f"pip cannot install {wanted[-1]} here: {last}")
    return place


def _copy_sources(place: Path) -> None:
    """Without what earlier builds left there, so that pip builds from what is there now."""
    import shutil

    left = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(BACKENDS, place, ignore=left)


def test_networks_of_others_are_measured_where_torch_is_not_installed(elsewhere: Path) -> None:
    there = json.loads(told([str(elsewhere / "bin" / "python"), "-c", FIND]))
    assert there["found"] == {"torch": False, "torchvision": False, "onnx": False}
    files, measure = there["files"], str(elsewhere / "bin" / "practise-measure")
    quick = ["--measure-budget-s", "2", "--json"]
    for key, shape in SHAPES.items():
        benched = json.loads(told([measure, "bench", files[key], "--shape", shape, *quick]))
        check_engine(benched["engines"][0], files[key])
        assert benched["rounds"] >= 30 and benched["aa_ratio"]["low"] <= benched["aa_ratio"]["high"]
    itself = [files["cls"], files["cls"], "--shape", SHAPES["cls"]]
    compared = json.loads(told([measure, "compare", *itself, "--min-speedup", "0.2", *quick]))
    assert compared["requirement"]["kept"]
    assert compared["engines"][0]["sha256"] == compared["engines"][1]["sha256"]


def test_kit_is_measured_with_the_wheel_that_lies_in_it(elsewhere: Path, network_file: Path, tmp_path: Path) -> None:
    """Its networks are all the same here, so that nothing is saved; the table is one that a plan reads."""
    kit, tool = tmp_path / "kit", tmp_path / "tool"
    make_kit(kit, network_file, asked=Measuring(measure_budget_s=3.0))
    name, wheel = device_wheel()
    (kit / name).write_bytes(wheel)
    told([str(elsewhere / "bin" / "pip"), "install", "-q", "--no-deps", "--target", str(tool), str(kit / name)])
    done = subprocess.run(
        [str(elsewhere / "bin" / "python"), "-m", "practise_backends.cli", "."],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=dict(os.environ, PYTHONPATH=str(tool)),
        cwd=kit,
    )
    if done.returncode == 3 and "find what disturbs the device" in done.stderr:
        pytest.skip(f"this machine is too disturbed to measure on: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "distinguishable from zero" in done.stdout and "--latency-table latency.json" in done.stderr
    table = read_table(kit / "latency.json")
    assert (table.network, table.backend, table.structure_sha256) == ("net", "ort", "5a" * 32)
    assert [saving.block for saving in table.savings] == [cut.block for cut in CUTS]
    assert (kit / "latency.npz").is_file()
