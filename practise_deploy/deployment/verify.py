"""Verify that every runner of the network computes the same: teacher -> student -> ONNX -> engine, on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from practise_backends.choices import Precision
from practise_backends.interfaces import Progress
from practise_backends.terms import Interval
from practise_deploy.images.tiny_set import HeldOutImages, Images
from practise_deploy.network.graph.activations import batches, forward
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.network.graph.packing import mask_of, unpacked
from practise_deploy.outcome import Converted, OutputDiff, Verification
from practise_deploy.tasks.answers import answers_of
from practise_deploy.tasks.judging import Labels, accuracy_of, agreement_of, loss_of, losses_of, neighbours_kept
from practise_deploy.terms import CLASSES, Loss, Preprocessing, Task, TaskKind

Outputs = tuple[npt.NDArray[np.float32], ...]
"""A network's outputs, the first axis of each the images."""
Answers = npt.NDArray[np.floating]
Runner = Callable[[Tensor], Outputs]

MOST_ALONG_THE_CHAIN = 256
"""How many images show that two forms compute the same."""
_BATCH = 32
_ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far outputs may differ from the previous runner's. relative_rms: relative to their size; cosine: lowest over images."""

    relative_rms: float
    cosine: float
    agreement_percent: float


EXACT = Tolerance(relative_rms=0.01, cosine=0.999, agreement_percent=99.0)
QUANTISED = Tolerance(relative_rms=0.3, cosine=0.9, agreement_percent=90.0)
"""A network against itself in int8: accuracy judges the loss; this tolerance catches broken conversions."""
REROUNDED = Tolerance(relative_rms=0.15, cosine=0.97, agreement_percent=95.0)
"""int8 against the same integers multiplied in float: values near a rounding boundary may fall on either side."""


@dataclass(frozen=True, slots=True)
class Runners:
    """The runners of a network on its way to the device, in order; each maps images to outputs.

    engine: None where it cannot run on this machine. precision: of the ONNX file and the engine. original: the teacher in that
    precision, if it is not fp32; it is not part of the chain.
    """

    teacher: Runner
    student: Runner
    onnx: Runner
    engine: Runner | None
    precision: Precision = Precision.FP32
    original: Runner | None = None

    def named(self) -> dict[str, Runner]:
        """Name -> runner, in order."""
        runners = {"teacher": self.teacher, "student": self.student, "ONNX": self.onnx}
        return runners if self.engine is None else {**runners, "engine": self.engine}


def tolerances(precision: Precision) -> tuple[Tolerance, Tolerance]:
    """The tolerances of an ONNX file against the network that it was exported from, and of an engine against the file."""
    return (QUANTISED, REROUNDED) if precision == Precision.INT8 else (EXACT, EXACT)


def torch_runner(network: fx.GraphModule) -> Runner:
    """Run a network in torch, in fp32, layers fused. Shapes: images [n, channels, height, width] -> outputs [n, ...]."""

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return tuple(_as_array(each.numpy()) for each in forward(network, images, outputs_of(network)))

    return compute


def engine_runner(
    engine: Any, batch: int, preprocessing: Preprocessing | None = None, names: Sequence[str] = ()
) -> Runner:
    """Run a network in an engine, in the engine's input type. Shapes: images [n, channels, height, width] -> outputs [n, ...].

    batch: the engine's fixed batch size; the last batch is padded with copies. preprocessing: how the engine takes its
    input, where that is not as torch does. names: of the outputs in the network's order, which an engine may change.
    """
    given = [spec.name for spec in engine.outputs]
    ordered = list(names) if set(names) == set(given) else given

    def compute(images: Tensor) -> Outputs:
        chunks = []
        arrays = feeds_of(images, engine.inputs[0].name, preprocessing)
        for part in batches(len(images), batch):
            x = {spec.name: arrays[spec.name][part].astype(spec.dtype, copy=False) for spec in engine.inputs}
            outputs = engine.run({name: filled(array, batch) for name, array in x.items()})
            count = min(part.stop, len(images)) - part.start
            chunks.append([_as_array(outputs[name])[:count] for name in ordered])
        return tuple(np.concatenate(each) for each in zip(*chunks, strict=True))

    return compute


def _as_array(output: Any) -> npt.NDArray[np.float32]:
    return np.asarray(output, dtype=np.float32)


def filled(array: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    """A batch, filled with copies of its last sample."""
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), 0)]) if len(array) < batch else array


