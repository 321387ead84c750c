"""From a pruned network to a student: feature mimicking on the tiny set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from practise_backends.interfaces import Progress
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, load_weights, weights_of
from practise_deploy.settings import RecoveryRecipe
from practise_deploy.terms import Block, Student
from practise_deploy.training.batches import augmented_views
from practise_deploy.training.checkpoint import TrainingLog
from practise_deploy.training.distillation import Distillation, distillation_of, trained_parameters
from practise_deploy.training.mimic import mimic
from practise_deploy.training.schedule import Schedule

PAPER = Schedule(steps=2000, norms="trained")
TINY = Schedule(
    steps=300,
    optimiser="adamw",
    learning_rate=2e-3,
    cosine=True,
    norms="frozen",
    mix=1.0,
    hints=3.0,
    scaled=True,
    ema_decay=0.99,
    keep_start=True,
    restart_ratio=1.25,
    early_end=True,
    behind_the_cut=True,
)
"""The default; benchmarks/reproduce/ablation.py changes one part of it at a time, docs/tiny-sets.md has the table."""

_WORSE_NOTES = {
    True: "finetuning ended with more error than it began with: the weights before it are kept",
    False: "finetuning ended with more error than it began with, and recipe paper keeps its end all the same",
}
"""By whether the schedule keeps the start."""


def schedule_for(recipe: RecoveryRecipe, side: int, dtype: torch.dtype) -> Schedule:
    """The paper's own schedule, or the default for tiny sets. side: of images, in pixels; 0 of texts, whose mixtures do not run out."""
    schedule = PAPER if recipe.recipe == "paper" else TINY if side <= 64 else replace(TINY, steps=100)
    return replace(
        schedule,
        steps=schedule.steps if recipe.iterations is None else recipe.iterations,
        early_end=schedule.early_end and recipe.iterations is None,
        learning_rate=recipe.learning_rate or schedule.learning_rate,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        dtype=dtype,
    )


def drop_only(problem: CalibrationProblem, dropped: Sequence[Block]) -> Student:
    """Drop the blocks and change nothing else, as the paper does before finetuning."""
    _, validation = problem.images.split(problem.seed)
    student = drop_blocks(problem.teacher, dropped)
    error = distillation_of(student, problem.teacher, problem.feature, dropped, device=problem.device).error(
        validation, 64
    )
    return Student(
        dropped=tuple(block.name for block in dropped), method="plain drop (the paper's start)", mse_before=error, mse=error,
        steps=0, seconds=0.0, judged_on=_validation_note(validation), notes=(), weights=weights_of(student),
    )  # fmt: skip


def finetune(
    distillation: Distillation,
    start: Student,
    images: FitImages,
    schedule: Schedule,
    progress: Progress,
    partial: Path | None = None,
) -> Student:
    """Mimic the teacher's features with the whole student; the classifier is not touched (paper, section 3.1).

    The student is fitted to all images and validated on augmented views of them, so that a start that was fitted to the images
    themselves has no advantage. Both networks are moved to the distillation's device, and back to the CPU afterwards.
    """
    began = time.monotonic()
    distillation.student.to(distillation.device).requires_grad_(True)
    distillation.teacher.to(distillation.device).requires_grad_(False)
    shared = distillation.shared if schedule.behind_the_cut else ()
    parameters = trained_parameters(distillation.student, distillation.student_feature, shared)
    validation = augmented_views(images.subsample(images.validation_size, schedule.seed), schedule)
    is_augmented = images.preprocessing.augment != "none" or schedule.mix
    validated_on = f"{'random views of ' if is_augmented else ''}{len(validation)} images that were learned from"
    log = mimic(distillation, parameters, (images, validation), schedule, progress, partial)
    distillation.student.cpu()
    distillation.teacher.cpu()
    errors = [error for _, error in log.history]
    final = errors[-1]
    worse = not final <= errors[0]
    if worse and schedule.keep_start:
        load_weights(distillation.student, start.weights)
        final = errors[0]
        log.history.append((0, final))
    return Student(
        dropped=start.dropped,
        method=_method(schedule, distillation, log),
        mse_before=errors[0],
        mse=final,
        steps=log.step,
        seconds=time.monotonic() - began,
        judged_on=validated_on,
        notes=(*log.notes, _WORSE_NOTES[schedule.keep_start]) if worse else log.notes,
        history=tuple(log.history),
        weights=weights_of(distillation.student),
    )


def _validation_note(validation: FitImages) -> str:
    return f"{len(validation)} validation images"


def _method(schedule: Schedule, distillation: Distillation, log: TrainingLog) -> str:
    norms = {"trained": "trained", "frozen": "frozen statistics"}
    parts = [
        f"feature mimicking, {log.step} steps of {schedule.batch_size}",
        f"{'SGD' if schedule.optimiser == 'sgd' else 'AdamW'}, rate {schedule.rate_limit(log.restarts):g}",
        f"BatchNorm {norms[schedule.norms]}",
        "layers before the first change kept" if schedule.behind_the_cut and distillation.shared else "",
        f"{100 * schedule.mix:.0f}% of batches mixed" if schedule.mix else "",
        f"hints at block outputs x{schedule.hints:g}" if schedule.hints and distillation.hints else "",
        f"moving average of the weights ({schedule.ema_decay:g})" if schedule.ema_decay else "",
        f"{str(schedule.dtype).removeprefix('torch.')} on {distillation.device.type}",
    ]
    return ", ".join(part for part in parts if part)
