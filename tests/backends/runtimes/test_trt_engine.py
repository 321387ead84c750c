"""The run side of TensorRT, on a scripted device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.scripted_driver import ScriptedLibrary
from backends.scripted_trt import DataType, Script, ScriptedCuda, scripted_provider
from practise_backends.errors import CompileError, DeviceUnavailable, MeasureError
from practise_backends.machine.driver import first_gpu
from practise_backends.runtimes.tensorrt import TensorRtBackend
from practise_backends.runtimes.tensorrt.engine import TensorRtEngine
from practise_backends.terms import Artifact, Conditions

ARTIFACT = Artifact(
    content=b"engine",
    sha256="",
    format="tensorrt",
    precision="fp32",
    precision_share=1.0,
    inputs=(),
    outputs=(),
    device_fingerprint="",
)
COMPUTE, WHOLE = Conditions(clock="gpu_compute"), Conditions(clock="end_to_end")


def opened(script: Script, cuda: ScriptedCuda, conditions: Conditions = COMPUTE, *, by_itself: bool = False) -> Any:
    provider = scripted_provider(script, package=f"scripted{id(script)}", by_itself=by_itself)
    return TensorRtEngine(provider, ARTIFACT, conditions, cuda)


def images(batch: int = 1, value: float = 1.0, dtype: str = "float32") -> dict[str, Any]:
    return {"x": np.full((batch, 3, 8, 8), value, dtype=dtype)}


def test_tensors_go_in_and_come_out() -> None:
    script = Script()
    engine = opened(script, ScriptedCuda(script))
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine.inputs] == [("x", (-1, 3, 8, 8), "float32")]
    found = engine.run(images(2))
    assert found["y"].shape == (2, 10)
    assert float(found["y"][0, 0]) == 2 * 3 * 8 * 8
    assert float(engine.run(images(2, 0.5))["y"][0, 0]) == 3 * 8 * 8


def test_gpu_compute_is_the_run_alone_and_end_to_end_the_whole() -> None:
    script = Script()
    cuda = ScriptedCuda(script, run_ms=2.0)
    engine, feeds = opened(script, cuda), images()
    assert engine.time_once(feeds) == pytest.approx(2.0)
    copies = cuda.copies
    assert engine.time_once(feeds) == pytest.approx(2.0)
    assert cuda.copies == copies  # the inputs lie on the device already
    whole = opened(script, cuda, WHOLE)
    assert whole.time_once(feeds) > 0
    before = cuda.copies
    whole.time_once(feeds)
    assert cuda.copies == before + 2


def test_short_engine_is_enqueued_several_times_between_two_events() -> None:
    script = Script()
    engine, feeds = opened(script, ScriptedCuda(script, run_ms=0.03)), images()
    assert engine.time_once(feeds) == pytest.approx(0.03)
    before = script.starts
    assert engine.time_once(feeds) == pytest.approx(0.03)
    assert script.starts - before == 4 == engine.runs_a_timing  # 100 us hold three and a third of 30 us


def test_parts_of_a_run_are_told_apart() -> None:
    script = Script()
    engine = opened(script, ScriptedCuda(script, run_ms=1.5, copy_ms=0.25))
    found = engine.parts_once(images())
    assert (found.host_to_device_ms, found.compute_ms, found.device_to_host_ms) == pytest.approx((0.25, 1.5, 0.25))
    assert found.enqueue_ms >= 0 and found.end_to_end_ms >= found.enqueue_ms


def test_graph_is_recorded_once_for_a_shape_and_launched_after() -> None:
    script = Script()
    cuda = ScriptedCuda(script)
    engine = opened(script, cuda, Conditions(clock="gpu_compute", cuda_graph=True))
    engine.run(images(1))
    assert (cuda.recorded, cuda.launched) == (1, 1)
    assert script.starts == 1  # the run that settles the kernels, before the recording
    engine.run(images(1, 2.0))
    assert (cuda.recorded, cuda.launched) == (1, 2)
    engine.run(images(2))
    assert (cuda.recorded, cuda.launched) == (2, 3)


def test_graph_that_could_not_be_recorded_is_not_left_out_the_next_time() -> None:
    script = Script(accepts=False)
    cuda = ScriptedCuda(script)
    engine = opened(script, cuda, Conditions(clock="gpu_compute", cuda_graph=True))
    with pytest.raises(MeasureError, match="refused to run"):
        engine.run(images(1))
    script.accepts = True
    engine.run(images(1))
    assert (cuda.recorded, cuda.launched) == (1, 1)


@pytest.mark.parametrize(("graph", "strategy"), [(True, "whole"), (False, "none")])
def test_runtime_that_captures_graphs_itself_is_told_whether_to(graph: bool, strategy: str) -> None:
    script = Script()
    cuda = ScriptedCuda(script, has_graphs=False)
    opened(script, cuda, Conditions(clock="gpu_compute", cuda_graph=graph), by_itself=True).run(images())
    assert script.strategies == [strategy]
    assert cuda.recorded == 0


def test_memory_is_given_back_for_other_shapes_and_at_the_end() -> None:
    script = Script()
    cuda = ScriptedCuda(script)
    engine = opened(script, cuda)
    engine.run(images(1))
    engine.run(images(1, 3.0))
    assert len(cuda.buffers) == 2
    engine.run(images(2))
    assert [buffer.freed for buffer in cuda.buffers] == [True, True, False, False]
    engine.close()
    engine.close()
    assert all(buffer.freed for buffer in cuda.buffers)
    for call in (engine.run, engine.time_once, engine.parts_once):
        with pytest.raises(MeasureError, match="closed"):
            call(images())


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "input 'x' is not fed"),
        (images(dtype="float64"), "input 'x' is float64, the engine takes float32"),
        (images(batch=9), r"does not take input 'x' of shape \(9, 3, 8, 8\)"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feeds: dict[str, Any], said: str) -> None:
    script = Script()
    engine = opened(script, ScriptedCuda(script))
    for call in (engine.run, engine.time_once):
        with pytest.raises(MeasureError, match=said) as found:
            call(feeds)
        assert found.value.remedy


def test_engine_that_refuses_to_run_says_so() -> None:
    script = Script(accepts=False)
    with pytest.raises(MeasureError, match="refused to run"):
        opened(script, ScriptedCuda(script)).run(images())


def test_engine_of_another_device_is_told_with_tensorrts_words() -> None:
    script = Script(loads=False)
    with pytest.raises(DeviceUnavailable, match="Version tag does not match") as found:
        opened(script, ScriptedCuda(script))
    assert "build it again from its ONNX file" in found.value.remedy and found.value.exit_code == 3


def test_device_without_room_for_the_engine_is_told() -> None:
    script = Script(has_room=False)
    with pytest.raises(DeviceUnavailable, match="the device cannot run it") as found:
        opened(script, ScriptedCuda(script))
    assert "--sessions" in found.value.remedy and found.value.exit_code == 3


def test_types_that_numpy_lacks_are_refused() -> None:
    script = Script(dtype=DataType.BF16)
    with pytest.raises(CompileError, match="type BF16"):
        opened(script, ScriptedCuda(script))


def test_package_that_ran_an_engine_is_told_with_the_device_which_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script()
    instruments = {
        "import_package": lambda name: scripted_provider(script, package="tensorrt", by_itself=False),
        "first_gpu": lambda: first_gpu(ScriptedLibrary().load),
        "open_cuda": lambda wanted: ScriptedCuda(script),
    }
    for name, seam in instruments.items():
        monkeypatch.setattr(f"practise_backends.runtimes.tensorrt.backend.{name}", seam)
    backend = TensorRtBackend()
    before = backend.device()
    backend.open(ARTIFACT, COMPUTE).close()
    after = backend.device()
    assert "cuda_package" not in before.facts
    assert after.facts["cuda_package"] == "scripted 1.0"
    assert after.fingerprint == before.fingerprint
