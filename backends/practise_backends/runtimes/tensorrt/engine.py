"""An engine that is loaded on a GPU, and its clocks.

gpu_compute: CUDA events around the enqueue, the inputs lying on the device; an engine under 100 us is enqueued several
times between two events. end_to_end: the host's clock around copying in, running, copying out and waiting.
Source of the definitions: trtexec's (GPU compute time, enqueue time, H2D, D2H, latency).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_backends.choices import ClockKind
from practise_backends.errors import DeviceUnavailable, EngineClosed, MeasureError
from practise_backends.runtimes.onnx_file import content_of
from practise_backends.runtimes.tensorrt.bindings import Bindings, tensor_specs
from practise_backends.runtimes.tensorrt.cuda import Cuda, Graph
from practise_backends.runtimes.tensorrt.fused import FusedLayer, layers_of_inspector
from practise_backends.runtimes.tensorrt.log_capture import capture_log, logger_of
from practise_backends.runtimes.tensorrt.package import TensorRtPackage
from practise_backends.terms import Artifact, Conditions, Tensors

_PAIR_MS = 0.1
_MOST_IN_A_PAIR = 100
_SETTLING_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where the milliseconds of one run go.

    enqueue_ms: of the host, until the device has been told. The others: of the device, between events, but for
    end_to_end_ms, which is all of it by the host's clock.
    """

    host_to_device_ms: float
    compute_ms: float
    device_to_host_ms: float
    enqueue_ms: float
    end_to_end_ms: float


