"""What the outside world has to offer: backends and their engines, clocks, monitors and screens; tests script each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from practise_backends.choices import ClockKind, Precision
from practise_backends.flags import Flag
from practise_backends.terms import (
    Artifact,
    Conditions,
    Device,
    Environment,
    StoppingRule,
    Tensors,
    TensorSpec,
)


class Engine(Protocol):
    """A loaded network on a device. The engine owns its clock (a GPU's events, a CPU's counter).

    computes_in_caller: whether everything is computed in the calling thread, so that its CPU time is read too; None if unknown.
    runs_a_timing: how many runs `time_once` is the mean of.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def computes_in_caller(self) -> bool | None: ...

    @property
    def runs_a_timing(self) -> int: ...

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        """Compute all outputs, by name."""
        ...

    def time_once(self, tensors: Tensors) -> float:
        """Milliseconds of one run."""
        ...

    def close(self) -> None:
        """Free the device's memory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, known from its class: neither its package nor its device need be here.

    precisions, clocks: the first is the default.
    builds_differ: two builds of one network differ in speed, so each session gets a build of its own.
    engine_suffix: of the files that it builds; empty if it runs the ONNX file itself.
    unsigned_int8: it is fast with unsigned activations and integer biases, rather than with symmetric ones and float biases.
    on_gpu: a GPU is monitored during measurements.
    cold_start: the cost of a network in a fresh process can be measured.
    cross_build_option: the one of its options that names other devices to build for; empty if it builds for none.
    options: its own ones, each a keyword of its class; both programs have them as flags.
    device_setup: what a kit says about installing on a device, in Markdown, with `{wheel}` for the file of this package.
    """

    precisions: tuple[Precision, ...] = (Precision.FP32,)
    clocks: tuple[ClockKind, ...] = (ClockKind.END_TO_END,)
    builds_differ: bool = False
    engine_suffix: str = ""
    unsigned_int8: bool = False
    on_gpu: bool = False
    cold_start: bool = False
    cross_build_option: str = ""
    options: tuple[Flag, ...] = ()
    device_setup: str = ""


class Backend(Protocol):
    """A way to run ONNX networks on a device; found by the entry points of group `practise_backends`."""

    name: str
    capabilities: Capabilities

    def device(self) -> Device:
        """The device as it is now."""
        ...

    def compile(
        self,
        model: bytes | Path,
        conditions: Conditions,
        *,
        build: int = 0,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Turn an ONNX network into what this device runs.

        build: which of several independent builds; those of one number are alike as far as they can be. shapes: of inputs whose
        dimensions are dynamic besides the batch.
        """
        ...

    def save(self, artifact: Any, path: Path) -> tuple[Path, ...]:
        """Write what was compiled as a file with the backend's own suffix, a manifest beside it as NAME.json where there is one.

        Gives all files that were written, the engine first.

        Raises: OSError.
        """
        ...

    def load(self, file: Path, conditions: Conditions) -> Artifact:
        """Take up such a file.

        Raises: CompileError where it is none, or not of this device.
        """
        ...

    def open(self, artifact: Any, conditions: Conditions) -> Engine:
        """Load what was compiled on the device."""
        ...


class Monitor(Protocol):
    """What else happens on the machine during a measurement; a protocol, so that a test can script it."""

    def trouble(self) -> str:
        """Why the rounds since the last call are not to be trusted; empty where nothing speaks against them."""
        ...

    def environment(self) -> Environment:
        """The readings since the monitor began."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementSetup:
    """A device under the conditions of the deployment: where networks are measured.

    shapes: of inputs whose dimensions are dynamic besides the batch, by the input's name.
    """

    backend: Backend
    conditions: Conditions
    stopping_rule: StoppingRule
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Clock(Protocol):
    """Time, so that a test can script it."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        ...


class Progress(Protocol):
    """The screen, as the measuring and learning loops see it."""

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Say how far the current step is."""
        ...
