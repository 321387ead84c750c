"""Where the network will run, as the settings say it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from practise_backends.errors import BackendError, DeviceUnavailable, EnvironmentProblem
from practise_backends.runtimes import catalog
from practise_backends.runtimes.tensorrt import TensorRtBackend
from practise_deploy.deployment.target import backend_of, conditions_of
from practise_deploy.settings import read_settings


class OnGpu(TensorRtBackend):
    """TensorRT's backend with a GPU at hand."""

    def device(self) -> Any:
        return SimpleNamespace(name="scripted GPU", fingerprint="gpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(catalog, "_entry_points", lambda: {"trt": SimpleNamespace(load=lambda: OnGpu)})


@pytest.mark.usefixtures("gpu")
def test_options_reach_the_backend_and_its_first_clock_is_taken(tmp_path: Path):
    asked = {"backend": "trt", "cuda": "torch", "workspace_mib": "512", "timing_cache": str(tmp_path), "tf32": False}
    settings = read_settings(asked)
    backend = backend_of(settings)
    assert isinstance(backend, TensorRtBackend)
    found = backend.options
    assert (found.cuda, found.workspace_mib, found.timing_cache, found.tf32) == ("torch", 512, tmp_path, False)
    assert (found.optimisation_level, found.max_batch) == (None, 8)
    assert conditions_of(settings, backend).clock == "gpu_compute"


@pytest.mark.usefixtures("gpu")
def test_clock_and_graph_are_conditions():
    settings = read_settings({"backend": "trt", "clock": "end_to_end", "cuda_graph": True, "batch": 4})
    found = conditions_of(settings, backend_of(settings))
    assert (found.clock, found.cuda_graph, found.batch) == ("end_to_end", True, 4)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cuda": "torch"}, "'ort' has no --cuda"),
        ({"max_batch": 16}, "'ort' has no --max-batch"),
        ({"cuda_graph": True}, "'ort' has no --cuda-graph"),
        ({"clock": "gpu_compute"}, "'ort' has no --clock gpu_compute"),
    ],
)
def test_what_is_of_another_backend_is_refused_and_not_ignored(asked: dict[str, Any], said: str):
    with pytest.raises(BackendError, match=said) as found:
        backend_of(read_settings(asked))
    assert found.value.remedy


def test_onnx_runtime_times_the_whole_run():
    settings = read_settings({})
    assert conditions_of(settings, backend_of(settings)).clock == "end_to_end"


@pytest.mark.usefixtures("gpu")
def test_device_that_is_not_at_hand_is_the_environment(monkeypatch: pytest.MonkeyPatch):
    def missing(self: Any) -> None:
        raise DeviceUnavailable("there is no NVIDIA driver", remedy="install one")

    monkeypatch.setattr(OnGpu, "device", missing)
    with pytest.raises(EnvironmentProblem, match="no NVIDIA driver"):
        backend_of(read_settings({"backend": "trt"}))


def test_backend_is_found_before_torch_is_imported():
    """An answer within two seconds: torch alone takes longer."""
    import subprocess

    program = (
        "import sys; sys.modules['tensorrt'] = None; sys.modules['torch'] = None; sys.argv[1:] = ['build', '--backend', 'trt'];"
        "from practise_deploy.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "backend 'trt'" in done.stderr and "pip install" in done.stderr
