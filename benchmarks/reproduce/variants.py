"""The variants of the finetuning that `ablation.py` compares, and how each of them goes about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from tiny.subjects import Subject, load_subject
from torch import fx

from practise_deploy.compute import pick_precision
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.refit.recover import recover
from practise_deploy.run import Silent
from practise_deploy.terms import Block, Student
from practise_deploy.training.finetune import PAPER, TINY, drop_only, finetune
from practise_deploy.training.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to finetune. start: "refit" or "plain", of all blocks; progressive: the blocks go one after another instead."""

    schedule: Schedule = TINY
    start: str = "refit"
    progressive: bool = False


VARIANTS: dict[str, Variant] = {
    "paper": Variant(schedule=PAPER, start="plain"),
    "default": Variant(),
    "no finetuning": Variant(schedule=replace(TINY, steps=0)),
    "from the plain drop": Variant(start="plain"),
    "no mixing": Variant(schedule=replace(TINY, mix=0.0)),
    "half of the batches mixed": Variant(schedule=replace(TINY, mix=0.5)),
    "features alone": Variant(schedule=replace(TINY, hints=0.0)),
    "exits x1": Variant(schedule=replace(TINY, hints=1.0)),
    "exits x10": Variant(schedule=replace(TINY, hints=10.0)),
    "exits x30": Variant(schedule=replace(TINY, hints=30.0)),
    "no averaging": Variant(schedule=replace(TINY, ema_decay=0.0)),
    "norms trained": Variant(schedule=replace(TINY, norms="trained")),
    "SGD": Variant(schedule=replace(TINY, optimiser="sgd", learning_rate=0.02)),
    "half the rate": Variant(schedule=replace(TINY, learning_rate=TINY.learning_rate / 2)),
    "twice the rate": Variant(schedule=replace(TINY, learning_rate=TINY.learning_rate * 2)),
    "progressive": Variant(progressive=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all variants are given alike. dropped: in the order in which progressive dropping takes them."""

    network: str
    images: int
    seed: int
    dropped: tuple[str, ...]
    data: Path
    device: torch.device

    @property
    def subject(self) -> Subject:
        """The network and its images."""
        return load_subject(self.network, self.data)

    @property
    def calibration(self) -> CalibrationProblem:
        """The teacher and the tiny set of the seed."""
        judging = pick_precision(None, self.subject.network.input_shape[-1], torch.device("cpu"))
        return replace(self.subject.calibration(self.images, self.seed), comparison_dtype=judging)


def finetuned(task: Task, variant: Variant, schedule: Schedule) -> fx.GraphModule:
    """The network without the task's blocks, finetuned by a variant. schedule: the variant's, as this task takes it."""
    if variant.progressive:
        return _block_by_block(task, schedule)
    blocks = task.subject.named(task.dropped)
    start = refit_of(task) if variant.start == "refit" else drop_only(task.calibration, blocks)
    return _descended(task, start, schedule)


@lru_cache(maxsize=4)
def refit_of(task: Task) -> Student:
    """The closed-form refit of all blocks at once, which most variants start from."""
    return recover(task.calibration, task.subject.named(task.dropped), Silent())


def _block_by_block(task: Task, schedule: Schedule) -> fx.GraphModule:
    """Progressive dropping: a block goes, the rest is refitted, then mimics the original teacher; and so on with the next one.

    Every block has an equal part of the steps, and batches of its own.
    """
    student, gone = task.subject.teacher, list[Block]()
    for number, name in enumerate(task.dropped):
        (block,) = task.subject.named((name,))
        start = without_next(task.calibration, student, gone, block)
        gone.append(block)
        steps = schedule.steps // len(task.dropped)
        student = _descended(task, start, replace(schedule, steps=steps, seed=schedule.seed + 1000 * number))
    return student


def without_next(
    calibration: CalibrationProblem, student: fx.GraphModule, gone: Sequence[Block], block: Block
) -> Student:
    """The student so far without one more block, refitted in closed form to what it was with it.

    calibration: of the original teacher. gone: the blocks, as they are in the teacher, that the student is without.
    """
    here = replace(
        block, entry=feature_in(student, block.entry, gone)
    )  # an earlier drop may have put another in its place
    so_far = replace(calibration, teacher=student, feature=feature_in(student, calibration.feature, gone))
    found = recover(so_far, [here], Silent())
    return replace(found, dropped=tuple(each.name for each in (*gone, block)))


def _descended(task: Task, start: Student, schedule: Schedule) -> fx.GraphModule:
    """The student of these weights, finetuned against the original teacher."""
    subject = task.subject
    student = drop_blocks(subject.teacher, subject.named(start.dropped))
    load_weights(student, start.weights)
    if schedule.steps:
        pair = subject.pair(student, start, task.device)
        finetune(pair, start, task.calibration.images, schedule, Silent())
    return student.eval().requires_grad_(False)