def feeds_of(images: Tensor, name: str, preprocessing: Preprocessing | None) -> dict[str, npt.NDArray[Any]]:
    """Samples by the inputs of a network. name: of its only one. Shapes: images [n, channels, height, width]."""
    if preprocessing is not None and preprocessing.inputs:
        return unpacked(images.contiguous().numpy(), preprocessing.inputs)
    turned = images.permute(0, 2, 3, 1) if preprocessing is not None and preprocessing.layout == "nhwc" else images
    return {name: np.ascontiguousarray(turned.contiguous().numpy())}


def verify(
    runners: Runners, images: HeldOutImages, progress: Progress, task: Task = CLASSES, seed: int = 0
) -> Verification:
    """Compare each runner with the previous one; those after the student must agree within the tolerances.

    Accuracy and loss are of all images; forms in between are compared on a random sample of them, `MOST_ALONG_THE_CHAIN` at most.
    """
    named = runners.named()
    names = list(named)
    sample = images.subsample(MOST_ALONG_THE_CHAIN, seed)
    links = look_at(named, [*pairwise(names)], sample, progress, task).links
    checked = zip(links[1:], tolerances(runners.precision), strict=False)  # without an engine there is one link less
    problems = tuple(problem for link, tolerance in checked for problem in problems_of(link, tolerance))
    ends = {name: named[name] for name in (names[0], names[-1])}
    pairs = [(names[0], names[-1])]
    if runners.original is not None:
        ends[_ORIGINAL] = runners.original
        pairs.append((names[0], _ORIGINAL))
    looked_at = look_at(ends, pairs, images, progress, task)
    if not problems and not np.isfinite(looked_at.links[0].max_abs):  # on an image that the sample lacks
        problems = (_no_numbers(looked_at.links[0]),)
    truth = None if images.labels is None else images.labels.numpy()
    answers = looked_at.answers
    return Verification(
        links=(*links, looked_at.links[0]),
        accuracy={
            name: accuracy_of(task, answers[name], truth) for name in pairs[0] if name in answers and truth is not None
        },
        loss=looked_at.loss(*pairs[0], truth),
        images=len(images),
        faithful=not problems,
        problems=problems,
        original=None if runners.original is None else _converted(looked_at, names[0], truth),
        neighbours_percent=looked_at.neighbours_percent(*pairs[0]),
    )


@dataclass(frozen=True, slots=True)
class LookedAt:
    """Several runners on the same images: how pairs of them differ, and what each answered, where the task has answers."""

    task: Task
    links: tuple[OutputDiff, ...]
    answers: dict[str, Answers]

    def loss(self, before: str, after: str, truth: Labels | None) -> Loss | None:
        """What is lost from one to another; None where there are no answers. Shapes: truth [images]."""
        if before not in self.answers:
            return None
        return loss_of(self.task, self.answers[before], self.answers[after], truth)

    def losses(self, before: str, after: Sequence[str], truth: Labels | None) -> list[Loss | None]:
        """The same from one to several, where there are few images (`tasks.judging.losses_of`)."""
        if before not in self.answers:
            return [None for _ in after]
        return [*losses_of(self.task, self.answers[before], [self.answers[name] for name in after], truth)]

    def neighbours_percent(self, before: str, after: str) -> float | None:
        """Of embeddings, the share of nearest neighbours that stay (`tasks.judging.neighbours_kept`)."""
        if self.task.kind is not TaskKind.EMBEDDING:
            return None
        share = neighbours_kept(self.answers[before], self.answers[after])
        return None if share is None else 100 * share


def look_at(
    runners: Mapping[str, Runner],
    pairs: Sequence[tuple[str, str]],
    images: Images,
    progress: Progress,
    task: Task = CLASSES,
) -> LookedAt:
    """Run all on the images, batch by batch: outputs are not kept, answers are."""
    differences = [_Difference() for _ in pairs]
    collected: dict[str, list[Answers]] = {name: [] for name in runners}
    for part in batches(len(images), _BATCH):
        x = images.batch(part)
        outputs = {name: runner(x) for name, runner in runners.items()}
        mask = mask_of(x, images.preprocessing)
        for name, answered in collected.items():
            answers = answers_of(task, [torch.from_numpy(output) for output in outputs[name]], mask)
            answered += [] if answers is None else [answers.numpy()]
        for difference, (before, after) in zip(differences, pairs, strict=True):
            difference.add(outputs[before], outputs[after])
        progress.advance(part.stop, len(images), "images")
    answers_by_name = {name: np.concatenate(parts) for name, parts in collected.items() if parts}
    links = (
        difference.between(*pair, _agreement(task, answers_by_name, *pair))
        for difference, pair in zip(differences, pairs, strict=True)
    )
    return LookedAt(task, tuple(links), answers_by_name)


