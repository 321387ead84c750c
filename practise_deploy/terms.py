"""The records of practise-deploy: frozen, with units in the names of the fields and the terms of the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from practise_backends.terms import Arrays, Interval

SCHEMA = 4
"""Of the records of this half; latency tables and comparisons have that of the device half."""


class TaskKind(str, Enum):
    """What a network's outputs say, and so what it means that two networks agree."""

    CLASSIFICATION = "classification"
    BINARY = "binary"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    EMBEDDING = "embedding"
    SEGMENTATION = "segmentation"
    SEQUENCE = "sequence"
    CTC = "ctc"
    DETECTION = "detection"
    CUSTOM = "custom"


OF_CLASSES = (TaskKind.CLASSIFICATION, TaskKind.BINARY)
"""Those whose answers are right or wrong as a whole."""


class Scores(str, Enum):
    """What scores are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a network is judged by.

    output: the number of the output that is judged, among those of `names`; detection and a metric look at all. shapes: of every output,
    for one image. metric: the user's, as FILE.py:FUNCTION. reason: how the kind was told, as the end of a sentence; empty where it was
    given. metric_sha256: of the metric's file. sample: what one is called, image, text or sample.
    """

    kind: TaskKind = TaskKind.CLASSIFICATION
    scores: Scores = Scores.LOGITS
    output: int = 0
    names: tuple[str, ...] = ("logits",)
    shapes: tuple[tuple[int, ...], ...] = ()
    metric: str = ""
    metric_sha256: str = ""
    reason: str = ""
    sample: str = "image"

    @property
    def has_accuracy(self) -> bool:
        """Whether an answer is right or wrong as a whole."""
        return self.kind in OF_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input of a network that takes several, or anything but images.

    dtype: numpy's name of its type. shape: of one sample, without the batch. is_mask: whether it says which positions count (1) and
    which are padding (0).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_mask: bool = False


