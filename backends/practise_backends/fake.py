"""A scripted clock and a scripted backend: measuring is tested without real time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from practise_backends.choices import Precision
from practise_backends.errors import CompileError, EngineClosed, MeasureError
from practise_backends.interfaces import Capabilities, Progress
from practise_backends.rounds.measure import Instruments
from practise_backends.runtimes.onnx_file import content_of, read_network
from practise_backends.runtimes.precision import share_of_fp32
from practise_backends.terms import Artifact, Conditions, Device, Environment, Tensors, TensorSpec

Script = Callable[[int, float], float]
"""(how many runs this engine has timed, seconds on the clock) -> milliseconds of this run."""


class ScriptedClock:
    """A clock that moves only by `advance`."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        """Scripted seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds


def steady(ms: float) -> Script:
    """Always the same."""
    return lambda call, now_s: ms


def drifting(script: Script, factor: Callable[[float], float]) -> Script:
    """Slowed by a factor of the time, as a throttling device slows every engine alike."""
    return lambda call, now_s: script(call, now_s) * factor(now_s)


def noisy(script: Script, percent: float, seed: int) -> Script:
    """With log-normal noise of that size in percent."""
    rng = np.random.default_rng(seed)
    return lambda call, now_s: script(call, now_s) * float(np.exp(rng.normal(0, percent / 100)))


def spiking(script: Script, calls: Collection[int], factor: float) -> Script:
    """With the named runs longer by a factor."""
    return lambda call, now_s: script(call, now_s) * (factor if call in calls else 1.0)


class BusyCore:
    """A processor that other processes share: after each slice of it an engine waits for its next turn.

    Other processes' turns are of random length, so that a wait is. had_ms: for how long engines have had the processor.
    """

    def __init__(self, slice_ms: float, wait_ms: float, seed: int = 0) -> None:
        self.had_ms = 0.0
        self._slice_ms, self._wait_ms = slice_ms, wait_ms
        self._rng = np.random.default_rng(seed)

    def shared(self, script: Script) -> Script:
        """What the wall clock says of runs that by themselves would take what the script says."""

        def shared_script(call: int, now_s: float) -> float:
            took_ms = script(call, now_s)
            turns = (self.had_ms + took_ms) // self._slice_ms - self.had_ms // self._slice_ms
            self.had_ms += took_ms
            return took_ms + self._wait_ms * float(self._rng.uniform(0.5, 1.5, int(turns)).sum())

        return shared_script


class ScriptedMonitor:
    """A monitor that reports what a script says of the seconds on the clock; by default nothing ever happens."""

    def __init__(self, clock: ScriptedClock, trouble: Callable[[float], str] = lambda now_s: "") -> None:
        self._clock = clock
        self._trouble = trouble
        self._began_s = clock.now_s()

    def trouble(self) -> str:
        """What the script says of now."""
        return self._trouble(self._clock.now_s())

    def environment(self) -> Environment:
        """The scripted seconds alone."""
        return Environment(seconds=self._clock.now_s() - self._began_s)


def scripted(
    clock: ScriptedClock, trouble: Callable[[float], str] = lambda now_s: "", core: BusyCore | None = None
) -> Instruments:
    """The instruments of a measurement in scripted time. core: where engines compute in the calling thread, whose processor it is."""
    monitor = ScriptedMonitor(clock, trouble)
    return Instruments(clock=clock, monitor=monitor, cpu_ms=lambda: math.nan if core is None else core.had_ms)


class FakeEngine:
    """An engine whose times come from a script and pass on the scripted clock; its outputs are zeros."""

    def __init__(
        self,
        script: Script,
        clock: ScriptedClock,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
        *,
        computes_in_caller: bool | None = None,
    ) -> None:
        self.computes_in_caller = computes_in_caller
        self.runs_a_timing = 1
        self.inputs = inputs
        self.outputs = outputs
        self.timed = 0
        self._script = script
        self._clock = clock
        self._closed = False

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        """Zeros of the outputs' shapes; a dynamic dimension is the batch of the first input."""
        self._check(tensors)
        batch = next((array.shape[0] for array in tensors.values() if array.ndim), 1)
        shapes = {spec.name: tuple(batch if dim < 0 else dim for dim in spec.shape) for spec in self.outputs}
        return {spec.name: np.zeros(shapes[spec.name], dtype=spec.dtype) for spec in self.outputs}

    def time_once(self, tensors: Tensors) -> float:
        """The milliseconds that the script says, which pass on the clock."""
        self._check(tensors)
        took_ms = self._script(self.timed, self._clock.now_s())
        self.timed += 1
        self._clock.advance(took_ms / 1e3)
        return took_ms

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True

    def _check(self, tensors: Tensors) -> None:
        """Refuse what a real engine refuses."""
        if self._closed:
            raise EngineClosed(spec.name for spec in self.inputs)
        if {spec.name for spec in self.inputs} != set(tensors):
            raise MeasureError(f"fed {sorted(tensors)}", remedy=f"feed {[spec.name for spec in self.inputs]}")


class FakeBackend:
    """Takes real ONNX networks and times them by a script chosen by artefact."""

    name = "fake"
    capabilities = Capabilities()

    def __init__(
        self, clock: ScriptedClock | None = None, script: Callable[[Artifact], Script] | None = None
    ) -> None:
        self.clock = clock or ScriptedClock()
        self._script = script or (lambda artifact: steady(1.0))

    def device(self) -> Device:
        """Always the same device."""
        fingerprint = hashlib.sha256(b"scripted").hexdigest()
        return Device(name="scripted device", fingerprint=fingerprint, versions={}, facts={})

    def compile(
        self,
        model: bytes | Path,
        conditions: Conditions,
        *,
        build: int = 0,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Read the network's inputs and outputs from its file."""
        if conditions.precision != Precision.FP32:
            raise CompileError(f"precision {conditions.precision!r} is not scripted", remedy="use 'fp32'")
        content = content_of(model)
        network = read_network(content)
        return Artifact(
            content=model,
            sha256=hashlib.sha256(content).hexdigest(),
            format="onnx",
            precision=conditions.precision,
            precision_share=share_of_fp32(network).share,
            inputs=network.inputs,
            outputs=network.outputs,
            device_fingerprint=self.device().fingerprint,
        )

    def save(self, artifact: Artifact, path: Path) -> tuple[Path, ...]:
        """Nothing: the network's own file is what is run."""
        return ()

    def load(self, file: Path, conditions: Conditions) -> Artifact:
        """The same as to compile it."""
        return self.compile(file, conditions)

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        """An engine that keeps to the script."""
        return FakeEngine(self._script(artifact), self.clock, artifact.inputs, artifact.outputs)
