"""cuda-python's side of the CUDA seam: the runtime's C functions under their own names."""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from practise_backends.errors import DeviceUnavailable
from practise_backends.runtimes.tensorrt.cuda import Array, Buffer


class CudaPythonStream:
    """A stream of the first device, through the runtime, which works in its primary context."""

    has_graphs = True

    def __init__(self) -> None:
        self._runtime: Any = importlib.import_module("cuda.bindings.runtime")
        _done(self._runtime.cudaSetDevice(0))
        self._stream = _done(self._runtime.cudaStreamCreate())
        self.name = f"cuda-python {_version()}"
        self.stream = int(self._stream)

    def active(self) -> AbstractContextManager[object]:
        """Every thread is on the first device until it says otherwise."""
        return nullcontext()

    def allocate(self, size: int) -> Buffer:
        """Memory of that many bytes on the device."""
        return _CudaPythonBuffer(self._runtime, int(_done(self._runtime.cudaMalloc(max(1, size)))))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in page-locked memory, which is given back with the last view of it."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        address = int(_done(self._runtime.cudaMallocHost(max(1, size))))
        memory = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(memory, self._runtime.cudaFreeHost, address).atexit = False
        array: Array = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        return array

    def copy_in(self, buffer: Buffer, array: Array) -> None:
        """From the host to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.address, array.ctypes.data, array.nbytes, kind)

    def copy_out(self, array: Array, buffer: Buffer) -> None:
        """From the device to the host."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, buffer.address, array.nbytes, kind)

    def event(self) -> _CudaPythonEvent:
        """A point in the stream."""
        return _CudaPythonEvent(self._runtime, self._stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        _done(self._runtime.cudaStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> _CudaPythonGraph:
        """What `work` gives to the stream, as a graph."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _done(self._runtime.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except BaseException:
            _, graph = self._runtime.cudaStreamEndCapture(self._stream)
            self._runtime.cudaGraphDestroy(graph)
            raise
        return _CudaPythonGraph(
            self._runtime, _done(self._runtime.cudaStreamEndCapture(self._stream)), self._stream
        )

    def close(self) -> None:
        """Give back the stream."""
        _done(self._runtime.cudaStreamDestroy(self._stream))

    def _copy(self, to: int, of: int, size: int, kind: Any) -> None:
        _done(self._runtime.cudaMemcpyAsync(to, of, size, kind, self._stream))


def _done(answer: tuple[Any, ...]) -> Any:
    """What a function gave besides its error.

    Raises: DeviceUnavailable where it failed.
    """
    error, *values = answer
    if int(error) != 0:
        raise DeviceUnavailable(
            f"CUDA refused: {getattr(error, 'name', error)}",
            remedy="see nvidia-smi for the GPU's state and its memory",
        )
    return values[0] if values else None


def _version() -> str:
    for package in ("cuda-python", "cuda-bindings"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""


class _CudaPythonBuffer:
    def __init__(self, runtime: Any, address: int) -> None:
        self._runtime = runtime
        self.address = address

    def free(self) -> None:
        _done(self._runtime.cudaFree(self.address))


class _CudaPythonEvent:
    def __init__(self, runtime: Any, stream: Any) -> None:
        self._runtime, self._stream = runtime, stream
        self._event = _done(runtime.cudaEventCreate())
        weakref.finalize(self, runtime.cudaEventDestroy, self._event).atexit = False

    def record(self) -> None:
        _done(self._runtime.cudaEventRecord(self._event, self._stream))

    def since_ms(self, earlier: Any) -> float:
        _done(self._runtime.cudaEventSynchronize(self._event))
        return float(_done(self._runtime.cudaEventElapsedTime(earlier._event, self._event)))


class _CudaPythonGraph:
    def __init__(self, runtime: Any, graph: Any, stream: Any) -> None:
        self._runtime, self._stream = runtime, stream
        try:
            self._ready = _done(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            runtime.cudaGraphDestroy(graph)
        weakref.finalize(self, runtime.cudaGraphExecDestroy, self._ready).atexit = False

    def launch(self) -> None:
        _done(self._runtime.cudaGraphLaunch(self._ready, self._stream))


def open_stream() -> CudaPythonStream:
    """A stream of the first device."""
    return CudaPythonStream()
