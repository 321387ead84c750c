"""The packages for CUDA, each scripted by its own names: memory is numpy's or torch's, the clock counts calls."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch


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


class RuntimeEvents:
    """Events of cuda-python: numbers, which lie in the device's memory below 0."""

    def __init__(self, device: Device) -> None:
        self._device, self._at = device, dict[int, float]()

    def made(self) -> tuple[int, int]:
        fresh = max(self._at, default=0) + 1
        self._at[fresh] = 0.0
        self._device.memory[-fresh] = np.zeros(0)
        return 0, fresh

    def destroyed(self, event: int) -> tuple[int]:
        del self._at[event], self._device.memory[-event]
        return (0,)

    def record(self, event: int, stream: int) -> tuple[int]:
        self._at[event] = self._device.tick()
        return (0,)

    def between(self, first: int, last: int) -> tuple[int, float]:
        return 0, self._at[last] - self._at[first]


def scripted_cuda_python(device: Device) -> dict[str, Any]:
    events = RuntimeEvents(device)

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
        cudaEventCreate=events.made,
        cudaEventDestroy=events.destroyed,
        cudaEventRecord=events.record,
        cudaEventSynchronize=noted("waited"),
        cudaEventElapsedTime=events.between,
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


class TorchEvent:
    """An event of torch, on a device."""

    def __init__(self, device: Device) -> None:
        self._device, self.at = device, 0.0

    def record(self, stream: Any) -> None:
        self.at = self._device.tick()

    def synchronize(self) -> None:
        self._device.log.append("waited")

    def elapsed_time(self, later: TorchEvent) -> float:
        return later.at - self.at


class TorchStreams:
    """What of torch depends on the stream that was entered."""

    def __init__(self, device: Device) -> None:
        self._device, self._entered = device, list[Any]()

    def empty(self, size: int, dtype: Any, device: str = "cpu", pin_memory: bool = False) -> torch.Tensor:
        found = torch.zeros(size, dtype=dtype)
        if device == "cuda":
            assert self._entered, "memory of no stream"
            address = found.data_ptr()
            self._device.memory[address] = np.zeros(0)
            weakref.finalize(found, self._device.memory.pop, address)
        return found

    @contextmanager
    def enter(self, stream: Any) -> Iterator[None]:
        self._entered.append(stream)
        try:
            yield
        finally:
            self._entered.pop()

    @contextmanager
    def graph(self, recorded: Any, stream: Any) -> Iterator[None]:
        self._device.log.append("begin")
        yield
        self._device.log.append("end")

    def replay(self) -> None:
        assert self._entered, "a graph of no stream"
        self._device.log.append("launched")


def scripted_torch(device: Device) -> dict[str, Any]:
    """torch's own tensors on the CPU; what is asked of `torch.cuda` exists there."""
    streams = TorchStreams(device)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        Stream=lambda: SimpleNamespace(cuda_stream=7, synchronize=lambda: device.log.append("synchronised")),
        Event=lambda enable_timing: TorchEvent(device),
        stream=streams.enter,
        graph=streams.graph,
        CUDAGraph=lambda: SimpleNamespace(replay=streams.replay),
    )
    assert all(hasattr(torch.cuda, name) for name in vars(cuda))
    package = ModuleType("torch")
    package.__dict__.update(
        __version__="2.9", cuda=cuda, empty=streams.empty, uint8=torch.uint8, from_numpy=torch.from_numpy
    )
    return {"torch": package}
