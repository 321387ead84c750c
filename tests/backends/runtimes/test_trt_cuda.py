"""The three packages for CUDA through one seam."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from backends.scripted_cuda import Device, scripted_cuda_python, scripted_pycuda, scripted_torch
from backends.streams import in_another_thread, there_and_back
from practise_backends.errors import BackendMissing, DeviceUnavailable
from practise_backends.runtimes.tensorrt.cuda import PACKAGES, Cuda, open_cuda

SCRIPTED = {"pycuda": scripted_pycuda, "torch": scripted_torch, "cuda-python": scripted_cuda_python}


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture(params=list(SCRIPTED))
def stream(request: pytest.FixtureRequest, device: Device, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    for name, module in SCRIPTED[request.param](device).items():
        monkeypatch.setitem(sys.modules, name, module)
    return open_cuda(request.param)


def test_bytes_go_there_and_back_and_nothing_is_left(stream: Cuda, device: Device) -> None:
    there_and_back(stream)
    assert "synchronised" in device.log
    assert device.memory == {}


def test_other_threads_can_use_the_stream(stream: Cuda, device: Device) -> None:
    in_another_thread(stream)
    assert device.memory == {}
    assert set(device.threads.values()) <= {0}  # pycuda ends a process whose threads end with a context


def test_events_wait_and_count_milliseconds(stream: Cuda, device: Device) -> None:
    with stream.active():
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


def test_torch_records_a_graph_in_its_stream(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", scripted_torch(device)["torch"])
    stream = open_cuda("torch")
    with stream.active():
        stream.record(lambda: device.log.append("work")).launch()
    assert device.log == ["begin", "work", "end", "launched"]


def test_cuda_python_records_a_graph_and_gives_everything_back(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in scripted_cuda_python(device).items():
        monkeypatch.setitem(sys.modules, name, module)
    stream = open_cuda("cuda-python")
    graph = stream.record(lambda: device.log.append("work"))
    graph.launch()
    assert device.log[-6:] == ["begin", "work", "end", "instantiated", "destroyed the recording", "launched"]
    event = stream.event()
    assert len(device.memory) == 1
    del graph, event
    stream.close()
    assert device.memory == {} and device.log[-2:] == ["destroyed the graph", "destroyed"]


def test_cuda_python_ends_a_recording_whose_work_fails(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in scripted_cuda_python(device).items():
        monkeypatch.setitem(sys.modules, name, module)

    def fail() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        open_cuda("cuda-python").record(fail)
    assert device.log[-3:] == ["begin", "end", "destroyed the recording"]


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
    with stream.active():
        first, last = stream.event(), stream.event()
        first.record()
        stream.record(last.record).launch()
        assert last.since_ms(first) == pytest.approx(0.5)
        del first, last
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
