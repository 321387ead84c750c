"""The words of practise-deploy: frozen records, units in the names of the fields, the paper's terms."""

from __future__ import annotations

from dataclasses import dataclass, field

from practise_backends.terms import SCHEMA, Arrays, Comparison, Interval, LatencyTable, Throughput


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
class Recoverability:
    """How much error stays when a block is dropped and the network recovers; LOWER is easier.

    mse: mean squared error of the pre-pooling features on images not used for the fit (recipe paper: on those that
    were, as published); the least over the methods that were tried on them, so a little optimistic.
    mse_dropped: the same without any recovery. relative: mse over the features' variance.
    divergence: KL divergence from the teacher's classes at the best temperature, in nats an image; None where it
    was not looked at.
    method: how the block's writer was solved for, the way of least error.
    """

    block: str
    mse: Interval
    mse_dropped: float
    relative: float
    fit_images: int
    judged_images: int
    method: str
    divergence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverabilities:
    """R of every block that was judged, and how their losses act together.

    interactions: float64[images, blocks, blocks] in the order of `of`, every block recovered as well as it can be;
    the sum over a set's rows and columns predicts the set's error. "features": inner products of what losing each
    block changes of the pre-pooling features, over their variance. Empty for recipe paper, which adds scores up.
    """

    schema: int = SCHEMA
    of: tuple[Recoverability, ...]
    interactions: Arrays = field(default_factory=dict)


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
    """A set of blocks whose saving was predicted from the table, then measured as a whole.

    measured_percent: None where the device of the table is not at hand.
    """

    dropped: tuple[str, ...]
    predicted_percent: Interval
    measured_percent: Interval | None
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A set of blocks that the search found, its figures, and why it was not taken (empty for the one that was).

    predicted_error: from single losses and how they act together, in mean errors of a single block; good for
    comparing sets, not for its size. verified_error: the features' error over their variance, on fit images kept
    aside, after a refit with one ridge; None where it was not verified. measured_percent: None where it was not
    measured.
    """

    dropped: tuple[str, ...]
    predicted_error: float
    verified_error: float | None
    predicted_percent: Interval
    measured_percent: Interval | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which blocks go. Scores are recoverability per surely saved millisecond; recipe paper drops the lowest first.

    device: the name of the device that the latency table was measured on. measured_percent: None where that
    device is not at hand, so that the prediction stands alone. chosen_share, set_share: in what share of the
    resamples of images and savings every candidate goes, and exactly this set; empty and None for recipe paper,
    which ranks blocks and considers no sets.
    """

    schema: int = SCHEMA
    budget: Budget
    target_percent: float | None
    baseline_ms: float
    dropped: tuple[str, ...]
    kept: tuple[Kept, ...]
    scores: dict[str, float]
    device: str
    predicted_ms: float
    predicted_percent: Interval
    measured_percent: Interval | None
    attempts: tuple[Attempt, ...]
    reached: bool
    chosen_share: dict[str, float] = field(default_factory=dict)
    set_share: float | None = None
    considered: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChoice:
    """How one stream value was refitted: the way of least error, and what every way gave.

    site: the value of the traced graph. errors: by way, the features' error over their variance, on images that the
    solution did not see. images: by way, on how many; one that was surely worse than the best left the race early, its
    error is then the best's plus their difference on these.
    """

    site: str
    method: str
    errors: dict[str, float]
    images: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A pruned network's weights at one stage, and how it came to them.

    mse: error of the pre-pooling features. judged_on: which images that error, the one before and the history are of.
    history: (step, mse) pairs.
    choices: of the closed-form refit, site by site. relative: mse over the features' variance, what recoveries are
    compared by. divergence: KL divergence from the teacher's classes at the best temperature, in nats an image. Both
    are None where they were not computed.
    """

    schema: int = SCHEMA
    dropped: tuple[str, ...]
    method: str
    mse_before: float
    mse: float
    steps: int
    seconds: float
    notes: tuple[str, ...]
    judged_on: str = ""
    history: tuple[tuple[int, float], ...] = ()
    choices: tuple[SiteChoice, ...] = ()
    relative: float | None = None
    divergence: float | None = None
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
class Converted:
    """The original in the precision of the deployment against itself in float: what the precision alone costs."""

    link: Link
    accuracy: Accuracy | None
    drop_points: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """teacher -> student -> ONNX -> engine on held-out images, then teacher -> engine directly.

    The chain ends with ONNX where the engine cannot run here. faithful: the links behind the student hold.
    original: None in float32, where there is nothing to convert.
    """

    schema: int = SCHEMA
    links: tuple[Link, ...]
    accuracy: dict[str, Accuracy]
    drop_points: Interval | None
    images: int
    faithful: bool
    problems: tuple[str, ...]
    original: Converted | None = None


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
class Compiled:
    """What the device runs, and in which precision it computes, as read from the file itself.

    precision_share: share of the arithmetic layers found in `precision`, None where the format does not tell;
    others: those in another, and in which. layers: of a fused engine. targets: the kinds of GPU that it was built ahead
    for, none for the device at hand. provider: package and version that built an engine. beside: files that belong to
    it -> their sha256.
    """

    schema: int = SCHEMA
    path: str
    sha256: str
    bytes: int
    format: str
    precision: str
    precision_share: float | None
    others: dict[str, str]
    layers: int | None
    targets: tuple[str, ...]
    provider: str
    beside: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughputs:
    """Images a second of both models at every batch and number of threads that was measured."""

    schema: int = SCHEMA
    of: tuple[Throughput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """A set of blocks dropped, what the device saved without them, and what the network still knew.

    recovery: how it was recovered ("none", "closed form" or "finetuned"). reduction_percent: measured.
    accuracy: top-1 on labelled held-out images, None without labels; agreement_percent: images with the
    original's top-1 class. drop_points: accuracy lost against the original, paired by image.
    chosen: this is the plan's set.
    """

    dropped: tuple[str, ...]
    recovery: str
    reduction_percent: Interval
    accuracy: Accuracy | None
    agreement_percent: Interval
    drop_points: Interval | None
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Latency against accuracy of the plan's set and its neighbours. images: held-out images that were looked at."""

    schema: int = SCHEMA
    points: tuple[FrontierPoint, ...]
    fit_images: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One demand of the gate, judged at the bad end of what was found.

    name: min_speedup or max_drop. asked: in the unit of the name (a ratio; points). found: None where it is unknown, which fails.
    """

    name: str
    asked: float
    found: Interval | None
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """All demands, and the nearest set of blocks that passes them where the release does not.

    nearest: None where the release passes, or where no set that was looked at does; advice says which, and what to run.
    """

    constraints: tuple[Constraint, ...]
    passed: bool
    nearest: FrontierPoint | None
    advice: str


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
    """Everything that a build found out. speedup: the original's latency over the release's.

    bench, speedup: None where the engine was built ahead for a device that is not at hand.
    gate: None where no --min-speedup or --max-drop was asked.
    """

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
    compiled: Compiled
    verification: Verification
    bench: Comparison | None
    throughput: tuple[Throughput, ...]
    frontier: Frontier
    gate: Gate | None
    speedup: Interval | None
    verdict: Verdict
    seconds: dict[str, float]
    command: str

    @property
    def measured_on(self) -> Comparison | LatencyTable:
        """The last measurement: the bench, or the latency table where there is none."""
        return self.latency if self.bench is None else self.bench
