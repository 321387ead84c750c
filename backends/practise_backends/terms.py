"""The words of the device half. Records only: nothing here computes or prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tensors = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its confidence interval; the unit is in the name of the field that holds it."""

    estimate: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a latency depends on besides the network and the device."""

    batch: int = 1
    threads: int = 1
    precision: str = "fp32"
    clock: str = "end_to_end"
    cuda_graph: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as it was found. Timings pool only where fingerprints are equal."""

    name: str
    fingerprint: str
    versions: dict[str, str]
    facts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of an engine; a dimension of -1 is dynamic."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A compiled network: what `Backend.open` needs, and what may be claimed about it.

    `content` is the network itself (bytes) or the file that holds it.
    `precision_share` is the share of the arithmetic layers found in `precision`, read from the artefact.
    """

    content: bytes | Path
    sha256: str
    format: str
    precision: str
    precision_share: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a measurement may go on, and how narrow an interval is narrow enough.

    `enough_percent` is the half-width of the ratio's interval, in percent of the original's latency.
    """

    budget_s: float = 60.0
    warmup_s: float = 2.0
    min_rounds: int = 30
    max_rounds: int = 2000
    enough_percent: float = 0.25
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Raw samples of paired rounds; statistics are computed on reading.

    rounds_ms: float64[rounds, engines], milliseconds of one run; NaN marks a discarded sample.
    stopped_because: which rule ended the measurement. discarded: one sentence a discarded round.
    """

    engines: tuple[str, ...]
    rounds_ms: npt.NDArray[np.float64]
    conditions: Conditions
    warmup_s: float
    stopped_because: str
    discarded: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded network on a device. The engine owns its clock (a GPU's events, a CPU's counter)."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        """Compute all outputs, by name."""
        ...

    def time_once(self, tensors: Tensors) -> float:
        """Milliseconds of one run."""
        ...

    def close(self) -> None:
        """Free the device's memory."""
        ...


class Backend(Protocol):
    """A way to run ONNX networks on a device; found by the entry points of group `practise_backends`."""

    name: str

    def device(self) -> Device:
        """The device as it is now."""
        ...

    def compile(self, model: bytes | Path, conditions: Conditions) -> Artifact:
        """Turn an ONNX network into what this device runs."""
        ...

    def open(self, artifact: Artifact, conditions: Conditions) -> Engine:
        """Load a compiled network."""
        ...


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
