"""torch's side of the CUDA seam, where it is installed anyway; the device half does not need it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from practise_backends.errors import DeviceUnavailable
from practise_backends.runtimes.tensorrt.cuda import Array, Buffer


class TorchStream:
    """A stream of torch's first CUDA device.

    Raises: DeviceUnavailable where this torch cannot use CUDA.
    """

    has_graphs = True

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        if not self._torch.cuda.is_available():
            raise DeviceUnavailable(
                f"torch {self._torch.__version__} cannot use CUDA here",
                remedy="install a torch that is built for this driver's CUDA, or give --cuda pycuda or --cuda cuda-python",
            )
        self._stream = self._torch.cuda.Stream()
        self.name = f"torch {self._torch.__version__}"
        self.stream = int(self._stream.cuda_stream)

    def active(self) -> AbstractContextManager[object]:
        """The calling thread's work goes to this stream."""
        stream_context: AbstractContextManager[object] = self._torch.cuda.stream(self._stream)
        return stream_context

    def allocate(self, size: int) -> Buffer:
        """Memory of that many bytes on the device."""
        return _TorchBuffer(self._torch.empty(max(1, size), dtype=self._torch.uint8, device="cuda"))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in page-locked memory; it keeps that memory alive."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raw = self._torch.empty(max(1, size), dtype=self._torch.uint8, pin_memory=True).numpy()
        array: Array = raw[:size].view(dtype).reshape(shape)
        return array

    def copy_in(self, buffer: Buffer, array: Array) -> None:
        """From the host to the device."""
        _memory(buffer, array).copy_(self._bytes(array), non_blocking=True)

    def copy_out(self, array: Array, buffer: Buffer) -> None:
        """From the device to the host."""
        self._bytes(array).copy_(_memory(buffer, array), non_blocking=True)

    def event(self) -> _TorchEvent:
        """A point in the stream."""
        return _TorchEvent(self._torch.cuda.Event(enable_timing=True), self._stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> _TorchGraph:
        """What `work` gives to the stream, as a graph."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            work()
        return _TorchGraph(graph)

    def close(self) -> None:
        """Nothing to give back: torch keeps its context."""

    def _bytes(self, array: Array) -> Any:
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))


def _memory(buffer: Any, array: Array) -> Any:
    return buffer.memory[: array.nbytes]


class _TorchBuffer:
    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.address = int(memory.data_ptr())

    def free(self) -> None:
        self.memory = None


class _TorchEvent:
    def __init__(self, event: Any, stream: Any) -> None:
        self._event, self._stream = event, stream

    def record(self) -> None:
        self._event.record(self._stream)

    def since_ms(self, earlier: Any) -> float:
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event))


class _TorchGraph:
    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def launch(self) -> None:
        self._graph.replay()


def open_stream() -> TorchStream:
    """A stream of the first device."""
    return TorchStream()