CLASSES = Task()
"""The task of a network whose only output are logits of classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image file to the network's input.

    size: (height, width) in pixels.
    resize: images are scaled until they cover the input enlarged to this shorter side, then cropped in the centre (for a square
    input: until their own shorter side has this length).
    squash: images are scaled to exactly that size instead, whatever their shape.
    mean, std: per channel, of pixels scaled to [0, 1].
    assumed: which of these are assumptions, because nothing states them.
    channel_order: rgb, or bgr as OpenCV reads images.
    layout: of the input of a user's ONNX file, nchw or nhwc; networks in torch take nchw.
    inputs: of a network that takes several, or anything but images: they are kept as one row of numbers a sample, in this order, which
    stands for an image of one channel, height 1 and that width. tokenizer: the Hugging Face folder of the one that makes them of texts.
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
    channel_order: str = "rgb"
    layout: str = "nchw"
    inputs: tuple[InputSpec, ...] = ()
    tokenizer: str = ""

    @property
    def enlarged(self) -> tuple[int, int]:
        """(height, width) of the input with its shorter side as long as `resize`."""
        height, width = self.size
        return round(height * self.resize / min(self.size)), round(width * self.resize / min(self.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A residual unit, or a unit that looks like one and cannot be dropped (`reason` says why).

    shape: (channels, height, width) of its output.
    macs: multiply-accumulates per image, of convolutions and linear layers.
    latency_class: blocks with the same operators and shapes share one.
    entry, exit: the values of the traced graph that are joined when the block is dropped.
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
    """The error that remains after a block is dropped and the network is recovered; LOWER is easier (paper, section 3.2).

    mse: mean squared error of the pre-pooling features on images not used for the fit (recipe paper: on the images of the fit,
    as published). It is the least over the solvers compared on these images, so slightly optimistic.
    mse_dropped: the same without any recovery.
    relative: mse over the variance of the features.
    method: the solver of the block's writer.
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
    """The recoverability of every scored block, and the interactions of their errors.

    interactions: float64[images, blocks, blocks] in the order of `of`, with every block recovered by its best solver. The sum
    over the rows and columns of a set predicts the set's error. "features": inner products of the changes of the pre-pooling
    features without each block, over the variance of the features. Empty for recipe paper, which adds scores.
    """

    schema: int = SCHEMA
    of: tuple[Recoverability, ...]
    interactions: Arrays = field(default_factory=dict)

    @property
    def is_consistent(self) -> bool:
        """Whether the interactions are of these blocks; in a damaged file they may not be."""
        sizes = (len(self.of),) * 2
        arrays = self.interactions.values()
        return all(array.dtype.kind == "f" and array.ndim == 3 and array.shape[1:] == sizes for array in arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A block that stays, and why."""

    block: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The target: a reduction in percent, a latency in ms, or a number of blocks (exactly one of them)."""

    reduce_percent: float | None = None
    target_ms: float | None = None
    drop: int | None = None


def saving_lower_bound(predicted: Interval, measured: Interval | None) -> float:
    """The reduction in percent that another measurement should still reach at its own lower bound: the lower bound minus half an interval.

    Of a prediction, whose interval is wide already, just the lower bound.
    """
    return predicted.low if measured is None else measured.low - (measured.high - measured.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A set of blocks whose saving was predicted from the table and then measured as a whole.

    measured_percent: None if the device of the table is not available here.
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
    """What was lost against the original, in points of the task's measure, on images that took no part in the fit.

    kind, sample: the task's. by_labels: of a task without classes, the points are of how right the answers are, by labels. Of classifiers
    they are always of top-1; of all others without labels they are of agreement with the original.
    estimated: there are no labels, and the loss of accuracy is estimated from the original's own probabilities.
    agreement_percent: of classifiers the share of images with the original's answer; else the mean agreement over the images.
    above_chance: whether the original is right significantly more often than chance, or than one constant answer, by the labels; otherwise
    there is no accuracy to lose.
    """

    points: Interval
    estimated: bool
    agreement_percent: Interval
    images: int
    above_chance: bool = True
    kind: TaskKind = TaskKind.CLASSIFICATION
    by_labels: bool = False
    sample: str = "image"

    @property
    def of_accuracy(self) -> bool:
        """Whether the points are of accuracy; else they are of agreement."""
        return self.by_labels or self.kind in OF_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A set of blocks found by the search, its figures, and why it was not taken (empty for the chosen set).

    predicted_error: from the errors of single blocks and their interactions, relative to a typical block. It ranks sets; its
    size means little.
    verified_error: error of the features over their variance, on validation images, after a refit with one ridge; None if the
    set was not verified.
    loss: of the same networks on the same images, before finetuning.
    measured_percent: None if it was not measured.
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
    """What is possible within the limit on accuracy loss, where the target is not.

    demand_points: the allowed loss.
    target_set: the set that meets the target.
    sets: smaller savings that were examined, with the losses after recovery in closed form; the largest saving first.
    best: the largest saving that is within the limit; None if there is none.
    """

    schema: int = SCHEMA
    demand_points: float
    target_set: Considered
    sets: tuple[Considered, ...]
    best: Considered | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """Whether the plan's set can be recovered within the limit on accuracy loss: None if nothing speaks against it."""

    schema: int = SCHEMA
    of: WithinDrop | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which blocks are dropped. Scores are recoverability per millisecond saved, at the lower bound; recipe paper drops the lowest first.

    device: the name of the device that the latency table was measured on.
    measured_percent: None if that device is not available here, so that only the prediction counts.
    selection_frequency, set_frequency: the share of the resamples of images and savings that drop each candidate, and that choose
    exactly this set; empty and None for recipe paper, which ranks blocks and considers no sets.
    within_drop: why a smaller set than requested is dropped; None if it is not.
    over_fp32: the blocks were chosen together with the precision (--precision auto), so what counts is the speed-up over the original in fp32.
    notes: what else decided, as sentences.
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
    over_fp32: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lower_bound_percent(self) -> float:
        """What must reach the target (see `saving_lower_bound`)."""
        return saving_lower_bound(self.predicted_percent, self.measured_percent)

    @property
    def chosen(self) -> Considered | None:
        """The chosen set, with its verified error and loss; None if sets were not searched."""
        return next((one for one in self.considered if one.dropped == self.dropped), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitChoice:
    """How one stream value was refitted: the chosen solver, and the error of every solver.

    point: the value of the traced graph.
    errors: by solver, error of the features over their variance, on images not used for the solution.
    images: by solver, the number of these images. A solver that was significantly worse than the best was eliminated early; its
    error is the best's plus their difference on the images that it saw.
    """

    point: str
    method: str
    errors: dict[str, float]
    images: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """The weights of a pruned network at one stage, and how they were computed.

    mse: error of the pre-pooling features.
    judged_on: the images of this error, of the one before it and of the history.
    history: (step, mse) pairs.
    choices: of the closed-form refit, point by point.
    relative: mse over the variance of the features, by which recoveries are compared; None if it was not computed.
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
    """The network, and how its input is made."""

    name: str
    weights: str
    sha256: str
    parameters: int
    macs: int
    output_classes: int | None
    feature: str
    preprocessing: Preprocessing
    notes: tuple[str, ...]
    task: Task = CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """The images, and how many are used for what."""

    fit: int
    held_out: int
    labelled: bool
    source: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
