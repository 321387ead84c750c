"""Device memory, streams, events and graphs: the little of CUDA that running an engine takes.

Three packages offer it: pycuda (no graphs), torch, and cuda-python. All use the device's primary context, so that
they live in one process with each other and with TensorRT.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from practise_backends.errors import BackendMissing

Array = npt.NDArray[np.generic]

PACKAGES = {"pycuda": "pycuda.driver", "torch": "torch", "cuda-python": "cuda.bindings.runtime"}
_INSTALL = {
    "pycuda": "pip install pycuda (it is compiled: nvcc in PATH, CUDA_ENABLE_CURAND=False where curand's headers are missing)",
    "torch": "pip install torch",
    "cuda-python": "pip install cuda-python",
}
_MODULES = {"pycuda": "cuda_pycuda", "torch": "cuda_torch", "cuda-python": "cuda_python"}


class Buffer(Protocol):
    """Memory on the device. address: of its first byte."""

    address: int

    def free(self) -> None:
        """Give it back."""
        ...


class Event(Protocol):
    """A point in a stream."""

    def record(self) -> None:
        """Put it behind what the stream was given so far."""
        ...

    def since_ms(self, earlier: Event) -> float:
        """Milliseconds between two points, once the device has passed this one; waits for it."""
        ...


class Graph(Protocol):
    """Work that was recorded, to be started at once."""

    def launch(self) -> None:
        """Start it in the stream that it was recorded on."""
        ...


class Cuda(Protocol):
    """One stream of the device, and what runs in it. name: the package and its version; stream: its handle.

    has_graphs: whether `record` works. All methods but `close`, and all that they give, are used within `active`.
    """

    name: str
    stream: int
    has_graphs: bool

    def active(self) -> AbstractContextManager[object]:
        """The calling thread works on the device and in this stream; may be nested, and entered by several threads."""
        ...

    def allocate(self, size: int) -> Buffer:
        """Memory of that many bytes on the device."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in page-locked memory, which copies to the device fastest."""
        ...

    def copy_in(self, buffer: Buffer, array: Array) -> None:
        """From the host to the device, in the stream."""
        ...

    def copy_out(self, array: Array, buffer: Buffer) -> None:
        """From the device to the host, in the stream."""
        ...

    def event(self) -> Event:
        """A point in the stream."""
        ...

    def synchronise(self) -> None:
        """Wait for all that the stream was given."""
        ...

    def record(self, work: Callable[[], None]) -> Graph:
        """What `work` gives to the stream, as a graph instead of doing it."""
        ...

    def close(self) -> None:
        """Leave the device."""
        ...


def open_cuda(package: str | None = None) -> Cuda:
    """The requested package, or the first of pycuda, torch and cuda-python that is installed.

    The driver must have been found (`driver.first_gpu`).
    Raises: BackendMissing.
    """
    reasons = {}
    for name in [package] if package is not None else PACKAGES:
        if name not in PACKAGES:
            raise BackendMissing(
                f"there is no CUDA package '{name}'", remedy=f"--cuda takes {', '.join(PACKAGES)}"
            )
        try:
            importlib.import_module(PACKAGES[name])
        except (ImportError, OSError) as error:
            reasons[name] = f"{name} ({error})"
            continue
        return _opened(name)
    suggested = package or "pycuda"
    raise BackendMissing(
        f"running an engine takes a package for CUDA; not installed: {', '.join(reasons.values())}",
        remedy=_INSTALL[suggested]
        + ("" if package else f"; or {_INSTALL['torch']}; or {_INSTALL['cuda-python']}"),
    )


def _opened(name: str) -> Cuda:
    module = importlib.import_module(f"practise_backends.runtimes.tensorrt.{_MODULES[name]}")
    opened: Cuda = module.open_stream()
    return opened
