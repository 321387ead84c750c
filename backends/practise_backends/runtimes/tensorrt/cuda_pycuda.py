"""pycuda's side of the CUDA seam. It has no graphs."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from practise_backends.errors import DeviceUnavailable
from practise_backends.runtimes.tensorrt.cuda import Array, Buffer, Graph


class PycudaStream:
    """A stream of the first device's primary context, which torch and TensorRT use too; never `pycuda.autoinit`.

    A thread that ends with a context on pycuda's stack ends the process, and memory that is freed by a thread without
    one is never given back: so the context is on the stack within `active` alone.
    """

    has_graphs = False

    def __init__(self) -> None:
        import pycuda
        import pycuda.driver as driver

        driver.init()
        self._driver = driver
        self._context: Any = driver.Device(0).retain_primary_context()
        with self.active():
            self._stream: Any = driver.Stream()
        self.name = f"pycuda {pycuda.VERSION_TEXT}"
        self.stream = int(self._stream.handle)
        atexit.register(self.close)

    @contextmanager
    def active(self) -> Iterator[None]:
        """The calling thread works in the primary context."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int) -> Buffer:
        """Memory of that many bytes on the device."""
        return _PycudaBuffer(self._driver.mem_alloc(max(1, size)))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in page-locked memory."""
        array: Array = self._driver.pagelocked_empty(shape, dtype)
        return array

    def copy_in(self, buffer: Buffer, array: Array) -> None:
        """From the host to the device."""
        self._driver.memcpy_htod_async(buffer.address, array, self._stream)

    def copy_out(self, array: Array, buffer: Buffer) -> None:
        """From the device to the host."""
        self._driver.memcpy_dtoh_async(array, buffer.address, self._stream)

    def event(self) -> _PycudaEvent:
        """A point in the stream."""
        return _PycudaEvent(self._driver.Event(), self._stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Graph:
        """Not supported."""
        raise DeviceUnavailable(
            "--cuda pycuda has no CUDA graphs",
            remedy="give --cuda torch or --cuda cuda-python, or leave --cuda-graph out",
        )

    def close(self) -> None:
        """Leave the primary context; once."""
        if self._context is not None:
            with self.active():
                self._stream = None
            self._context.detach()
            self._context = None


class _PycudaBuffer:
    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.address = int(memory)

    def free(self) -> None:
        self._memory.free()


class _PycudaEvent:
    def __init__(self, event: Any, stream: Any) -> None:
        self._event, self._stream = event, stream

    def record(self) -> None:
        self._event.record(self._stream)

    def since_ms(self, earlier: Any) -> float:
        self._event.synchronize()
        return float(self._event.time_since(earlier._event))


def open_stream() -> PycudaStream:
    """A stream of the first device."""
    return PycudaStream()
