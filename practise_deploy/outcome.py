"""What a build comes to: verification, files, what was given up for speed, the promise, and all of it together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from practise_backends.choices import Precision
from practise_backends.terms import Comparison, Interval, LatencyTable, Measurement, Throughput
from practise_deploy.settings import Recipe
from practise_deploy.terms import (
    SCHEMA,
    Block,
    DatasetSummary,
    Loss,
    NetworkSummary,
    Plan,
    Recoverability,
    Student,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How right answers are by labels, in percent with its interval. correct: how many are; None where they can be right in part."""

    percent: Interval
    correct: int | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDiff:
    """Two forms of the network compared on the same held-out images.

    max_abs, rms: of the outputs' difference; relative_rms: over the rms of the first outputs. cosine: the lowest over images.
    agreement_percent: how far the answers agree (`tasks.judging`), of classifiers images with the same top-1 class; None where the
    task has no answers. Of several outputs the worst counts.
    """

    before: str
    after: str
    max_abs: float
    rms: float
    relative_rms: float
    cosine: float
    agreement_percent: Interval | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The original on a few images of the fit, before anything is measured: teacher -> ONNX -> engine, where it runs here."""

    schema: int = SCHEMA
    links: tuple[OutputDiff, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The original in the precision of the deployment against itself in float: what the precision alone costs."""

    link: OutputDiff
    accuracy: Accuracy | None
    loss: Loss | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """teacher -> student -> ONNX -> engine on some held-out images, then teacher -> engine directly on all of them.

    The chain ends with ONNX where the engine cannot run here. faithful: the links behind the student hold. accuracy: of both ends.
    original: None in float32, where there is nothing to convert. loss: from the original to the last form; None where the task has no
    answers. neighbours_percent: of embeddings, the share of every image's five nearest others that stay; None where there are too few.
    """

    schema: int = SCHEMA
    links: tuple[OutputDiff, ...]
    accuracy: dict[str, Accuracy]
    loss: Loss | None
    images: int
    faithful: bool
    problems: tuple[str, ...]
    original: Converted | None = None
    neighbours_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A file that was exported, with its hash. in_float: how many operators of which kind an int8 network keeps in float."""

    schema: int = SCHEMA
    path: str
    sha256: str
    bytes: int
    opset: int
    nodes: int
    dynamic_batch: bool
    in_float: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Its sha256 by its name in the run folder."""
        return {self.path: self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedModel:
    """What the device runs, and in which precision it computes, as read from the file itself.

    precision_share: share of the arithmetic layers found in `precision`, None where the format does not tell;
    others: those in another, and in which. layers: of a fused engine. targets: the kinds of GPU that it was built ahead
    for, none for the device at hand. provider: package and version that built an engine. files_sha256: files that belong to
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
    files_sha256: dict[str, str]
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[str, str]:
        """sha256 of all that it consists of, by name in the run folder."""
        return {self.path: self.sha256, **self.files_sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughputs:
    """Images a second of both models at every batch and number of threads that was measured."""

    schema: int = SCHEMA
    of: tuple[Throughput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """A set of blocks dropped, what the device saved without them, and what the network still knew.

    recovery: how it was recovered ("none", "closed form" or "finetuned"). reduction_percent: measured.
    accuracy: top-1 on labelled held-out images, None without labels; agreement_percent: with the original's answers. loss: against
    the original. Both None where the task has no answers.
    chosen: this is the plan's set.
    """

    dropped: tuple[str, ...]
    recovery: str
    reduction_percent: Interval
    accuracy: Accuracy | None
    agreement_percent: Interval | None
    loss: Loss | None
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Latency against accuracy of the plan's set and its neighbours. images: held-out images that were looked at."""

    schema: int = SCHEMA
    points: tuple[FrontierPoint, ...]
    fit_images: int
    images: int


class Answer(str, Enum):
    """What is known of a demand: it is met even at the unfavourable end of the interval, it is missed, or neither is known."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One demand of the gate, and what was found.

    name: min_speedup or max_drop. required: in the unit of the name (a ratio; points). measured: None where it is unknown.
    by_default: nobody asked for it; where it is not proven, that is said and nothing fails. estimated: what was found is an
    estimate, made without labels. of_accuracy: points are of accuracy, else of agreement.
    """

    name: str
    required: float
    measured: Interval | None
    answer: Answer
    reason: str
    by_default: bool = False
    estimated: bool = False
    of_accuracy: bool = True

    @property
    def fails(self) -> bool:
        """Whether the build ends with exit code 1 for it."""
        return self.answer is Answer.BROKEN or (self.answer is Answer.NOT_PROVEN and not self.by_default)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeverPoint:
    """The network without some blocks, in one precision, recovered in closed form.

    speedup: over the original in fp32, in the same rounds as all other points. loss, agreement_percent: against it too, on images that
    neither the fit nor the final proof sees. on_front: no other point is as fast and as good.
    """

    dropped: tuple[str, ...]
    precision: Precision
    speedup: Interval
    agreement_percent: Interval | None
    loss: Loss | None
    on_front: bool = False

    @property
    def lost(self) -> float:
        """Points lost, as estimated; infinite where no loss can be measured, so that such a point is never taken for a good one."""
        return math.inf if self.loss is None else self.loss.points.estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPoint:
    """A point that was recovered from all images, finetuned, and judged on the held-out images. loss: there, as the engine computes it."""

    dropped: tuple[str, ...]
    precision: Precision
    loss: Loss | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """Dropped blocks and precision, measured together against the original in fp32, which is the first point.

    images, fit_images: that the points were judged by, and fitted on. refused: what could not be made, as sentences. rounds, notes: of the measurement.
    built: in this order, until one was within the allowed loss.
    """

    schema: int = SCHEMA
    points: tuple[LeverPoint, ...]
    images: int
    fit_images: int
    rounds: int
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    built: tuple[BuiltPoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """All demands, and the nearest set of blocks that passes them where the release does not.

    nearest: None where the release passes, or where no set that was looked at does; advice says which, and what to run.
    """

    constraints: tuple[Criterion, ...]
    nearest: FrontierPoint | None
    advice: str

    @property
    def fails(self) -> bool:
        """Whether the build ends with exit code 1 for one of them."""
        return any(one.fails for one in self.constraints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Did the release keep its promise? Judged at the unfavourable end of the intervals."""

    answer: Answer
    exit_code: int
    sentence: str
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether every demand is met at the lower bound."""
        return self.answer is Answer.KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that a build found out. speedup: the original's latency over the release's.

    bench, speedup: None where the engine was built ahead for a device that is not at hand.
    gate: None where --max-drop was waived and no --min-speedup asked.
    levers: what the precision and the blocks were chosen by, with --precision auto; the speedup is over the original in fp32 then.
    """

    schema: int = SCHEMA
    network: NetworkSummary
    images: DatasetSummary
    recipe: Recipe
    blocks: tuple[Block, ...]
    latency: LatencyTable
    recoverability: tuple[Recoverability, ...]
    plan: Plan
    recovered: Student
    finetuned: Student
    exported: ExportedModel
    compiled: DeployedModel
    verification: Verification
    bench: Comparison | None
    throughput: tuple[Throughput, ...]
    frontier: Frontier
    gate: GateResult | None
    speedup: Interval | None
    verdict: Verdict
    seconds: dict[str, float]
    command: str
    levers: Levers | None = None

    @property
    def measured_on(self) -> Measurement:
        """The last measurement: the bench, or the latency table where there is none."""
        return self.latency if self.bench is None else self.bench
