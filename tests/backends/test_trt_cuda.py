"""The packages for CUDA, each scripted by its own names: memory is numpy's, the clock counts calls."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from practise_backends.errors import BackendMissing, DeviceUnavailable
from practise_backends.tensorrt.cuda import PACKAGES, Cuda, open_cuda


class Device:
    """Memory by address, a log of what was asked, and the threads that have a context, as often as they pushed it."""

    def __init__(self) -> None:
        self.threads: Counter[int] = Counter()
        self.memory: dict[int, np.ndarray] = {}
        self.log: list[str] = []
        self.ticks = 0.0

    def allocate(self, size: int) -> int:
        kept = np.zeros(size, np.uint8)
        self.memory[kept.ctypes.data] = kept
        return int(kept.ctypes.data)

    def copy(self, to: int, of: int, size: int) -> None:
        ctypes.memmove(to, of, size)

    def push(self) -> None:
        self.log.append("push")
        self.threads[threading.get_ident()] += 1

    def pop(self) -> None:
        self.log.append("pop")
        self.threads[threading.get_ident()] -= 1

    def within(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same, for threads with a context alone."""

        def checked(*words: Any, **named: Any) -> Any:
            assert self.threads[threading.get_ident()] > 0, "invalid device context"
            return work(*words, **named)

        return checked

    def tick(self) -> float:
        self.ticks += 0.5
        return self.ticks


def scripted_pycuda(device: Device) -> dict[str, Any]:
    class Event:
        @device.within
        def record(self, stream: Any) -> None:
            self.at = device.tick()

        @device.within
        def synchronize(self) -> None:
            device.log.append("waited")

        def time_since(self, earlier: Any) -> float:
            return float(self.at - earlier.at)

    class Memory(int):
        @device.within
        def free(self) -> None:
            device.memory.pop(int(self))

    context = SimpleNamespace(push=device.push, pop=device.pop, detach=lambda: device.log.append("detach"))
    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        init=lambda: device.log.append("init"),
        Device=lambda ordinal: SimpleNamespace(retain_primary_context=lambda: context),
        Stream=device.within(
            lambda: SimpleNamespace(handle=7, synchronize=device.within(lambda: device.log.append("synchronised")))
        ),
        Event=device.within(Event),
        mem_alloc=device.within(lambda size: Memory(device.allocate(size))),
        pagelocked_empty=device.within(lambda shape, dtype: np.empty(shape, dtype)),
        memcpy_htod_async=device.within(lambda to, array, stream: device.copy(to, array.ctypes.data, array.nbytes)),
        memcpy_dtoh_async=device.within(lambda array, of, stream: device.copy(array.ctypes.data, of, array.nbytes)),
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
        cudaStreamEndCapture=noted("end", 8),
        cudaGraphInstantiate=noted("instantiated", 9),
        cudaGraphDestroy=noted("destroyed the recording"),
        cudaGraphLaunch=noted("launched"),
        cudaGraphExecDestroy=noted("destroyed the graph"),
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


def there_and_back(stream: Cuda) -> None:
    with stream.here():
        array, back = (stream.pinned((3, 5), np.dtype("float16")) for _ in range(2))
        array[...] = np.arange(15).reshape(3, 5)
        buffer = stream.allocate(array.nbytes)
        stream.copy_in(buffer, array)
        stream.copy_out(back, buffer)
        stream.synchronise()
        np.testing.assert_array_equal(back, array)
        buffer.free()


def test_bytes_go_there_and_back_and_nothing_is_left(stream: Cuda, device: Device) -> None:
    there_and_back(stream)
    assert "synchronised" in device.log
    assert device.memory == {}


def test_other_threads_can_use_the_stream(stream: Cuda, device: Device) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(there_and_back, stream).result()
    assert device.memory == {}
    assert set(device.threads.values()) <= {0}  # pycuda ends a process whose threads end with a context


def test_events_wait_and_count_milliseconds(stream: Cuda, device: Device) -> None:
    with stream.here():
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
    assert device.log == ["init", "push", "pop", "push", "pop", "detach"]
    assert set(device.threads.values()) == {0}


def test_cuda_python_records_a_graph_and_gives_everything_back(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in scripted_cuda_python(device).items():
        monkeypatch.setitem(sys.modules, name, module)
    stream = open_cuda("cuda-python")
    graph = stream.record(lambda: device.log.append("work"))
    graph.launch()
    assert device.log[-6:] == ["begin", "work", "end", "instantiated", "destroyed the recording", "launched"]
    del graph
    stream.close()
    assert device.log[-2:] == ["destroyed the graph", "destroyed"]


def test_real_cuda_python_takes_the_arguments(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    if int(real.cudaSetDevice(0)[0]) == 0:
        pytest.skip("there is a GPU: tests/gpu runs the package itself")
    scripted = scripted_cuda_python(device)["cuda.bindings.runtime"]
    called = []

    class Both(ModuleType):
        """Each function of the package, which refuses for want of a driver but not for its arguments; then the scripted one."""

        def __getattr__(self, name: str) -> Any:
            if not callable(ours := getattr(scripted, name)):
                return getattr(real, name)

            def call(*words: Any) -> Any:
                assert int(getattr(real, name)(*words)[0]) != 0
                called.append(name)
                return ours(*words)

            return call

    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Both("runtime"))
    stream = open_cuda("cuda-python")
    there_and_back(stream)
    with stream.here():
        first, last = stream.event(), stream.event()
        first.record()
        stream.record(lambda: last.record()).launch()
        assert last.since_ms(first) == pytest.approx(0.5)
    stream.close()
    assert {name for name, found in vars(scripted).items() if name.startswith("cuda") and callable(found)} == set(
        called
    )


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
