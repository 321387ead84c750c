"""A scripted TensorRT and a scripted CUDA: the run side of the backend is tested without a GPU.

Every name here exists in the real packages (`test_trt_api`), so that what is only scripted cannot creep in.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from practise_backends.runtimes.tensorrt.package import TensorRtPackage

Mode = Enum("Mode", ["INPUT", "OUTPUT"])
DataType = Enum("DataType", ["FLOAT", "HALF", "BF16"])


class Logger:
    """The base class of loggers."""

    def __init__(self) -> None:
        pass


@dataclass
class Script:
    """What the scripted device does. loads: whether engines deserialise; has_room: for a context of one; takes: the largest batch; starts: runs so far."""

    loads: bool = True
    has_room: bool = True
    takes: int = 8
    accepts: bool = True
    dtype: DataType = DataType.FLOAT
    starts: int = 0
    strategies: list[str] = field(default_factory=list)


class Context:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._shape: tuple[int, ...] = (-1, 3, 8, 8)
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return len(shape) == 4 and shape[0] <= self._script.takes

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape if name == "x" else (self._shape[0], 10)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        self._script.starts += 1
        return self._script.accepts


class Engine:
    num_io_tensors = 2

    def __init__(self, script: Script) -> None:
        self._script = script

    def get_tensor_name(self, at: int) -> str:
        return "xy"[at]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, 8, 8) if name == "x" else (-1, 10)

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._script.dtype

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def create_execution_context(self, config: Any = None) -> Context | None:
        if config is not None:
            self._script.strategies.append(config.cuda_graph_strategy)
        return Context(self._script) if self._script.has_room else None

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(cuda_graph_strategy=None)


def scripted_provider(script: Script, *, package: str, by_itself: bool) -> TensorRtPackage:
    """A package whose runtime follows the script. by_itself: it captures graphs itself, as RTX does."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            if script.loads:
                return Engine(script)
            self._logger.log("Severity.ERROR", "IRuntime::deserializeCudaEngine: Version tag does not match")
            return None

    module = SimpleNamespace(
        __version__="10.3.0", ILogger=Logger, Runtime=Runtime, TensorIOMode=Mode, IBuilderConfig=SimpleNamespace()
    )
    if by_itself:
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="none")
    return TensorRtPackage(backend="trt", name=package, module=module)


@dataclass
class Buffer:
    cuda: ScriptedCuda
    address: int
    freed: bool = False

    def free(self) -> None:
        self.cuda.must_be_here()
        assert not self.freed, "freed twice"
        self.freed = True


@dataclass
class Event:
    cuda: ScriptedCuda
    at_ms: float = 0.0

    def record(self) -> None:
        self.cuda.must_be_here()
        self.at_ms = self.cuda.now_ms()

    def since_ms(self, earlier: Any) -> float:
        return self.at_ms - float(earlier.at_ms)


class ScriptedCuda:
    """A stream in which a run takes `run_ms` and a copy `copy_ms`; the output is the sum of what was copied in."""

    name, stream = "scripted 1.0", 7

    def __init__(self, script: Script, *, run_ms: float = 1.0, copy_ms: float = 0.25, has_graphs: bool = True) -> None:
        self._script, self._run_ms, self._copy_ms = script, run_ms, copy_ms
        self.has_graphs = has_graphs
        self._within: Counter[int] = Counter()
        self.copies, self.recorded, self.launched = 0, 0, 0
        self.buffers: list[Buffer] = []
        self.memory: dict[int, Any] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        self._within[threading.get_ident()] += 1
        try:
            yield
        finally:
            self._within[threading.get_ident()] -= 1

    def must_be_here(self) -> None:
        assert self._within[threading.get_ident()] > 0, "invalid device context"

    def now_ms(self) -> float:
        return (self._script.starts + self.launched) * self._run_ms + self.copies * self._copy_ms

    def allocate(self, size: int) -> Buffer:
        self.must_be_here()
        self.buffers.append(Buffer(cuda=self, address=1000 * (len(self.buffers) + 1)))
        return self.buffers[-1]

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.must_be_here()
        return np.zeros(shape, dtype)

    def copy_in(self, buffer: Buffer, array: Any) -> None:
        self.must_be_here()
        self.copies += 1
        self.memory[buffer.address] = array.copy()

    def copy_out(self, array: Any, buffer: Buffer) -> None:
        self.must_be_here()
        self.copies += 1
        array[...] = sum(float(each.sum()) for each in self.memory.values())

    def event(self) -> Event:
        self.must_be_here()
        return Event(self)

    def synchronise(self) -> None:
        self.must_be_here()

    def record(self, work: Callable[[], None]) -> Any:
        self.must_be_here()
        self.recorded += 1
        before = self._script.starts
        work()
        self._script.starts = before  # captured, not run

        def launch() -> None:
            self.must_be_here()
            self.launched += 1

        return SimpleNamespace(launch=launch)

    def close(self) -> None:
        pass
