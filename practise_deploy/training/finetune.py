"""From a pruned network to a student: feature mimicking on the tiny set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import fx

from practise_backends.terms import Progress
from practise_deploy.images.calibration import Lesson
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.activations import named, order_of
from practise_deploy.network.surgery import drop_blocks, load_weights, weights_of
from practise_deploy.settings import Settings
from practise_deploy.terms import Block, Student
from practise_deploy.training.batches import other_views
from practise_deploy.training.checkpoint import Course
from practise_deploy.training.distillation import Pair, pair_of
from practise_deploy.training.mimic import mimic
from practise_deploy.training.schedule import SLOWER, Schedule

PAPER = Schedule(steps=2000, norms="trained")
TINY = Schedule(
    steps=300,
    optimiser="adamw",
    learning_rate=2e-3,
    cosine=True,
    norms="frozen",
    mix=1.0,
    exits=3.0,
    scaled=True,
    average=0.99,
    keep_start=True,
    retreat=1.25,
)
"""The default; benchmarks/reproduce/ablation.py changes one part of it at a time, docs/tiny-sets.md has the table."""

_WORSE = {
    True: "finetuning ended with more error than it began with: the weights before it are kept",
    False: "finetuning ended with more error than it began with, and recipe paper keeps its end all the same",
}
"""What is said of it, by whether the schedule keeps the start then."""


def schedule_for(asked: Settings, side: int, dtype: torch.dtype) -> Schedule:
    """The paper's own schedule, or the default for tiny sets. side: of the input, in pixels."""
    chosen = PAPER if asked.recipe == "paper" else TINY if side <= 64 else replace(TINY, steps=100)
    return replace(
        chosen,
        steps=chosen.steps if asked.iterations is None else asked.iterations,
        learning_rate=asked.learning_rate or chosen.learning_rate,
        batch_size=asked.batch_size,
        seed=asked.seed,
        dtype=dtype,
    )


def drop_only(lesson: Lesson, dropped: Sequence[Block]) -> Student:
    """Drop the blocks and change nothing else: where the paper's finetuning starts."""
    _, judge = lesson.images.split(lesson.seed)
    student = drop_blocks(lesson.teacher, dropped)
    error = pair_of(student, lesson.teacher, lesson.feature, dropped, device=lesson.device).error(judge, 64)
    return Student(
        dropped=tuple(block.name for block in dropped), method="plain drop (the paper's start)", mse_before=error, mse=error,
        steps=0, seconds=0.0, judged_on=_aside(judge), notes=(), weights=weights_of(student),
    )  # fmt: skip


def finetune(
    pair: Pair,
    start: Student,
    images: FitImages,
    schedule: Schedule,
    progress: Progress,
    partial: Path | None = None,
) -> Student:
    """Mimic the teacher's features with the whole student; the classifier is not touched (paper, section 3.1).

    All images are learned from, and judged by other views of them, so that a start that was fitted to the images themselves
    is not preferred for it; unless the schedule keeps the best weights, which takes images kept aside. Both networks are
    computed on the pair's device, and are back on the CPU afterwards.
    """
    began = time.monotonic()
    pair.student.to(pair.device).requires_grad_(True)
    pair.teacher.to(pair.device).requires_grad_(False)
    reached = _reaching(pair.student, pair.student_feature)
    learn, judge = images.split(schedule.seed)
    judged_on = _aside(judge)
    if not schedule.keep_best:
        learn, judge = images, other_views(images.some(images.enough, schedule.seed), schedule)
        varied = images.preprocessing.augment != "none" or schedule.mix
        judged_on = f"{'random views of ' if varied else ''}{len(judge)} images that were learned from"
    course = mimic(pair, reached, (learn, judge), schedule, progress, partial)
    pair.student.cpu()
    pair.teacher.cpu()
    kept = min(error for _, error in course.history) if schedule.keep_best else course.history[-1][1]
    worse = not kept <= course.history[0][1]
    if worse and schedule.keep_start:
        load_weights(pair.student, start.weights)
        kept = course.history[0][1]
        course.history.append((0, kept))
    return Student(
        dropped=start.dropped,
        method=_described(schedule, pair, course),
        mse_before=course.history[0][1],
        mse=kept,
        steps=course.step,
        seconds=time.monotonic() - began,
        judged_on=judged_on,
        notes=(*course.notes, _WORSE[schedule.keep_start]) if worse else course.notes,
        history=tuple(course.history),
        weights=weights_of(pair.student),
    )


def _aside(judge: FitImages) -> str:
    return f"{len(judge)} images kept aside"


def _reaching(student: fx.GraphModule, feature: str) -> list[torch.nn.Parameter]:
    """The parameters that the feature map depends on, of modules and those read by themselves: all but the classifier's."""
    nodes = order_of([named(student, feature)], set())
    of_modules = [p for n in nodes if n.op == "call_module" for p in student.get_submodule(str(n.target)).parameters()]
    by_name = dict(student.named_parameters(remove_duplicate=False))
    by_themselves = [by_name[str(n.target)] for n in nodes if n.op == "get_attr" and n.target in by_name]
    return list({id(parameter): parameter for parameter in (*of_modules, *by_themselves)}.values())


def _described(schedule: Schedule, pair: Pair, course: Course) -> str:
    norms = {
        "trained": "trained",
        "frozen": "frozen statistics",
        "re-estimated": "statistics re-estimated, then frozen",
    }
    parts = [
        f"feature mimicking, {schedule.steps} steps of {schedule.batch_size}",
        f"{'SGD' if schedule.optimiser == 'sgd' else 'AdamW'}, rate {schedule.learning_rate / SLOWER**course.retreats:g}",
        f"BatchNorm {norms[schedule.norms]}",
        f"{100 * schedule.mix:.0f}% of batches mixed" if schedule.mix else "",
        f"KL of the classes x{schedule.logits:g}" if schedule.logits else "",
        f"block exits x{schedule.exits:g}" if schedule.exits and pair.exits else "",
        f"moving average of the weights ({schedule.average:g})" if schedule.average else "",
        f"pulled to the teacher ({schedule.pull:g})" if schedule.pull else "",
        f"{str(schedule.dtype).removeprefix('torch.')} on {pair.device.type}",
        f"weights of step {course.best_step} kept (least error on images kept aside)" if schedule.keep_best else "",
    ]
    return ", ".join(part for part in parts if part)
