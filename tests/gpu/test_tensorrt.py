"""TensorRT on a GPU: what is built, runs, computes the same as ONNX Runtime, and is timed. Run with: pytest -m gpu

Each package that is not installed is skipped with its name; without any of them, or without a GPU, nothing here runs.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from backends.conftest import chain
from backends.streams import in_another_thread, there_and_back
from practise_backends.cli import main as practise_measure
from practise_backends.errors import BackendError, DeviceUnavailable
from practise_backends.interfaces import MeasurementSetup
from practise_backends.machine.driver import first_gpu
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.feeds import random_feeds
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.runtimes.tensorrt import TensorRtBackend, TensorRtOptions, TensorRtRtxBackend
from practise_backends.runtimes.tensorrt.cuda import PACKAGES, open_cuda
from practise_backends.terms import Conditions, StoppingRule

pytestmark = pytest.mark.gpu

STANDIN = "Stand-in GPU"  # of without_a_gpu.sh
KINDS = {"trt": (TensorRtBackend, "tensorrt"), "trt-rtx": (TensorRtRtxBackend, "tensorrt_rtx")}


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module", autouse=True)
def _needs_a_gpu() -> None:
    try:
        first_gpu()
    except DeviceUnavailable as error:
        pytest.skip(error.message)


@pytest.fixture(params=list(KINDS))
def backend(request: pytest.FixtureRequest) -> TensorRtBackend:
    kind, package = KINDS[request.param]
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    found = kind()
    try:
        found.compile(onnx_bytes(), Conditions(clock="gpu_compute"))
    except BackendError as error:
        pytest.skip(f"{package} does not build for this GPU: {error}")
    return found


@pytest.fixture(params=list(PACKAGES))
def cuda(request: pytest.FixtureRequest) -> str:
    if not installed(PACKAGES[request.param]):
        pytest.skip(f"{request.param} is not installed")
    if request.param != "pycuda" and first_gpu().name == STANDIN:
        pytest.skip(f"{request.param} takes a real driver")
    return str(request.param)


def onnx_bytes(convolutions: int = 4, shape: tuple[Any, ...] = ("N", 4, 32, 32)) -> bytes:
    return chain(convolutions, shape=shape).SerializeToString()


@pytest.mark.parametrize("graph", [False, True])
def test_engine_computes_what_onnx_runtime_computes(backend: TensorRtBackend, cuda: str, graph: bool) -> None:
    ours = type(backend)(TensorRtOptions(cuda=cuda, tf32=False))
    conditions = Conditions(clock="gpu_compute", cuda_graph=graph)
    if graph and cuda == "pycuda" and not ours.package.graphs_by_itself:
        with pytest.raises(DeviceUnavailable, match="no CUDA graphs"):
            ours.open(ours.compile(onnx_bytes(), conditions), conditions)
        return
    engine = ours.open(ours.compile(onnx_bytes(), conditions), conditions)
    plain = OrtBackend()
    reference = plain.open(plain.compile(onnx_bytes(), Conditions()), Conditions())
    for batch in (1, 3, 8):
        feeds = random_feeds(engine.inputs, batch, seed=batch)
        expected = reference.run(feeds)
        for _ in range(2):
            found = engine.run(feeds)
            np.testing.assert_allclose(found["features"], expected["features"], rtol=1e-3, atol=1e-4)
    engine.close()


def test_times_are_of_the_device_and_parts_add_up(backend: TensorRtBackend, cuda: str) -> None:
    ours = type(backend)(TensorRtOptions(cuda=cuda))
    small, large = (onnx_bytes(4, (1, 4, side, side)) for side in (64, 512))
    found = {}
    for name, model in (("small", small), ("large", large)):
        for clock in ("gpu_compute", "end_to_end"):
            conditions = Conditions(clock=clock)
            engine = ours.open(ours.compile(model, conditions), conditions)
            feeds = random_feeds(engine.inputs)
            found[name, clock] = float(np.median([engine.time_once(feeds) for _ in range(50)]))
            parts = engine.parts_once(feeds)
            assert parts.compute_ms > 0 and parts.enqueue_ms > 0
            assert parts.end_to_end_ms >= 0.9 * (parts.host_to_device_ms + parts.device_to_host_ms)
            engine.close()
    assert all(ms > 0 for ms in found.values())
    assert found["large", "gpu_compute"] > found["small", "gpu_compute"]  # 64 times the pixels


def test_equal_networks_are_not_told_apart_and_unequal_ones_are(backend: TensorRtBackend, tmp_path: Path) -> None:
    files = {}
    for name, count in ((ORIGINAL, 12), ("same", 12), ("half", 6)):
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(chain(count, shape=(1, 4, 256, 256)), files[name])
    stand = MeasurementSetup(
        backend=backend,
        conditions=Conditions(clock="gpu_compute"),
        stopping_rule=StoppingRule(budget_s=20.0, warmup_s=1.0, sessions=2),
    )
    candidates = {name: Candidate(model=file, sessions=2) for name, file in files.items()}
    with opened(candidates, stand) as networks:
        levels = estimate_latencies(measure(networks, stand))
    floor = levels.noise_floor()
    assert floor.low <= 1.05 and floor.high >= 0.95
    assert levels.ratio("half").high < 1


def test_engine_tells_its_layers_and_their_types(backend: TensorRtBackend) -> None:
    conditions = Conditions(clock="gpu_compute")
    artifact = backend.compile(onnx_bytes(), conditions)
    engine = backend.open(artifact, conditions)
    assert engine.layers() or artifact.layers


def test_timing_cache_is_kept(backend: TensorRtBackend, tmp_path: Path) -> None:
    ours = type(backend)(TensorRtOptions(timing_cache=tmp_path))
    ours.compile(onnx_bytes(), Conditions(clock="gpu_compute"))
    assert bool(list(tmp_path.glob("*.timings"))) == ours.package.keeps_timings


def test_streams_copy_and_time(cuda: str) -> None:
    stream = open_cuda(cuda)
    assert there_and_back(stream, side=1000) > 0
    assert in_another_thread(stream) > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_whole_story(
    backend: TensorRtBackend, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """`practise-deploy build --backend trt` on the embedded default, and its engine from the file once more."""
    run = tmp_path / "run"
    words: list[object] = ["build", "digits", "--backend", backend.name, "--out", run, "--drop", 2, "--iterations", 20]
    words += ["--precision", precision, "--measure-budget-s", 10, "--fit-images", 50, "--no-frontier"]
    code = command(monkeypatch, *words)
    said = capsys.readouterr().err
    assert code in (0, 1), said  # 1: so small a network may not become surely faster on a large GPU
    release = json.loads((run / "release.json").read_text())
    assert release["bench"]["backend"] == backend.name
    assert release["bench"]["conditions"]["clock"] == "gpu_compute"
    assert release["verification"]["faithful"], release["verification"]["problems"]
    assert release["compiled"]["precision_share"] >= 0.9, release["compiled"]["others"]
    assert "engine" in {link["after"] for link in release["verification"]["links"]}
    assert (run / "report.html").is_file()

    conditions = Conditions(precision=precision, clock="gpu_compute")
    kept = backend.open(backend.compile(run / "model.engine", conditions), conditions)
    fresh = backend.open(backend.compile(run / "model.onnx", conditions), conditions)
    feeds = random_feeds(kept.inputs, 1, 0)
    first, again = (next(iter(engine.run(feeds).values())).astype(np.float32) for engine in (kept, fresh))
    assert np.abs(first - again).max() <= 0.1 * np.abs(first).max()


def test_engine_built_ahead_runs_here(backend: TensorRtBackend, tmp_path: Path) -> None:
    here, conditions = first_gpu().capability, Conditions(clock="gpu_compute")
    if here not in backend.package.supported_targets():
        pytest.skip(f"{backend.package.name} builds nothing ahead for {here}")
    ahead = type(backend)(TensorRtOptions(target_archs=(here,)))
    ahead.save(ahead.compile(onnx_bytes(shape=(1, 4, 32, 32)), conditions), tmp_path / "net.engine")
    engine = backend.open(backend.compile(tmp_path / "net.engine", conditions), conditions)
    assert engine.time_once(random_feeds(engine.inputs, 1, 0)) > 0


def test_kit_is_measured_here_and_its_table_is_planned_with(
    backend: TensorRtBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    kit, run = tmp_path / "kit", tmp_path / "run"
    asked = ["digits", "--backend", backend.name, "--precision", "fp16", "--out", run]
    assert command(monkeypatch, "kit", *asked, "--kit", kit) == 0
    assert practise_measure([str(kit), "--measure-budget-s", "10"]) == 0
    table = json.loads((kit / "latency.json").read_text())
    assert (table["backend"], table["conditions"]["precision"]) == (backend.name, "fp16")
    code = command(monkeypatch, "plan", *asked, "--latency-table", kit / "latency.json", "--reduce", 10)
    assert code in (0, 1), capsys.readouterr().err


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """A command line of practise-deploy in this process."""
    from practise_deploy.cli import main

    monkeypatch.setattr("sys.argv", ["practise-deploy", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)
