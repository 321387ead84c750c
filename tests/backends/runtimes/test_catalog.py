"""Backends are found by their entry points, and their packages are imported with them alone."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from practise_backends.errors import BackendMissing
from practise_backends.runtimes import catalog
from practise_backends.runtimes.catalog import available_backends, load_backend
from practise_backends.runtimes.ort import OrtBackend

WITHOUT_EXTRAS = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "mlperf_loadgen"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import practise_backends
names = [module.name for module in pkgutil.iter_modules(practise_backends.__path__)]
for name in names:
    importlib.import_module(f"practise_backends.{name}")
from practise_backends.runtimes.catalog import load_backend
from practise_backends.errors import BackendMissing
try:
    load_backend("ort")
except BackendMissing as error:
    print(len(names), error.remedy)
"""


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
