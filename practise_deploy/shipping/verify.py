"""Does every form of the network compute the same? teacher -> student -> ONNX -> engine, on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from practise_backends.intervals import wilson
from practise_backends.terms import Interval, Progress
from practise_deploy.model.images import HeldOutImages
from practise_deploy.model.values import batches
from practise_deploy.terms import Accuracy, Link, Verification

Outputs = npt.NDArray[np.float32]
Form = Callable[[Tensor], Outputs]

COSINE = 0.999
RELATIVE_RMS = 0.01
AGREEMENT_PERCENT = 99.0
CONFIDENCE = 0.95
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms that a network takes on its way to the device, in order; each gives logits for images."""

    teacher: Form
    student: Form
    onnx: Form
    engine: Form

    def named(self) -> dict[str, Form]:
        """Name -> form, in order."""
        return {"teacher": self.teacher, "student": self.student, "ONNX": self.onnx, "engine": self.engine}


def torch_form(network: fx.GraphModule) -> Form:
    """A network as torch computes it, in fp32."""

    def compute(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return np.asarray(network(images).float().numpy())

    return compute


def engine_form(engine: Any, batch: int) -> Form:
    """A network as an engine computes it. batch: its fixed batch; the last images are padded with copies."""

    def compute(images: Tensor) -> Outputs:
        found = []
        array = np.ascontiguousarray(images.contiguous().numpy())
        for part in batches(len(array), batch):
            x = array[part]
            padded = np.concatenate([x, np.repeat(x[-1:], batch - len(x), 0)]) if len(x) < batch else x
            outputs = engine.run({engine.inputs[0].name: padded})
            found.append(np.asarray(outputs[engine.outputs[0].name])[: len(x)])
        return np.concatenate(found)

    return compute


def verify(forms: Forms, images: HeldOutImages, progress: Progress) -> Verification:
    """Compare each form with the one before it; judge the links behind the student, which must agree."""
    outputs: dict[str, list[Outputs]] = {name: [] for name in forms.named()}
    for part in batches(len(images), _BATCH):
        x = images.batch(part)
        for name, form in forms.named().items():
            outputs[name].append(form(x))
        progress.advance(part.stop, len(images), "held-out images")
    whole = {name: np.concatenate(parts) for name, parts in outputs.items()}
    names = list(whole)
    pairs = [*pairwise(names), ("teacher", "engine")]
    links = tuple(compare(a, b, whole[a], whole[b]) for a, b in pairs)
    problems = tuple(problem for link in links[1:-1] for problem in _problems(link))
    classifies = whole["teacher"].ndim == 2
    truth = None if images.labels is None or not classifies else images.labels.numpy()
    return Verification(
        links=links,
        accuracy={} if truth is None else {name: accuracy(whole[name], truth) for name in names},
        drop_points=None if truth is None else drop_in_points(whole["teacher"], whole["engine"], truth),
        images=len(images),
        faithful=not problems,
        problems=problems,
    )


def compare(before: str, after: str, first: Outputs, second: Outputs) -> Link:
    """Two forms' outputs for the same images. Shapes: [n, ...]."""
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (first, second)]
    difference = flat[0] - flat[1]
    norms = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
    same = (difference == 0).all(1)  # zeros have no direction: they agree with zeros alone
    cosine = np.where(norms > 0, (flat[0] * flat[1]).sum(1) / np.maximum(norms, 1e-300), same)
    scale = float(np.sqrt(np.square(flat[0]).mean()))
    rms = float(np.sqrt(np.square(difference).mean()))
    agree = int((flat[0].argmax(1) == flat[1].argmax(1)).sum())
    return Link(
        before=before,
        after=after,
        max_abs=float(np.abs(difference).max()),
        rms=rms,
        relative_rms=rms / scale if scale else float(rms > 0),
        cosine=float(cosine.min()),
        agreement_percent=percent(agree, len(first)),
        images=len(first),
    )


def percent(successes: int, count: int) -> Interval:
    """A share in percent with its Wilson interval."""
    found = wilson(successes, count, CONFIDENCE)
    return Interval(estimate=100 * found.estimate, low=100 * found.low, high=100 * found.high, confidence=CONFIDENCE)


def accuracy(logits: Outputs, truth: npt.NDArray[np.int64]) -> Accuracy:
    """Top-1. Shapes: logits [n, classes], truth [n]."""
    correct = int((logits.argmax(1) == truth).sum())
    return Accuracy(percent=percent(correct, len(truth)), correct=correct, images=len(truth))


def drop_in_points(before: Outputs, after: Outputs, truth: npt.NDArray[np.int64]) -> Interval:
    """How many points of accuracy were lost, paired by image.

    The interval adds half an image to each cell of the paired table, so that it does not vanish where no
    answer changed. Source: Agresti and Min (2005), Simple improved confidence intervals for matched proportions.
    """
    was, now = before.argmax(1) == truth, after.argmax(1) == truth
    lost, gained, n = int((was & ~now).sum()), int((~was & now).sum()), len(truth)
    centre = (lost - gained) / (n + 2)
    half = 1.96 * max(0.0, (lost + gained + 1) / (n + 2) - centre**2) ** 0.5 / (n + 2) ** 0.5
    estimate = (lost - gained) / n
    low, high = min(estimate, centre - half), max(estimate, centre + half)
    return Interval(estimate=100 * estimate, low=100 * max(-1.0, low), high=100 * min(1.0, high), confidence=CONFIDENCE)


def _problems(link: Link) -> Sequence[str]:
    found = []
    if not np.isfinite(link.max_abs):
        found.append(f"{link.before} -> {link.after}: outputs that are no numbers")
    if not link.relative_rms <= RELATIVE_RMS:
        found.append(
            f"{link.before} -> {link.after}: outputs differ by {link.relative_rms:.2g} of their size (rms), "
            f"at most {RELATIVE_RMS} is allowed"
        )
    if link.cosine < COSINE:
        found.append(f"{link.before} -> {link.after}: lowest cosine {link.cosine:.6f}, at least {COSINE} is required")
    if link.agreement_percent.estimate < AGREEMENT_PERCENT:
        found.append(
            f"{link.before} -> {link.after}: the same top-1 class on {link.agreement_percent.estimate:.1f}% of images, "
            f"at least {AGREEMENT_PERCENT:g}% is required"
        )
    return found
