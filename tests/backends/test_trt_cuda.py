"""The packages for CUDA, each scripted by its own names: memory is numpy's, the clock counts calls."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from practise_backends.errors import BackendMissing, DeviceUnavailable
from practise_backends.tensorrt.cuda import PACKAGES, Cuda, open_cuda


class Device:
    """Memory by address, and a log of what was asked."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.log: list[str] = []
        self.ticks = 0.0

    def allocate(self, size: int) -> int:
        kept = np.zeros(size, np.uint8)
        self.memory[kept.ctypes.data] = kept
        return int(kept.ctypes.data)

    def copy(self, to: int, of: int, size: int) -> None:
        ctypes.memmove(to, of, size)

    def tick(self) -> float:
        self.ticks += 0.5
        return self.ticks


def scripted_pycuda(device: Device) -> dict[str, Any]:
    class Event:
        def record(self, stream: Any) -> None:
            self.at = device.tick()

        def synchronize(self) -> None:
            device.log.append("waited")

        def time_since(self, earlier: Any) -> float:
            return float(self.at - earlier.at)

    class Memory(int):
        def free(self) -> None:
            device.memory.pop(int(self))

    context = SimpleNamespace(
        push=lambda: device.log.append("push"),
        pop=lambda: device.log.append("pop"),
        detach=lambda: device.log.append("detach"),
    )
    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        init=lambda: device.log.append("init"),
        Device=lambda ordinal: SimpleNamespace(retain_primary_context=lambda: context),
        Stream=lambda: SimpleNamespace(handle=7, synchronize=lambda: device.log.append("synchronised")),
        Event=Event,
        mem_alloc=lambda size: Memory(device.allocate(size)),
        pagelocked_empty=lambda shape, dtype: np.empty(shape, dtype),
        memcpy_htod_async=lambda to, array, stream: device.copy(to, array.ctypes.data, array.nbytes),
        memcpy_dtoh_async=lambda array, of, stream: device.copy(array.ctypes.data, of, array.nbytes),
    )
    package = ModuleType("pycuda")
    package.__dict__.update(VERSION_TEXT="2026.1", driver=driver)
    return {"pycuda": package, "pycuda.driver": driver}


def scripted_cuda_python(device: Device) -> dict[str, Any]:
    events: dict[int, float] = {}

    def made() -> tuple[int, int]:
        events[len(events) + 1] = 0.0
        return 0, len(events)

    def record(event: int, stream: int) -> tuple[int]:
        events[event] = device.tick()
        return (0,)

    def copied(to: int, of: int, size: int, kind: str, stream: int) -> tuple[int]:
        device.log.append(kind)
        device.copy(to, of, size)
        return (0,)

    def noted(word: str, *found: Any) -> Any:
        return lambda *_: (device.log.append(word), (0, *found))[1]

    runtime = ModuleType("cuda.bindings.runtime")
    runtime.__dict__.update(
        cudaSetDevice=noted("device"),
        cudaStreamCreate=noted("stream", 7),
        cudaStreamDestroy=noted("destroyed"),
        cudaStreamSynchronize=noted("synchronised"),
        cudaMalloc=lambda size: (0, device.allocate(size)),
        cudaMallocHost=lambda size: (0, device.allocate(size)),
        cudaFree=lambda address: (0 if device.memory.pop(address, None) is not None else 1,),
        cudaFreeHost=lambda address: (0 if device.memory.pop(address, None) is not None else 1,),
        cudaMemcpyAsync=copied,
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out"),
        cudaEventCreate=made,
        cudaEventRecord=record,
        cudaEventSynchronize=noted("waited"),
        cudaEventElapsedTime=lambda first, last: (0, events[last] - events[first]),
        cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread"),
        cudaStreamBeginCapture=noted("begin"),
        cudaStreamEndCapture=noted("end", "graph"),
        cudaGraphInstantiate=noted("instantiated", "ready"),
        cudaGraphLaunch=noted("launched"),
    )
    bindings = ModuleType("cuda.bindings")
    bindings.__dict__["runtime"] = runtime
    return {"cuda.bindings": bindings, "cuda.bindings.runtime": runtime}


SCRIPTED = {"pycuda": scripted_pycuda, "cuda-python": scripted_cuda_python}


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture(params=list(SCRIPTED))
def stream(request: pytest.FixtureRequest, device: Device, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    for name, module in SCRIPTED[request.param](device).items():
        monkeypatch.setitem(sys.modules, name, module)
    return open_cuda(request.param)


def test_bytes_go_there_and_back(stream: Cuda, device: Device) -> None:
    array, back = (stream.pinned((3, 5), np.dtype("float16")) for _ in range(2))
    array[...] = np.arange(15).reshape(3, 5)
    before = len(device.memory)
    buffer = stream.allocate(array.nbytes)
    stream.copy_in(buffer, array)
    stream.copy_out(back, buffer)
    stream.synchronise()
    np.testing.assert_array_equal(back, array)
    assert "synchronised" in device.log
    buffer.free()
    assert len(device.memory) == before


def test_events_wait_and_count_milliseconds(stream: Cuda, device: Device) -> None:
    first, last = stream.event(), stream.event()
    first.record()
    last.record()
    assert last.since_ms(first) == pytest.approx(0.5)
    assert "waited" in device.log
    assert (stream.stream, bool(stream.name)) == (7, True)


def test_pycuda_leaves_its_context_once_and_has_no_graphs(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in scripted_pycuda(device).items():
        monkeypatch.setitem(sys.modules, name, module)
    stream = open_cuda()  # the first choice
    assert stream.name == "pycuda 2026.1" and not stream.has_graphs
    with pytest.raises(DeviceUnavailable, match="no CUDA graphs") as found:
        stream.record(lambda: None)
    assert "--cuda torch" in found.value.remedy
    stream.close()
    stream.close()
    assert device.log == ["init", "push", "pop", "detach"]


def test_cuda_python_records_a_graph_and_gives_everything_back(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in scripted_cuda_python(device).items():
        monkeypatch.setitem(sys.modules, name, module)
    stream = open_cuda("cuda-python")
    stream.pinned((4,), np.dtype("float32"))
    graph = stream.record(lambda: device.log.append("work"))
    graph.launch()
    assert device.log[-5:] == ["begin", "work", "end", "instantiated", "launched"]
    stream.close()
    assert device.memory == {} and device.log[-1] == "destroyed"


def test_an_error_of_cuda_has_its_name(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = scripted_cuda_python(device)

    class Code(int):
        name = "cudaErrorMemoryAllocation"

    modules["cuda.bindings.runtime"].cudaMalloc = lambda size: (Code(2),)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DeviceUnavailable, match="cudaErrorMemoryAllocation"):
        open_cuda("cuda-python").allocate(8)


def test_without_any_package_all_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in PACKAGES.values():
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendMissing, match=r"pycuda \(.*torch \(.*cuda-python \(") as found:
        open_cuda()
    assert all(f"pip install {name}" in found.value.remedy for name in PACKAGES)
    with pytest.raises(BackendMissing, match="not installed: torch") as found:
        open_cuda("torch")
    assert found.value.remedy == "pip install torch"
    with pytest.raises(BackendMissing, match="no CUDA package 'abacus'"):
        open_cuda("abacus")
