"""Feature mimicking: descent on the squared difference to the teacher's pre-pooling features, and to what else the schedule names.

No labels (paper, section 3.1).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import fx, nn

from practise_backends.terms import Progress
from practise_deploy.compute import autocast, drawing
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.surgery import load_weights, weights_of
from practise_deploy.run import UNREADABLE
from practise_deploy.training.batches import Draw
from practise_deploy.training.checkpoint import Course, Descent, moving_average
from practise_deploy.training.distillation import Pair
from practise_deploy.training.schedule import RETREATS, SLOWER, Schedule

_SAVE_EVERY_S = 20.0
_FIRST_STEPS = 8
"""Fewer steps than these do not tell whether a rate is too high: an adaptive optimiser begins with a jolt."""


def mimic(
    pair: Pair,
    parameters: Sequence[nn.Parameter],
    images: tuple[FitImages, FitImages],
    schedule: Schedule,
    progress: Progress,
    partial: Path | None = None,
) -> Course:
    """Descend; leaves the student with its last weights, their moving average, or with `keep_best` those of least error.

    images: those to learn from, and those to judge with. partial: a file from which an interrupted descent goes on, and into which this one is saved.
    """
    learn, judge = images
    start = weights_of(pair.student) if schedule.retreat else {}
    descent = _descent(pair, parameters, schedule)
    anchors = _anchors(pair, parameters) if schedule.pull else []
    course = _set_out(pair, descent, images, schedule, partial)
    draw = Draw(learn, schedule)
    every = max(1, schedule.steps // 10)
    saved = time.monotonic()
    while course.step < schedule.steps:
        _step(pair, descent.optimiser, draw(course.step).to(pair.device), schedule, course)
        _pull(anchors, schedule.pull * schedule.rate(course.step, course.retreats))
        course.step += 1
        if descent.average is not None:
            descent.average.update_parameters(pair.student)
        if course.step % every == 0 or course.step == schedule.steps:
            _judge(pair, descent, judge, schedule, course)
        if course.step == every * math.ceil(_FIRST_STEPS / every) and _does_harm(course, schedule):
            load_weights(pair.student, start)
            descent, course = _descent(pair, parameters, schedule), _retreated(course, schedule)
        progress.advance(
            course.step, schedule.steps, f"error {course.history[-1][1]:.4g} at step {course.history[-1][0]}"
        )
        if partial is not None and time.monotonic() - saved > _SAVE_EVERY_S:
            descent.save(course, partial)
            saved = time.monotonic()
    if schedule.keep_best:
        load_weights(pair.student, course.best)
    elif descent.average is not None:
        pair.student.load_state_dict(descent.judged.state_dict())
    pair.student.eval()
    return course


def _descent(pair: Pair, parameters: Sequence[nn.Parameter], schedule: Schedule) -> Descent:
    """The descent before its first step."""
    average = moving_average(pair.student, schedule.average) if schedule.average else None
    return Descent(pair.student, parameters, schedule.optimise(list(parameters)), average)


def _does_harm(course: Course, schedule: Schedule) -> bool:
    """Whether the first steps lead so far away that a lower rate is worth a new beginning."""
    (_, before), (_, after) = course.history[0], course.history[-1]
    return bool(schedule.retreat) and course.retreats < RETREATS and not after <= schedule.retreat * before


def _retreated(course: Course, schedule: Schedule) -> Course:
    """Back at the start, with a lower rate."""
    (_, before), (_, after) = course.history[0], course.history[-1]
    told = (
        f"at a rate of {schedule.learning_rate / SLOWER**course.retreats:g} the error rose from {before:.4g} to {after:.4g} in "
        f"{course.step} steps: begun anew with a quarter of the rate"
    )
    return Course(history=course.history[:1], notes=(*course.notes, told), retreats=course.retreats + 1)


def _set_out(
    pair: Pair, descent: Descent, images: tuple[FitImages, FitImages], schedule: Schedule, partial: Path | None
) -> Course:
    """Where an interrupted descent had come to, or the start, judged."""
    course = Course()
    if partial is not None and partial.is_file():
        try:
            return descent.resume(partial)
        except UNREADABLE:
            course.notes = ("what the interrupted finetuning had kept was damaged: it was begun anew",)
    if schedule.norms == "re-estimated":
        re_estimate(pair.student, images[0], pair.device)
    _judge(pair, descent, images[1], schedule, course)
    return course


def _step(pair: Pair, optimiser: torch.optim.Optimizer, x: torch.Tensor, schedule: Schedule, course: Course) -> None:
    pair.student.train(schedule.norms == "trained")
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate(course.step, course.retreats)
    with drawing(pair.device, schedule.seed_of(course.step)), autocast(pair.device, schedule.dtype):
        loss = pair.loss(x, schedule)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _anchors(pair: Pair, parameters: Sequence[nn.Parameter]) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """The parameters that the teacher has too, in the same shape, each with the teacher's: a bias that a refit added has none."""
    learning = {id(parameter) for parameter in parameters}
    anchors = {name: parameter.detach() for name, parameter in pair.teacher.named_parameters(remove_duplicate=False)}
    return [
        (parameter, anchors[name])
        for name, parameter in pair.student.named_parameters()
        if id(parameter) in learning and name in anchors and anchors[name].shape == parameter.shape
    ]


def _pull(anchors: Sequence[tuple[nn.Parameter, torch.Tensor]], share: float) -> None:
    with torch.no_grad():
        for parameter, anchor in anchors:
            parameter.lerp_(anchor, share)


def _judge(pair: Pair, descent: Descent, judge: FitImages, schedule: Schedule, course: Course) -> None:
    network = descent.judged
    error = replace(pair, student=network).error(judge, schedule.batch_size)
    may_retreat = schedule.retreat and course.retreats < RETREATS
    if not math.isfinite(error) and not (schedule.keep_best or schedule.keep_start or may_retreat):
        raise InputError(
            f"the descent diverged: after {course.step} steps the student's features are no numbers",
            remedy=f"try a rate below {schedule.learning_rate:g} with --learning-rate",
        )
    if not course.history or error < min(e for _, e in course.history):
        course.best_step = course.step
        course.best = weights_of(network) if schedule.keep_best else {}
    course.history.append((course.step, error))


def re_estimate(student: fx.GraphModule, images: FitImages, device: torch.device) -> None:
    """BatchNorm statistics taken anew, every norm on what the ones before it give: means over batches of one size."""
    norms = [module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    count = math.ceil(len(images) / 64)
    student.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative
            norm.train()
        with torch.no_grad():
            for part in torch.arange(len(images)).tensor_split(count):
                student(images.batch(slice(int(part[0]), int(part[-1]) + 1)).to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        student.eval()
