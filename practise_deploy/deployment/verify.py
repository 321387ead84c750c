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
from practise_deploy.images.tiny_set import HeldOutImages, Images
from practise_deploy.network.activations import batches
from practise_deploy.outcome import Accuracy, Converted, OutputDiff, Verification
from practise_deploy.planning.loss import loss_of, percent

Outputs = npt.NDArray[np.float32]
Runner = Callable[[Tensor], Outputs]

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
    """The runners of a network on its way to the device, in order; each maps images to logits.

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
    """Run a network in torch, in fp32. Shapes: images [n, channels, height, width] -> logits [n, classes]."""

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return np.asarray(network(images).float().numpy())

    return compute


def engine_runner(engine: Any, batch: int, layout: str = "nchw") -> Runner:
    """Run a network in an engine, in the engine's input type. Shapes: images [n, channels, height, width] -> logits [n, classes].

    batch: the engine's fixed batch size; the last batch is padded with copies. layout: of the engine's input.
    """
    input_spec = engine.inputs[0]

    def compute(images: Tensor) -> Outputs:
        chunks = []
        array = in_layout(images, layout)
        for part in batches(len(array), batch):
            x = array[part]
            padded = np.concatenate([x, np.repeat(x[-1:], batch - len(x), 0)]) if len(x) < batch else x
            outputs = engine.run({input_spec.name: padded.astype(input_spec.dtype, copy=False)})
            chunks.append(np.asarray(outputs[engine.outputs[0].name], dtype=np.float32)[: len(x)])
        return np.concatenate(chunks)

    return compute


def in_layout(images: Tensor, layout: str) -> npt.NDArray[np.float32]:
    """Images as a network's input has them. Shapes: images [n, channels, height, width]."""
    return np.ascontiguousarray((images.permute(0, 2, 3, 1) if layout == "nhwc" else images).contiguous().numpy())


def verify(runners: Runners, images: HeldOutImages, progress: Progress) -> Verification:
    """Compare each runner with the previous one; those after the student must agree within the tolerances."""
    original = {} if runners.original is None else {_ORIGINAL: runners.original}
    outputs = outputs_of({**runners.named(), **original}, images, progress)
    converted = outputs.pop(_ORIGINAL, None)
    names = list(outputs)
    pairs = [*pairwise(names), (names[0], names[-1])]
    links = tuple(compare(a, b, outputs[a], outputs[b]) for a, b in pairs)
    checked = zip(links[1:-1], tolerances(runners.precision), strict=False)  # without an engine there is one link less
    problems = tuple(problem for link, tolerance in checked for problem in problems_of(link, tolerance))
    classifies = is_classifier(outputs["teacher"])
    truth = None if images.labels is None or not classifies else images.labels.numpy()
    return Verification(
        links=links,
        accuracy={} if truth is None else {name: accuracy(outputs[name], truth) for name in names},
        loss=loss_of(outputs[names[0]], outputs[names[-1]], truth) if classifies else None,
        images=len(images),
        faithful=not problems,
        problems=problems,
        original=None if converted is None else _converted(outputs[names[0]], converted, truth, classifies=classifies),
    )


def outputs_of(runners: Mapping[str, Runner], images: Images, progress: Progress) -> dict[str, Outputs]:
    """The outputs of every runner. Shapes: [images, ...]."""
    collected: dict[str, list[Outputs]] = {name: [] for name in runners}
    for part in batches(len(images), _BATCH):
        x = images.batch(part)
        for name, runner in runners.items():
            collected[name].append(runner(x))
        progress.advance(part.stop, len(images), "images")
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def is_classifier(outputs: Outputs) -> bool:
    """Whether the outputs are scores of two or more classes. Shapes: [images, ...]."""
    return outputs.ndim == 2 and outputs.shape[1] > 1


def _converted(
    teacher: Outputs, converted: Outputs, truth: npt.NDArray[np.int64] | None, *, classifies: bool
) -> Converted:
    """What the precision alone costs the original. Shapes: teacher, converted [images, ...], truth [images]."""
    return Converted(
        link=compare("teacher", _ORIGINAL, teacher, converted),
        accuracy=None if truth is None else accuracy(converted, truth),
        loss=loss_of(teacher, converted, truth) if classifies else None,
    )


def compare(before: str, after: str, first: Outputs, second: Outputs) -> OutputDiff:
    """Compare the outputs of two runners on the same images. Shapes: first, second [images, ...]."""
    flat = [outputs.reshape(len(outputs), -1).astype(np.float64) for outputs in (first, second)]
    difference = flat[0] - flat[1]
    norms = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
    same = (difference == 0).all(1)  # zeros have no direction: they agree with zeros alone
    cosine = np.where(norms > 0, (flat[0] * flat[1]).sum(1) / np.maximum(norms, 1e-300), same)
    scale = float(np.sqrt(np.square(flat[0]).mean()))
    rms = float(np.sqrt(np.square(difference).mean()))
    agree = int((flat[0].argmax(1) == flat[1].argmax(1)).sum())
    answers = is_classifier(first)
    return OutputDiff(
        before=before,
        after=after,
        max_abs=float(np.abs(difference).max()),
        rms=rms,
        relative_rms=rms / scale if scale else float(rms > 0),
        cosine=float(cosine.min()),
        agreement_percent=percent(agree, len(first)) if answers else None,
        images=len(first),
    )


def accuracy(logits: Outputs, truth: npt.NDArray[np.int64]) -> Accuracy:
    """Top-1. Shapes: logits [n, classes], truth [n]."""
    correct = int((logits.argmax(1) == truth).sum())
    return Accuracy(percent=percent(correct, len(truth)), correct=correct, images=len(truth))


def problems_of(link: OutputDiff, allowed: Tolerance) -> Sequence[str]:
    """Sentences on every tolerance that the comparison exceeds."""
    problems = []
    if not np.isfinite(link.max_abs):
        problems.append(f"{link.before} -> {link.after}: outputs that are no numbers")
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
            f"{link.before} -> {link.after}: the same top-1 class on {link.agreement_percent.estimate:.1f}% of images, "
            f"at least {allowed.agreement_percent:g}% is required"
        )
    return problems
