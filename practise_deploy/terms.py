"""The words of practise-deploy: frozen records, units in the names of the fields, the paper's terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from practise_backends.terms import Conditions, Device, Interval

SCHEMA = 1
Arrays = dict[str, Any]  # name -> numpy array; kept beside the JSON, never in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image file to the network's input.

    size: (height, width) in pixels. resize: the shorter side before the centre crop.
    mean, std: per channel, of pixels scaled to [0, 1]. assumed: which of these nobody stated.
    """

    channels: int
    size: tuple[int, int]
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    augment: str
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A residual unit, or a unit that looks like one and cannot be dropped (`reason` says why).

    shape: (channels, height, width) of its output. macs: multiply-accumulates for one image,
    convolutions and linear layers. entry, exit: the values of the traced graph that a drop joins.
    latency_class: blocks of equal operators and shapes share one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    latency_class: int
    droppable: bool
    reason: str
    entry: str
    exit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the device saves without a block: the whole network with it minus without it."""

    block: str
    latency_class: int
    saving_ms: Interval
    reduction_percent: Interval
    pooled_with: tuple[str, ...]
    distinguishable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Savings of all candidate blocks on one device.

    aa_ratio: the original against itself in the same rounds. resolution_ms: half the width of its
    interval, the smallest saving that this measurement can tell from none.
    """

    schema: int = SCHEMA
    network: str
    device: Device
    conditions: Conditions
    input_shape: tuple[int, ...]
    baseline_ms: Interval
    aa_ratio: Interval
    resolution_ms: float
    savings: tuple[Saving, ...]
    rounds: int
    discarded: tuple[str, ...]
    stopped_because: str
    samples: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverability:
    """How much error stays when a block is dropped and the network recovers; LOWER is easier.

    mse: mean squared error of the pre-pooling features on images not used for the fit; the least over the
    methods that were tried on them, so a little optimistic.
    mse_dropped: the same without any recovery. relative: mse over the features' variance.
    """

    block: str
    mse: Interval
    mse_dropped: float
    relative: float
    fit_images: int
    judged_images: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverabilities:
    """R of every block that was judged."""

    schema: int = SCHEMA
    of: tuple[Recoverability, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A block that stays, and why."""

    block: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What was asked: a reduction in percent, a latency in ms, or a number of blocks (one of them)."""

    reduce_percent: float | None = None
    target_ms: float | None = None
    drop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A set of blocks whose saving was predicted from the table, then measured as a whole."""

    dropped: tuple[str, ...]
    predicted_percent: float
    measured_percent: Interval
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which blocks go. Scores are recoverability per surely saved millisecond; lowest goes first."""

    schema: int = SCHEMA
    budget: Budget
    target_percent: float | None
    baseline_ms: float
    dropped: tuple[str, ...]
    kept: tuple[Kept, ...]
    scores: dict[str, float]
    predicted_ms: float
    measured_percent: Interval
    attempts: tuple[Attempt, ...]
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A pruned network's weights at one stage, and how it came to them.

    mse: error of the pre-pooling features on fit images kept aside. history: (step, mse) pairs.
    """

    schema: int = SCHEMA
    dropped: tuple[str, ...]
    method: str
    mse_before: float
    mse: float
    steps: int
    seconds: float
    notes: tuple[str, ...]
    history: tuple[tuple[int, float], ...] = ()
    weights: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Correct answers with their Wilson interval, in percent."""

    percent: Interval
    correct: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Two forms of the network compared on the same held-out images.

    max_abs, rms: of the outputs' difference; relative_rms: over the rms of the first outputs. cosine: the lowest over images.
    agreement_percent: images with the same top-1 class.
    """

    before: str
    after: str
    max_abs: float
    rms: float
    relative_rms: float
    cosine: float
    agreement_percent: Interval
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """teacher -> student -> ONNX -> engine on held-out images, then teacher -> engine directly.

    faithful: the links student -> ONNX -> engine hold.
    """

    schema: int = SCHEMA
    links: tuple[Link, ...]
    accuracy: dict[str, Accuracy]
    drop_points: Interval | None
    images: int
    faithful: bool
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """Figures of one engine from the paired rounds; None where the sample cannot support one."""

    name: str
    p50_ms: Interval | None
    p90_ms: Interval | None
    p99_ms: Interval | None
    throughput_per_s: float
    load_ms: float | None
    first_run_ms: float | None
    peak_memory_mb: float | None
    file_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Two engines in paired rounds; speedup = latency of the first over latency of the second."""

    schema: int = SCHEMA
    speedup: Interval
    aa_ratio: Interval
    engines: tuple[EngineFigures, ...]
    device: Device
    conditions: Conditions
    rounds: int
    discarded: tuple[str, ...]
    stopped_because: str
    verdict: str
    samples: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A file that was exported, with its hash."""

    schema: int = SCHEMA
    path: str
    sha256: str
    bytes: int
    opset: int
    nodes: int
    dynamic_batch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Did the release keep its promise? Judged at the bad end of the intervals."""

    kept: bool
    exit_code: int
    sentence: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """Which network, and how its input is made."""

    name: str
    weights: str
    sha256: str
    parameters: int
    macs: int
    output_classes: int | None
    feature: str
    preprocessing: Preprocessing
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """Which images, how many for what."""

    fit: int
    held_out: int
    labelled: bool
    source: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that a build found out. speedup: the original's latency over the release's."""

    schema: int = SCHEMA
    network: NetworkFacts
    images: DataFacts
    recipe: str
    blocks: tuple[Block, ...]
    latency: LatencyTable
    recoverability: tuple[Recoverability, ...]
    plan: Plan
    recovered: Student
    finetuned: Student
    shipped: Shipped
    verification: Verification
    bench: Speedup
    speedup: Interval
    verdict: Verdict
    seconds: dict[str, float]
    command: str
