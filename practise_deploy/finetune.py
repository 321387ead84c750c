"""From a pruned network to a student: feature mimicking on the tiny set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

from practise_backends.terms import Progress
from practise_deploy.model.images import FitImages
from practise_deploy.model.mimic import Pair, Schedule, feature_in, mimic
from practise_deploy.model.surgery import drop_blocks, junctions, weights_of
from practise_deploy.model.values import named, order_of
from practise_deploy.terms import Block, Student


def drop_only(teacher: fx.GraphModule, feature: str, dropped: Sequence[Block], images: FitImages, seed: int) -> Student:
    """Drop the blocks and change nothing else: where the paper's finetuning starts."""
    _, judge = images.split(seed)
    student = drop_blocks(teacher, dropped)
    error = Pair(student, teacher, feature_in(student, feature, junctions(student, dropped)), feature).error(judge, 64)
    return Student(
        dropped=tuple(block.name for block in dropped), method="plain drop (the paper's start)", mse_before=error, mse=error,
        steps=0, seconds=0.0, notes=(), weights=weights_of(student),
    )  # fmt: skip


def finetune(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    start: Student,
    features: tuple[str, str],
    images: FitImages,
    schedule: Schedule,
    device: torch.device,
    progress: Progress,
    partial: Path | None = None,
) -> Student:
    """Mimic the teacher's features with the whole student; the classifier is not touched (paper, section 3.1).

    features: the names of the feature map in the student and in the teacher.
    """
    began = time.monotonic()
    learn, judge = images.split(schedule.seed)
    pair = Pair(student.to(device), teacher.to(device), *features, device)
    student.requires_grad_(True)
    teacher.requires_grad_(False)
    reached = _reaching(student, features[0])
    course = mimic(pair, reached, learn, judge, schedule, progress, partial)
    student.cpu()
    teacher.cpu()
    kept = min(e for _, e in course.history) if schedule.keep_best else course.history[-1][1]
    return Student(
        dropped=start.dropped,
        method=_described(schedule, course.best_step),
        mse_before=course.history[0][1],
        mse=kept,
        steps=course.step,
        seconds=time.monotonic() - began,
        notes=(),
        history=tuple(course.history),
        weights=weights_of(student),
    )


def _reaching(student: fx.GraphModule, feature: str) -> list[torch.nn.Parameter]:
    """The parameters that the feature map depends on: all but the classifier's."""
    modules = [
        student.get_submodule(str(n.target))
        for n in order_of([named(student, feature)], set())
        if n.op == "call_module"
    ]
    unique = {id(p): p for module in modules for p in module.parameters()}
    return list(unique.values())


def _described(schedule: Schedule, best_step: int) -> str:
    kept = f", weights of step {best_step} kept (least error on images kept aside)" if schedule.keep_best else ""
    norms = "trained" if schedule.train_norms else "frozen statistics"
    precision = str(schedule.dtype).removeprefix("torch.")
    return (
        f"feature mimicking, {schedule.steps} steps of {schedule.batch_size}, rate {schedule.learning_rate:g}, "
        f"BatchNorm {norms}, {precision}{kept}"
    )
