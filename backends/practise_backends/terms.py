"""The words of the device half. Records only: nothing here computes or prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_backends.choices import ClockKind, Precision

Tensors = Mapping[str, npt.NDArray[np.generic]]
Arrays = dict[str, Any]  # name -> numpy array; kept beside the JSON, never in it

SCHEMA = 2
WALL, CPU = "wall clock", "CPU time"
"""Which clock samples are of: a run's whole duration, or the time that its thread had a processor."""


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
    precision: Precision = Precision.FP32
    clock: ClockKind = ClockKind.END_TO_END
    cuda_graph: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device and its state. Timings pool only where fingerprints are equal."""

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
    `precision_share` is the share of the arithmetic layers found in `precision`, read from the artefact;
    None where this format does not tell. others: the layers in another type, and in which.
    notes: what its compiler warned of. layers: what the network was fused to, where the format tells. targets: the devices that it
    was built ahead for. provider: package and version that built it.
    """

    content: bytes | Path
    sha256: str
    format: str
    precision: str
    precision_share: float | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device_fingerprint: str
    others: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layers: tuple[Any, ...] = ()
    targets: tuple[str, ...] = ()
    provider: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """How long a measurement may take, and how narrow an interval is narrow enough.

    `half_width_percent` is the half-width of the ratio's interval, in percent of the original's latency.
    `relative_half_width`: a ratio that is known to this share of its distance from `decision_boundary` is narrow enough too
    (0.1: a saving of 8% is known to +-0.8%); 0 turns that rule off.
    `sessions`: how often each network is opened; two sessions of one file differ in their speed.
    `keep_throttled`: do not discard the rounds in which a quota or heat stopped the device.
    """

    budget_s: float = 60.0
    warmup_s: float = 2.0
    min_rounds: int = 30
    max_rounds: int = 2000
    half_width_percent: float = 0.25
    relative_half_width: float = 0.0
    decision_boundary: float = 1.0
    confidence: float = 0.95
    sessions: int = 6
    keep_throttled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What else the machine did while it was measured; None where the platform does not tell.

    load: 1-minute load average, before and after. steal_percent: CPU time that a hypervisor gave to others.
    quota_stops, heat_stops: how often a control group's quota or the temperature stopped the processor.
    clock_mhz, temperature_c: lowest and highest reading. gpu: readings of the GPU, by name.
    """

    seconds: float
    load: tuple[float, float] | None = None
    steal_percent: float | None = None
    quota_stops: int | None = None
    heat_stops: int | None = None
    clock_mhz: tuple[float, float] | None = None
    temperature_c: tuple[float, float] | None = None
    gpu: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Raw samples of paired rounds; statistics are computed on reading.

    engines: the name of each column; a network that was opened several times has as many columns.
    rounds_ms: float64[rounds, columns], milliseconds of one run; NaN marks a discarded sample.
    stopped_because: which rule ended the measurement. discarded: one sentence a discarded round.
    raw_ms, cpu_ms: all rounds, by the wall clock and by the CPU time of the computing thread (None where it cannot be told);
    rounds_ms holds the one or the other (see `rounds.log`).
    overhead_percent: the loop's own time in percent of the time that the engines ran. notes: how runs were
    timed in groups. runs_a_sample: of how many runs each column's samples are the means.
    timed_by: the clock that rounds_ms is of, WALL or CPU.
    """

    engines: tuple[str, ...]
    rounds_ms: npt.NDArray[np.float64]
    conditions: Conditions
    warmup_s: float
    stopped_because: str
    discarded: tuple[str, ...] = ()
    environment: Environment | None = None
    overhead_percent: float = 0.0
    notes: tuple[str, ...] = ()
    raw_ms: npt.NDArray[np.float64] | None = None
    cpu_ms: npt.NDArray[np.float64] | None = None
    runs_a_sample: tuple[int, ...] = ()
    timed_by: str = WALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What every measurement in paired rounds tells besides its result.

    aa_ratio: the original against itself in the same rounds. session_percent: by how much two sessions of one file differ
    (standard deviation). estimator_errors_percent: the A/A error of every estimator that was tried (`estimates` says which
    is taken). timed_by: the clock that latencies and their ratios are of, WALL or CPU.
    """

    schema: int = SCHEMA
    backend: str
    device: Device
    conditions: Conditions
    aa_ratio: Interval
    session_percent: float
    estimator: str
    estimator_errors_percent: dict[str, float]
    rounds: int
    discarded: tuple[str, ...]
    warmup_s: float
    stopped_because: str
    environment: Environment | None
    notes: tuple[str, ...] = ()
    timed_by: str = WALL
    samples: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the device saves without a block: the whole network with it minus without it.

    pooled_with: the structurally equal blocks that share this figure. measured: False where it was read off
    a twin. distinguishable: the saving is statistically distinguishable from zero.
    """

    block: str
    latency_class: int
    saving_ms: Interval
    reduction_percent: Interval
    pooled_with: tuple[str, ...]
    distinguishable: bool
    measured: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinCheck:
    """Two structurally equal blocks measured in the same rounds: do they cost the same?

    difference_percent: of the whole network's latency. same: the interval holds 0, or the difference
    is within the noise floor.
    """

    latency_class: int
    blocks: tuple[str, str]
    difference_percent: Interval
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCheck:
    """Blocks dropped together: the sum of their single savings, and what was measured, in percent."""

    dropped: tuple[str, ...]
    predicted_percent: float
    measured_percent: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable(Measurement):
    """Savings of all candidate blocks on one device.

    aa_ratio: the original against itself in the same rounds. resolution_ms: how far its interval reaches
    from 1, the smallest saving that this measurement can distinguish from zero. session_percent: by how much
    two sessions of one network differ (standard deviation). additivity: measured over predicted saving of
    the random sets; 1 where savings simply add up, None where no set could be measured.
    timed_by: the clock that the milliseconds are of, WALL or CPU.
    structure_sha256: of the blocks' shapes and parameters, so that a table is not taken for another network's.
    samples_sha256: of the raw samples (`samples_digest`), which lie beside the table as .npz.
    """

    network: str
    input_shape: tuple[int, ...]
    baseline_ms: Interval
    resolution_ms: float
    savings: tuple[Saving, ...]
    twins: tuple[TwinCheck, ...]
    sets: tuple[SetCheck, ...]
    additivity: Interval | None
    structure_sha256: str = ""
    samples_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """Figures of one engine from the paired rounds; None where the sample cannot support one.

    p50_ms: in the median round, the same for all engines of the measurement, so that two of them differ by their speed-up.
    The percentiles above are of one run, and need samples that are. load_ms, first_run_ms, peak_memory_mb: a cold start in fresh processes.
    parts_ms: medians of a run's parts (see `parts`), where the engine tells them.
    """

    name: str
    file: str
    sha256: str
    precision: str
    precision_share: float | None
    p50_ms: Interval | None
    p90_ms: Interval | None
    p99_ms: Interval | None
    throughput_per_s: float
    load_ms: float | None
    first_run_ms: float | None
    peak_memory_mb: float | None
    file_mb: float
    parts_ms: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp32Original:
    """The original in fp32, in the same rounds as two networks of less precision. speedup: its latency over the new network's."""

    engine: EngineFigures
    speedup: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Measurement):
    """Two networks in paired rounds; speedup = latency of the first over latency of the second.

    verdict: faster, slower or cannot tell. aa_ratio: half of the first network's sessions against the other half.
    fp32: None where both are of fp32 themselves, or where the original's file in fp32 was not given.
    """

    speedup: Interval
    verdict: str
    sessions: int
    engines: tuple[EngineFigures, ...]
    fp32: Fp32Original | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Images a second of one engine at one batch and number of threads, requests one after another.

    latency_ms: of one run (median). timed_by: the clock that both are of, WALL or CPU. refused: why it was not measured; the figures are None then.
    """

    engine: str
    batch: int
    threads: int
    latency_ms: Interval | None
    images_per_s: Interval | None
    refused: str = ""
    timed_by: str = WALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One MLPerf LoadGen run of one engine, its figures as LoadGen says them.

    metric: the scenario's standard figure, with `unit`. valid: LoadGen's own verdict under these settings;
    problems: its reasons. settings: the test settings that were set (durations are shorter than a submission's).
    """

    engine: str
    scenario: str
    metric: float
    unit: str
    valid: bool
    problems: tuple[str, ...]
    queries: int
    latency_ms: dict[str, float]
    settings: dict[str, str]
