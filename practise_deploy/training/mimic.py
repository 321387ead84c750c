"""Feature mimicking: training on the squared difference to the teacher's pre-pooling features, and the schedule's further terms.

No labels (paper, section 3.1).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from practise_backends.interfaces import Progress
from practise_deploy.compute import autocast, seeded
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import load_weights, weights_of
from practise_deploy.run import UNREADABLE
from practise_deploy.training.batches import BatchSampler
from practise_deploy.training.checkpoint import TrainingLog, TrainingState, moving_average
from practise_deploy.training.distillation import Distillation
from practise_deploy.training.schedule import MAX_RESTARTS, Schedule

_SAVE_EVERY_S = 20.0
_FIRST_STEPS = 8
"""Fewer steps do not show whether a rate is too high: an adaptive optimiser's first steps are large."""


def mimic(
    distillation: Distillation,
    parameters: Sequence[nn.Parameter],
    images: tuple[FitImages, FitImages],
    schedule: Schedule,
    progress: Progress,
    partial: Path | None = None,
) -> TrainingLog:
    """Train the student; leaves it with its last weights or their moving average.

    images: to fit, and to validate. partial: the checkpoint file, from which an interrupted run resumes.
    """
    fit, validation = images
    start_weights = weights_of(distillation.student) if schedule.restart_ratio else {}
    state = _new_state(distillation, parameters, schedule)
    log = _start(distillation, state, validation, schedule, partial)
    sampler = BatchSampler(fit, schedule)
    first, fifth, judged = _steps_to_judge(schedule.steps)
    saved_at = time.monotonic()
    while log.step < schedule.steps:
        _step(distillation, state.optimiser, sampler(log.step).to(distillation.device), schedule, log)
        log.step += 1
        if state.average is not None:
            state.average.update_parameters(distillation.student)
        if log.step in judged:
            _validate(distillation, state, validation, schedule, log)
        if log.step == first and _diverges(log, schedule):
            load_weights(distillation.student, start_weights)
            state, log = _new_state(distillation, parameters, schedule), _restarted_log(log, schedule)
        elif log.step == fifth and _ends_early(log, schedule):
            break
        progress.advance(log.step, schedule.steps, f"error {log.history[-1][1]:.4g} at step {log.history[-1][0]}")
        if partial is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
            state.save(log, partial)
            saved_at = time.monotonic()
    if state.average is not None:
        distillation.student.load_state_dict(state.evaluated.state_dict())
    distillation.student.eval()
    return log


def _steps_to_judge(steps: int) -> tuple[int, int, set[int]]:
    """The step that shows whether the rate is too high, a tenth of all; the first fifth; and all that are judged: these, every further fifth, and the last one."""
    tenth, fifth = max(1, steps // 10), max(1, steps // 5)
    first = tenth * math.ceil(_FIRST_STEPS / tenth)
    return first, fifth, {first, *range(fifth, steps + 1, fifth), steps}


def _new_state(distillation: Distillation, parameters: Sequence[nn.Parameter], schedule: Schedule) -> TrainingState:
    """The state before the first step."""
    average = moving_average(distillation.student, schedule.ema_decay) if schedule.ema_decay else None
    return TrainingState(distillation.student, parameters, schedule.optimise(list(parameters)), average)


def _diverges(log: TrainingLog, schedule: Schedule) -> bool:
    """Whether the first steps raise the error so much that training restarts at a lower rate."""
    (_, before), (_, after) = log.history[0], log.history[-1]
    return bool(schedule.restart_ratio) and log.restarts < MAX_RESTARTS and not after <= schedule.restart_ratio * before


def _ends_early(log: TrainingLog, schedule: Schedule) -> bool:
    """Whether the first fifth of the steps has not lowered the error, so that the others are left out; a note says so."""
    (_, before), (_, after) = log.history[0], log.history[-1]
    ends = schedule.early_end and log.step < schedule.steps and not after < before
    if ends:
        log.notes = (
            *log.notes,
            f"finetuning ended after {log.step} of {schedule.steps} steps: they had not lowered the error ({before:.4g} before, {after:.4g} then)",
        )
    return ends


def _restarted_log(log: TrainingLog, schedule: Schedule) -> TrainingLog:
    """The log of a restart at a quarter of the rate; one note tells of all of them."""
    (_, before), (_, after) = log.history[0], log.history[-1]
    rate, others = schedule.rate_limit(log.restarts), log.notes[:-1] if log.restarts else log.notes
    note = (
        f"the rate was lowered from {schedule.rate_limit():g} to {schedule.rate_limit(log.restarts + 1):g}: at {rate:g} the error rose "
        f"from {before:.4g} to {after:.4g} in {log.step} steps"
    )
    return TrainingLog(history=log.history[:1], notes=(*others, note), restarts=log.restarts + 1)


def _start(
    distillation: Distillation,
    state: TrainingState,
    validation: FitImages,
    schedule: Schedule,
    partial: Path | None,
) -> TrainingLog:
    """The log of an interrupted run, with its state restored, or a new one with the start validated."""
    log = TrainingLog()
    if partial is not None and partial.is_file():
        try:
            return state.resume(partial)
        except UNREADABLE:
            log.notes = ("the checkpoint of the interrupted finetuning was damaged: training restarted",)
    _validate(distillation, state, validation, schedule, log)
    return log


def _step(
    distillation: Distillation, optimiser: torch.optim.Optimizer, x: torch.Tensor, schedule: Schedule, log: TrainingLog
) -> None:
    distillation.student.train(schedule.norms == "trained")
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate(log.step, log.restarts)
    with seeded(distillation.device, schedule.seed_of(log.step)), autocast(distillation.device, schedule.dtype):
        loss = distillation.loss(x, schedule)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _validate(
    distillation: Distillation, state: TrainingState, images: FitImages, schedule: Schedule, log: TrainingLog
) -> None:
    error = replace(distillation, student=state.evaluated).error(images, schedule.batch_size)
    may_restart = schedule.restart_ratio and log.restarts < MAX_RESTARTS
    if not math.isfinite(error) and not (schedule.keep_start or may_restart):
        raise InputError(
            f"the descent diverged: after {log.step} steps the student's features are no numbers",
            remedy=f"try a rate below {schedule.learning_rate:g} with --learning-rate",
        )
    log.history.append((log.step, error))