class TensorRtEngine:
    """One session of a serialised engine.

    Raises: DeviceUnavailable where it does not load on this GPU.
    """

    computes_in_caller: bool | None = None

    def __init__(
        self, package: TensorRtPackage, artifact: Artifact, conditions: Conditions, cuda: Cuda
    ) -> None:
        self._package, self._conditions, self._cuda = package, conditions, cuda
        with cuda.active():
            self._runtime = package.module.Runtime(logger_of(package))
            self._engine: Any = _deserialised(self._runtime, package, artifact)
            self.inputs, self.outputs = tensor_specs(self._engine, package)
            self._context: Any = _context(self._engine, package, conditions)
            self._events = [cuda.event() for _ in range(4)]
        self._bindings: Any = Bindings(self._context, cuda, self.inputs, self.outputs)
        self._graph: Graph | None = None
        self._settled = False  # whether the kernels, and the graph, of these shapes are there
        self._fed: Tensors | None = None
        self._in_a_pair = 1

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        """Compute all outputs, by name.

        Raises: MeasureError where the tensors do not fit, or the engine is closed.
        """
        with self._cuda.active():
            self._feed(tensors)
            self._start()
            self._bindings.copy_out()
            self._cuda.synchronise()
        return self._bindings.results()

    def time_once(self, tensors: Tensors) -> float:
        """Milliseconds of one run, by the clock of the conditions."""
        with self._cuda.active():
            if tensors is not self._fed:
                self._feed(tensors)
                self._fix_count()
                self._fed = tensors
            if self._conditions.clock == ClockKind.END_TO_END:
                return self._end_to_end()
            return self._compute(self._in_a_pair)

    @property
    def runs_a_timing(self) -> int:
        """Of how many runs `time_once` gives the mean."""
        return 1 if self._conditions.clock == ClockKind.END_TO_END else self._in_a_pair

    def parts_once(self, tensors: Tensors) -> Parts:
        """The milliseconds of one run, taken apart."""
        if tensors is not self._fed:
            self.time_once(tensors)
        with self._cuda.active():
            return self._taken_apart()

    def layers(self) -> tuple[FusedLayer, ...]:
        """The layers as the engine itself says; empty where it was built without details."""
        with self._cuda.active():
            inspector = self._loaded().create_engine_inspector()
            text = inspector.get_engine_information(self._package.module.LayerInformationFormat.JSON)
        return layers_of_inspector(text)

    def close(self) -> None:
        """Free the engine and its memory on the device."""
        if self._engine is None:
            return
        with self._cuda.active():
            self._bindings.free()
            self._fed, self._graph, self._events = None, None, []
            self._bindings = self._context = self._engine = self._runtime = None

    def _feed(self, tensors: Tensors) -> None:
        """Bring the tensors to the device; a graph is recorded for the memory that they lie in."""
        self._loaded()
        self._fed = None
        self._settled = not self._bindings.take(tensors) and self._settled
        self._bindings.copy_in()
        if not self._settled:
            self._graph = None
            self._direct()  # settles the kernels of these shapes, and must come before a graph
            self._cuda.synchronise()
            if self._conditions.cuda_graph and not self._package.graphs_by_itself:
                self._graph = self._cuda.record(self._direct)
            self._settled = True

    def _fix_count(self) -> None:
        """How often a short engine is enqueued between two events, fixed before it is timed."""
        samples_ms = [self._compute(1) for _ in range(_SETTLING_RUNS)]
        self._in_a_pair = min(_MOST_IN_A_PAIR, max(1, math.ceil(_PAIR_MS / max(min(samples_ms), 1e-6))))

    def _compute(self, count: int) -> float:
        self._events[0].record()
        for _ in range(count):
            self._start()
        self._events[1].record()
        return self._events[1].since_ms(self._events[0]) / count

    def _end_to_end(self) -> float:
        began = time.perf_counter_ns()
        self._bindings.copy_in()
        self._start()
        self._bindings.copy_out()
        self._cuda.synchronise()
        return (time.perf_counter_ns() - began) / 1e6

    def _taken_apart(self) -> Parts:
        """Events between the copies and the run, and the host's clock around them."""
        began = time.perf_counter_ns()
        self._events[0].record()
        self._bindings.copy_in()
        self._events[1].record()
        copied_in = time.perf_counter_ns()
        self._start()
        enqueued = time.perf_counter_ns()
        self._events[2].record()
        self._bindings.copy_out()
        self._events[3].record()
        self._cuda.synchronise()
        ended = time.perf_counter_ns()
        copied, computed, returned = (self._events[at + 1].since_ms(self._events[at]) for at in range(3))
        return Parts(
            host_to_device_ms=copied,
            compute_ms=computed,
            device_to_host_ms=returned,
            enqueue_ms=(enqueued - copied_in) / 1e6,
            end_to_end_ms=(ended - began) / 1e6,
        )

    def _start(self) -> None:
        """Give one run to the stream, as a graph where one was recorded."""
        if self._graph is None:
            self._direct()
        else:
            self._graph.launch()

    def _direct(self) -> None:
        """Give one run to the stream, kernel by kernel."""
        if not self._context.execute_async_v3(self._cuda.stream):
            raise MeasureError(
                f"the engine refused to run on {[str(spec) for spec in self.inputs]}",
                remedy="feed every input, with its type and shape",
            )

    def _loaded(self) -> Any:
        if self._engine is None:
            raise EngineClosed(spec.name for spec in self.inputs)
        return self._engine


def _deserialised(runtime: Any, package: TensorRtPackage, artifact: Artifact) -> Any:
    """The engine; what TensorRT says where it does not load."""
    with capture_log(package) as log:
        engine = runtime.deserialize_cuda_engine(content_of(artifact.content))
    if engine is None:
        raise DeviceUnavailable(
            f"the engine does not load on this device with {package.name} {package.version}: {_joined(log.errors)}",
            remedy="an engine runs on the kind of GPU and with the TensorRT that it was built for: build it again from its ONNX file here",
        )
    return engine


def _joined(errors: Sequence[str]) -> str:
    """What TensorRT said, in one line."""
    return " ".join(" ".join(errors).split()) or "it does not say why"


def _context(engine: Any, package: TensorRtPackage, conditions: Conditions) -> Any:
    """An execution context; where the runtime captures graphs itself, its configuration says whether to."""
    with capture_log(package) as log:
        if package.graphs_by_itself:
            strategy = package.module.CudaGraphStrategy
            config = engine.create_runtime_config()
            config.cuda_graph_strategy = (
                strategy.WHOLE_GRAPH_CAPTURE if conditions.cuda_graph else strategy.DISABLED
            )
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
    if context is None:
        raise DeviceUnavailable(
            f"the engine loads, but the device cannot run it: {_joined(log.errors)}",
            remedy="free memory of the GPU, or open fewer sessions (--sessions)",
        )
    return context