def _agreement(task: Task, answers: Mapping[str, Answers], before: str, after: str) -> Interval | None:
    return agreement_of(task, answers[before], answers[after]) if before in answers else None


class _Difference:
    """The difference of two runners' outputs, summed over batches; where there are several outputs, that of the worst."""

    def __init__(self) -> None:
        self.images, self.max_abs, self.cosine = 0, 0.0, 1.0
        self.squares = np.zeros((3, 0))
        """By output: of the first's values, of the differences, and how many there are."""

    def add(self, first: Outputs, second: Outputs) -> None:
        """Shapes: [n, ...] each."""
        self.images += len(first[0])
        if not self.squares.shape[1]:
            self.squares = np.zeros((3, len(first)))
        for number, pair in enumerate(zip(first, second, strict=True)):
            flat = [outputs.reshape(len(outputs), -1).astype(np.float64) for outputs in pair]
            difference = flat[0] - flat[1]
            norms = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
            same = (difference == 0).all(1)  # zeros have no direction: they agree with zeros alone
            cosine = np.where(norms > 0, (flat[0] * flat[1]).sum(1) / np.maximum(norms, 1e-300), same)
            self.cosine = float(np.minimum(self.cosine, cosine.min()))
            self.max_abs = float(np.maximum(self.max_abs, np.abs(difference).max()))
            self.squares[:, number] += np.square(flat[0]).sum(), np.square(difference).sum(), difference.size

    def between(self, before: str, after: str, agreement: Interval | None) -> OutputDiff:
        """The record."""
        values, differences, counts = self.squares
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(values > 0, np.sqrt(differences / values), np.where(differences > 0, 1.0, differences))
        return OutputDiff(
            before=before,
            after=after,
            max_abs=self.max_abs,
            rms=float(np.sqrt(differences.sum() / counts.sum())),
            relative_rms=float(relative.max()),
            cosine=self.cosine,
            agreement_percent=agreement,
            images=self.images,
        )


def compare(before: str, after: str, first: Outputs, second: Outputs, task: Task = CLASSES) -> OutputDiff:
    """Compare the outputs of two runners on the same images. Shapes: first, second [images, ...] each."""
    difference = _Difference()
    difference.add(first, second)
    answers = [answers_of(task, [torch.from_numpy(_as_array(each)) for each in outputs]) for outputs in (first, second)]
    known = {name: each.numpy() for name, each in zip((before, after), answers, strict=True) if each is not None}
    return difference.between(before, after, _agreement(task, known, before, after))


def _converted(looked_at: LookedAt, teacher: str, truth: Labels | None) -> Converted:
    """What the precision alone costs the original. Shapes: truth [images]."""
    answers = looked_at.answers.get(_ORIGINAL)
    return Converted(
        link=looked_at.links[-1],
        accuracy=None if truth is None or answers is None else accuracy_of(looked_at.task, answers, truth),
        loss=looked_at.loss(teacher, _ORIGINAL, truth),
    )


def problems_of(link: OutputDiff, allowed: Tolerance) -> Sequence[str]:
    """Sentences on every tolerance that the comparison exceeds."""
    problems = []
    if not np.isfinite(link.max_abs):
        problems.append(_no_numbers(link))
    if not link.relative_rms <= allowed.relative_rms:
        problems.append(
            f"{link.before} -> {link.after}: outputs differ by {link.relative_rms:.2g} of their size (rms), "
            f"at most {allowed.relative_rms} is allowed"
        )
    if link.cosine < allowed.cosine:
        problems.append(
            f"{link.before} -> {link.after}: lowest cosine {link.cosine:.6f}, at least {allowed.cosine} is required"
        )
    if link.agreement_percent is not None and link.agreement_percent.estimate < allowed.agreement_percent:
        problems.append(
            f"{link.before} -> {link.after}: the same answers to {link.agreement_percent.estimate:.1f}%, "
            f"at least {allowed.agreement_percent:g}% is required"
        )
    return problems


def _no_numbers(link: OutputDiff) -> str:
    return f"{link.before} -> {link.after}: outputs that are no numbers"
