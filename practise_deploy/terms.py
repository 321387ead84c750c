"""The words of practise-deploy: frozen records, units in the names of the fields, the paper's terms."""

from __future__ import annotations

from dataclasses import dataclass, field

from practise_backends.terms import Arrays, Interval

SCHEMA = 4
"""Of the records of this half; latency tables and comparisons have that of the device half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image file to the network's input.

    size: (height, width) in pixels. resize: images are scaled until they cover the input with its shorter side this long (for a square
    input: until their own shorter side is), and cropped in the middle. squash: scaled to just that instead, whatever their own shape.
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
    squash: bool = False

    @property
    def enlarged(self) -> tuple[int, int]:
        """(height, width) of the input with its shorter side as long as `resize`."""
        height, width = self.size
        return round(height * self.resize / min(self.size)), round(width * self.resize / min(self.size))


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
    method: how the block's writer was solved for, the way of least error.
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


def saving_lower_bound(predicted: Interval, measured: Interval | None) -> float:
    """In percent: what another measurement will hardly fall short of at its own lower bound: the lower bound minus half an interval.

    Of a prediction, whose interval is wide already, the lower bound.
    """
    return predicted.low if measured is None else measured.low - (measured.high - measured.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A set of blocks whose saving was predicted from the table, then measured as a whole.

    measured_percent: None where the device of the table is not available here.
    """

    dropped: tuple[str, ...]
    predicted_percent: Interval
    measured_percent: Interval | None
    met: bool

    @property
    def lower_bound_percent(self) -> float:
        """What must reach the target (see `saving_lower_bound`)."""
        return saving_lower_bound(self.predicted_percent, self.measured_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a network lost against the original on images that took no part in its fit, in points of top-1.

    estimated: without labels, from the original's own probabilities. agreement_percent: images with the original's answer.
    above_chance: whether the original is right significantly more often than chance, by the labels; else there is no loss to tell.
    """

    points: Interval
    estimated: bool
    agreement_percent: Interval
    images: int
    above_chance: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A set of blocks that the search found, its figures, and why it was not taken (empty for the one that was).

    predicted_error: from single losses and how they act together, in mean errors of a single block; good for
    comparing sets, not for its size. verified_error: the features' error over their variance, on fit images kept
    aside, after a refit with one ridge; None where it was not verified. loss: of the same networks on the same images, before
    any finetuning. measured_percent: None where it was not measured.
    """

    dropped: tuple[str, ...]
    predicted_error: float
    verified_error: float | None
    predicted_percent: Interval
    measured_percent: Interval | None
    reason: str
    loss: Loss | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinDrop:
    """What can be had within the demand on accuracy, where the target cannot.

    demand_points: the loss that is allowed. target_set: the set that meets the target. sets: those that save less and were
    looked at, with the losses that recovery in closed form leaves; the most saving first. best: of these the most saving that
    finetuning is expected to bring within the demand; None where there is none.
    """

    schema: int = SCHEMA
    demand_points: float
    target_set: Considered
    sets: tuple[Considered, ...]
    best: Considered | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """Whether the plan's set can be recovered within the demand on accuracy: None where nothing speaks against it."""

    schema: int = SCHEMA
    of: WithinDrop | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which blocks go. Scores are recoverability per millisecond saved, at the lower bound; recipe paper drops the lowest first.

    device: the name of the device that the latency table was measured on. measured_percent: None where that
    device is not at hand, so that the prediction stands alone. selection_frequency, set_frequency: in what share of the
    resamples of images and savings every candidate goes, and exactly this set; empty and None for recipe paper,
    which ranks blocks and considers no sets. within_drop: why a smaller set than asked goes; None where it does not. notes:
    what else decided, as sentences.
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
    selection_frequency: dict[str, float] = field(default_factory=dict)
    set_frequency: float | None = None
    considered: tuple[Considered, ...] = ()
    within_drop: WithinDrop | None = None
    notes: tuple[str, ...] = ()

    @property
    def lower_bound_percent(self) -> float:
        """What must reach the target (see `saving_lower_bound`)."""
        return saving_lower_bound(self.predicted_percent, self.measured_percent)

    @property
    def chosen(self) -> Considered | None:
        """The set that goes, with its verified error and loss; None where sets were not searched for."""
        return next((one for one in self.considered if one.dropped == self.dropped), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitChoice:
    """How one stream value was refitted: the way of least error, and what every way gave.

    point: the value of the traced graph. errors: by way, the features' error over their variance, on images that the
    solution did not see. images: by way, on how many; one that was significantly worse than the best was eliminated early, its
    error is then the best's plus their difference on these.
    """

    point: str
    method: str
    errors: dict[str, float]
    images: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A pruned network's weights at one stage, and how it came to them.

    mse: error of the pre-pooling features. judged_on: which images that error, the one before and the history are of.
    history: (step, mse) pairs.
    choices: of the closed-form refit, site by site. relative: mse over the features' variance, what recoveries are
    compared by; None where it was not computed.
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
    choices: tuple[RefitChoice, ...] = ()
    relative: float | None = None
    weights: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSummary:
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
class DatasetSummary:
    """Which images, how many for what."""

    fit: int
    held_out: int
    labelled: bool
    source: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
