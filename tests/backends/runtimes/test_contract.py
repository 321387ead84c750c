"""What every backend promises; and what ONNX Runtime's adds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from practise_backends.errors import CompileError, DeviceUnavailable, MeasureError, OutOfMemory
from practise_backends.fake import FakeBackend
from practise_backends.interfaces import Backend
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes import ort
from practise_backends.runtimes.ort import OrtBackend, OrtEngine, import_onnxruntime
from practise_backends.terms import Conditions

CONDITIONS = Conditions(batch=2)
MAKERS: dict[str, Callable[[], Backend]] = {"ort": OrtBackend, "fake": FakeBackend}


@pytest.fixture(params=list(MAKERS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return MAKERS[request.param]()


class TestEveryBackend:
    def test_outputs_come_by_name(self, backend: Backend, network_file: Path) -> None:
        artifact = backend.compile(network_file, CONDITIONS)
        engine = backend.open(artifact, CONDITIONS)
        outputs = engine.run(random_feeds(engine.inputs, batch=2))
        assert {name: array.shape for name, array in outputs.items()} == {"features": (2, 4, 8, 8)}

    def test_artifact_says_what_the_network_is(self, backend: Backend, network_file: Path) -> None:
        by_path = backend.compile(network_file, CONDITIONS)
        by_bytes = backend.compile(network_file.read_bytes(), CONDITIONS)
        assert by_path.sha256 == by_bytes.sha256
        assert [(spec.name, spec.shape, spec.dtype) for spec in by_path.inputs] == [("image", (-1, 4, 8, 8), "float32")]
        assert (by_path.format, by_path.precision, by_path.precision_share) == ("onnx", "fp32", 1.0)
        assert by_path.device_fingerprint == backend.device().fingerprint

    def test_a_run_takes_time(self, backend: Backend, network_file: Path) -> None:
        engine = backend.open(backend.compile(network_file, CONDITIONS), CONDITIONS)
        assert engine.time_once(random_feeds(engine.inputs, batch=2)) > 0

    def test_a_closed_engine_says_so(self, backend: Backend, network_file: Path) -> None:
        engine = backend.open(backend.compile(network_file, CONDITIONS), CONDITIONS)
        feeds = random_feeds(engine.inputs, batch=2)
        engine.close()
        engine.close()
        for call in (engine.run, engine.time_once):
            with pytest.raises(MeasureError, match="closed"):
                call(feeds)

    def test_what_is_not_a_network_is_a_compile_error_with_a_remedy(self, backend: Backend, tmp_path: Path) -> None:
        torn = tmp_path / "torn.onnx"
        torn.write_bytes(b"not a network")
        for broken in (torn, b"", b"not a network", tmp_path / "absent.onnx"):
            with pytest.raises(CompileError) as found:
                backend.compile(broken, CONDITIONS)
            assert found.value.remedy

    def test_missing_feeds_are_a_measure_error(self, backend: Backend, network_file: Path) -> None:
        engine = backend.open(backend.compile(network_file, CONDITIONS), CONDITIONS)
        with pytest.raises(MeasureError):
            engine.run({})

    def test_a_precision_that_it_cannot_keep_is_refused(self, backend: Backend, network_file: Path) -> None:
        with pytest.raises(CompileError, match="'fp7'"):
            backend.compile(network_file, Conditions(precision="fp7"))

    def test_every_precision_that_it_names_is_taken(self, backend: Backend, network_file: Path) -> None:
        for precision in backend.capabilities.precisions:
            found = backend.compile(network_file, Conditions(precision=precision))
            assert (found.precision, (found.precision_share or 0.0) == 1.0) == (precision, precision == "fp32")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimise", [True, False])
def test_outputs_are_those_of_the_convolutions(network_file: Path, threads: int, optimise: bool) -> None:
    conditions = Conditions(threads=threads)
    backend = OrtBackend()
    engine = backend.open(backend.compile(network_file, conditions), conditions, optimise=optimise)
    found = engine.run({"image": np.ones((1, 4, 8, 8), np.float32)})["features"]
    assert found[0, 0, 4, 4] == pytest.approx(1.0)
    assert found[0, 0, 0, 0] == pytest.approx(25 / 81)  # 4 of 9 taps; of which 4, 6, 6 and 9 had theirs


def test_network_with_external_weights_needs_its_path(make_network: Callable, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(make_network(2), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    artifact = OrtBackend().compile(path, Conditions())
    engine = OrtBackend().open(artifact, Conditions())
    assert engine.run({"image": np.ones((1, 4, 8, 8), np.float32)})["features"].shape == (1, 4, 8, 8)
    with pytest.raises(CompileError, match=r"weights\.bin"):
        OrtBackend().compile(path.read_bytes(), Conditions())
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert OrtBackend().compile(path, Conditions()).sha256 != artifact.sha256
    weights.unlink()
    with pytest.raises(CompileError, match=r"weights\.bin cannot be read"):
        OrtBackend().compile(path, Conditions())


def test_unknown_operator_is_named(make_network: Callable, tmp_path: Path) -> None:
    network = make_network(1)
    network.graph.node[0].op_type = "Konvolution"
    path = tmp_path / "unknown.onnx"
    onnx.save(network, path)
    with pytest.raises(CompileError, match=r"unknown\.onnx.*\(operator Konvolution\)") as found:
        OrtBackend().compile(path, Conditions())
    assert "operator" in found.value.remedy


def test_conditions_of_a_gpu_are_refused(network_file: Path) -> None:
    for conditions in (Conditions(clock="gpu_compute"), Conditions(cuda_graph=True), Conditions(threads=0)):
        with pytest.raises(CompileError):
            OrtBackend().compile(network_file, conditions)


@pytest.mark.parametrize("threads", [-1, 4 * (os.cpu_count() or 1) + 1, 2**40])
def test_more_threads_than_the_machine_could_run_are_refused(network_file: Path, threads: int) -> None:
    with pytest.raises(CompileError, match=f"{threads} threads cannot be measured") as found:
        OrtBackend().compile(network_file, Conditions(threads=threads))
    assert "ask for 1 to" in found.value.remedy


@pytest.mark.parametrize("said", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 9"])
def test_memory_that_does_not_suffice_is_said_as_such(
    network_file: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(said)

    engine = OrtEngine(network_file, Conditions())
    monkeypatch.setattr(engine, "_session", SimpleNamespace(run=fail))
    with pytest.raises(OutOfMemory, match="out of memory: the engine could not run") as found:
        engine.run({"image": np.ones((1, 4, 8, 8), np.float32)})
    assert found.value.exit_code == 3 and found.value.remedy
    monkeypatch.setattr(import_onnxruntime(), "InferenceSession", fail)
    with pytest.raises(OutOfMemory, match=r"two\.onnx does not load"):
        OrtBackend().compile(network_file, Conditions())


def test_runtime_that_fails_says_nothing_of_its_own_on_stdout(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network_file.write_bytes(network_file.read_bytes().replace(b"pads", b"pad\xff"))
    with pytest.raises(CompileError, match=r"two\.onnx does not load"):
        OrtBackend().compile(network_file, Conditions())
    assert capsys.readouterr() == ("", "")


def test_there_is_no_silent_fallback(network_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def get_providers(self) -> list[str]:
            return ["SomewhereElse", "CPUExecutionProvider"]

    monkeypatch.setattr(ort, "_session", lambda *arguments: Session())
    with pytest.raises(DeviceUnavailable, match="SomewhereElse"):
        OrtBackend().compile(network_file, Conditions())


def test_half_precision_weights_are_not_called_fp32(tmp_path: Path) -> None:
    half = helper.make_tensor_value_info("image", TensorProto.FLOAT16, [1, 4])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "weight"], ["hidden"]),
            helper.make_node("Cast", ["hidden"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["wide", "wide_weight"], ["features"]),
        ],
        "mixed",
        [half],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.eye(4, dtype=np.float16), "weight"),
            numpy_helper.from_array(np.eye(4, dtype=np.float32), "wide_weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact = OrtBackend().compile(model.SerializeToString(), Conditions())
    assert artifact.precision_share == 0.5
    assert artifact.inputs[0].dtype == "float16"
