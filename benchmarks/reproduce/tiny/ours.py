"""The product's default, in one place: everything else in the grid knows nothing of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from practise_backends.terms import Interval, LatencyTable
from practise_deploy.compute import exact
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, load_weights
from practise_deploy.planning.sets import Verified, choose_set
from practise_deploy.refit.recover import recover, verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.run import Silent
from practise_deploy.settings import Settings
from practise_deploy.terms import Budget, Plan
from practise_deploy.training.finetune import finetune, schedule_for

from .grid import Unit
from .subjects import Subject


def recovered_by_default(
    unit: Unit, subject: Subject, images: FitImages, table: LatencyTable, where: tuple[torch.device, torch.dtype]
) -> tuple[fx.GraphModule, tuple[str, ...], str]:
    """The student that `practise-deploy build` would make with the unit's budget, images, seed and steps.

    Gives it, the blocks that went, and how it was finetuned, as `build` says it: defaults change, and units of one table
    should be of the same. where: the device and the precision of the finetuning steps.
    """
    device, dtype = where
    judging = dtype if subject.network.input_shape[-1] > 64 else torch.float32
    calibration = replace(subject.calibration(images, unit.seed), comparison_dtype=judging)
    with exact(unit.seed):
        plan = chosen_by_default(calibration, subject, table, unit.reduction)
        dropped = subject.named(plan.dropped)
        start = recover(calibration, dropped, Silent())
        student = drop_blocks(calibration.teacher, dropped)
        load_weights(student, start.weights)
        asked = Settings(recipe="refit", iterations=unit.steps, seed=unit.seed)
        schedule = schedule_for(asked, subject.network.input_shape[-1], dtype)
        done = finetune(subject.pair(student, start, device), start, images, schedule, Silent())
    return student.eval(), plan.dropped, done.method


def chosen_by_default(calibration: CalibrationProblem, subject: Subject, table: LatencyTable, reduction: float) -> Plan:
    """The set of blocks that `practise-deploy build` would choose; nothing is measured."""

    def verify(names: tuple[str, ...]) -> Verified:
        return verified_without(calibration, subject.named(names), Silent())

    found = measure_recoverability(calibration, subject.candidates, Silent())
    return choose_set(sure(table), found, Budget(reduce_percent=float(reduction)), None, verify)


def sure(table: LatencyTable) -> LatencyTable:
    """The table with every saving known exactly: in this grid a budget counts as met by the estimate, for all methods."""

    def exactly(found: Interval) -> Interval:
        return replace(found, low=found.estimate, high=found.estimate)

    savings = tuple(
        replace(each, saving_ms=exactly(each.saving_ms), reduction_percent=exactly(each.reduction_percent))
        for each in table.savings
    )
    return replace(table, savings=savings, additivity=exactly(table.additivity) if table.additivity else None)
