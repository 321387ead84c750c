"""Which blocks the baselines drop, from the latency table alone and what each of them looks at. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from practise_backends.terms import Interval, LatencyTable
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.planning.choose import predicted_percent
from practise_deploy.run import Silent
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.distillation import distillation_of
from practise_deploy.training.schedule import Schedule

from .grid import MET_AT
from .subjects import Subject


def first_that_meet(order: Sequence[str], table: LatencyTable, reduction: float) -> tuple[str, ...]:
    """The fewest blocks, in this order, whose predicted reduction meets the target.

    Raises: InputError where all together do not.
    """
    for count in range(1, len(order) + 1):
        if meets(predicted_percent(order[:count], table), reduction):
            return tuple(order[:count])
    raise InputError(
        f"dropping all {len(order)} blocks is not predicted to save {reduction}%", remedy="ask for a smaller reduction"
    )


def meets(predicted: Interval, reduction: float) -> bool:
    """Whether a prediction counts as enough."""
    return bool(getattr(predicted, MET_AT) >= reduction)


def at_random(table: LatencyTable, images: int, seed: int) -> tuple[str, ...]:
    """The blocks in an order that the seed draws."""
    names = _told_apart(table)
    return tuple(names[place] for place in np.random.default_rng([seed, images]).permutation(len(names)))


def by_score(errors: dict[str, float], table: LatencyTable) -> tuple[str, ...]:
    """The paper's order: lowest R(B) / tau(B) first (PRACTISE, section 3.3)."""
    saving = {each.block: each.saving_ms.estimate for each in table.savings}
    return tuple(sorted(_told_apart(table), key=lambda name: errors[name] / saving[name]))


def by_error(errors: dict[str, float], table: LatencyTable) -> tuple[str, ...]:
    """Lowest error first, whatever a block saves."""
    return tuple(sorted(_told_apart(table), key=errors.__getitem__))


def _told_apart(table: LatencyTable) -> list[str]:
    return [saving.block for saving in table.savings if saving.distinguishable]


def plain_errors(subject: Subject, images: FitImages) -> dict[str, float]:
    """Every block's error of the pre-pooling features where it is dropped and nothing else is done."""
    teacher, found = subject.teacher.cpu(), {}
    for block in subject.candidates:
        student = drop_blocks(teacher, [block], share_weights=True)
        found[block.name] = distillation_of(student, teacher, subject.feature, [block]).error(images, 64)
    return found


def adaptor_errors(subject: Subject, images: FitImages, schedule: Schedule) -> dict[str, dict[str, float]]:
    """Every block's R by the paper's SGD on adaptors, as published; the product computes it on the CPU."""
    torch.manual_seed(schedule.seed)
    found = measure_by_adaptors(subject.calibration(images, schedule.seed), subject.candidates, schedule, Silent())
    return {each.block: {"mse": each.mse.estimate, "mse_dropped": each.mse_dropped} for each in found.of}
