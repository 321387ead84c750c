"""`practise-measure`, the catalog, and imports without the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import onnx
import pytest

from practise_backends import catalog
from practise_backends.catalog import available_backends, load_backend
from practise_backends.cli import main
from practise_backends.errors import BackendMissing
from practise_backends.ort import OrtBackend

QUICK = ["--budget-s", "0.2", "--min-rounds", "10"]

WITHOUT_EXTRAS = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxruntime", "tensorrt", "pycuda"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import practise_backends
names = [module.name for module in pkgutil.iter_modules(practise_backends.__path__)]
for name in names:
    importlib.import_module(f"practise_backends.{name}")
from practise_backends.catalog import load_backend
from practise_backends.errors import BackendMissing
try:
    load_backend("ort")
except BackendMissing as error:
    print(len(names), error.remedy)
"""


@pytest.fixture
def two_files(make_network: Callable, tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("long.onnx", "short.onnx")]
    for path, convolutions in zip(paths, (6, 2), strict=True):
        onnx.save(make_network(convolutions), path)
    return [str(path) for path in paths]


def test_json_is_exactly_one_document(two_files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*two_files, *QUICK, "--batch", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["schema"] == 1
    assert document["conditions"]["batch"] == 2
    assert document["device"]["fingerprint"] == OrtBackend().device().fingerprint
    assert document["stopped_because"]
    first, second = document["results"]
    assert first["speedup"] is None
    assert set(second["speedup"]) == {"estimate", "low", "high", "confidence"}
    assert second["speedup"]["low"] <= second["speedup"]["estimate"] <= second["speedup"]["high"]
    assert document["noise_floor"]["confidence"] == 0.95


def test_table_names_the_files_and_the_noise_floor(
    two_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*two_files, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(path in out for path in two_files)
    assert "the first file against itself" in out
    assert "stopped because" in out


def test_one_file_alone_can_be_measured(two_files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([two_files[0], *QUICK, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent.onnx"], 2, "absent.onnx"),
        (["{file}", "--backend", "trt"], 3, "not shipped yet"),
        (["{file}", "--backend", "abacus"], 3, "available: "),
        (["{file}", "--shape", "image=2x4x8x8"], 2, "batch of 1"),
        (["{file}", "--shape", "picture=1x4x8x8"], 2, "no file has an input 'picture'"),
        (["{file}", "--budget-s", "0"], 2, "budget"),
    ],
)
def test_errors_are_one_line_with_a_code(
    arguments: list[str], code: int, said: str, two_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(file=two_files[0]) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert "; " in err


@pytest.mark.parametrize(
    "arguments", [[], ["a.onnx", "--threads", "0"], ["a.onnx", "--shape", "1x2"], ["-x", "a"]]
)
def test_usage_errors_leave_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_files_of_different_inputs_are_not_compared(
    make_network: Callable, two_files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = tmp_path / "wide.onnx"
    onnx.save(make_network(2, shape=("N", 4, 9, 9)), wide)
    assert main([two_files[0], str(wide), *QUICK]) == 2
    assert "input 'image'" in capsys.readouterr().err


def test_backends_are_found_by_their_entry_points() -> None:
    assert "ort" in available_backends()
    assert isinstance(load_backend("ort"), OrtBackend)


def test_backend_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="far", value="no_such_package_here:Backend", group=catalog.GROUP)
    monkeypatch.setattr(catalog, "entry_points", lambda group: [point])
    with pytest.raises(BackendMissing, match="no_such_package_here") as found:
        load_backend("far")
    assert found.value.remedy == 'pip install "practise-backends[far]"'


def test_every_module_imports_without_torch_and_the_extras() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    count, _, remedy = done.stdout.strip().partition(" ")
    assert int(count) >= 12
    assert remedy == 'pip install "practise-backends[ort]"'
