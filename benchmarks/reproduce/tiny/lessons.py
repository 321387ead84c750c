"""Recovering a pruned network by SGD: feature mimicking, knowledge distillation, or the true labels.

One loop for all three, with the same draws of images for one seed, so that only the loss and its learning rate
differ. All images of the tiny set are learnt from; BatchNorm is in train mode, as published for each.
Sources: mimicking: PRACTISE (Wang and Wu, CVPR 2023) and MiR (Wang et al., ECCV 2022). Distillation: Hinton et al. (2015).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from practise_deploy.compute import autocast
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.training.batches import BatchSampler
from practise_deploy.training.schedule import RATE_DIVISOR, Schedule

TEMPERATURE = 4.0
SOFT_SHARE = 0.9
AWAY, MOST_RETREATS = 1.25, 5
RATES = {"mimic": 0.02}
"""Learning rates as published; those of the other losses are `pilot`'s best (`rate_of`)."""


@dataclass(frozen=True, slots=True)
class Pupil:
    """A pruned network beside its teacher; `feature` is its name for the teacher's pre-pooling feature map."""

    student: fx.GraphModule
    feature: str
    teacher: fx.GraphModule
    teacher_feature: str
    device: torch.device


Loss = Callable[[Pupil, Tensor, Tensor], Tensor]


def mimic_loss(pupil: Pupil, x: Tensor, labels: Tensor) -> Tensor:
    """Squared difference to the teacher's pre-pooling features; the labels are not looked at."""
    with torch.no_grad():
        (wanted,) = forward(pupil.teacher, x, [node_by_name(pupil.teacher, pupil.teacher_feature)])
    (found,) = forward(pupil.student, x, [node_by_name(pupil.student, pupil.feature)])
    return F.mse_loss(found.float(), wanted.float())


def label_loss(pupil: Pupil, x: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy with the true labels."""
    return F.cross_entropy(pupil.student(x).float(), labels)


def distillation_loss(pupil: Pupil, x: Tensor, labels: Tensor) -> Tensor:
    """Mostly the teacher's softened answers, a little of the true labels."""
    with torch.no_grad():
        wanted = pupil.teacher(x).float()
    return distillation(pupil.student(x).float(), wanted, labels)


def distillation(found: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """0.9 T^2 KL(teacher || student) at T = 4, and 0.1 cross entropy. Shapes: logits [n, classes], labels [n].

    Source: Hinton et al. (2015), section 2.
    """
    soft = F.kl_div(
        F.log_softmax(found / TEMPERATURE, 1), F.log_softmax(wanted / TEMPERATURE, 1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    return SOFT_SHARE * TEMPERATURE**2 * soft + (1 - SOFT_SHARE) * F.cross_entropy(found, labels)


LOSSES: dict[str, Loss] = {"mimic": mimic_loss, "labels": label_loss, "kd": distillation_loss}


def teach(pupil: Pupil, loss: str, images: FitImages, schedule: Schedule) -> tuple[float, float]:
    """Descend on the pupil's weights; leaves it in eval mode and gives the mean loss of the last tenth of the steps, and the rate.

    A rate whose first tenth of the steps leads away is quartered and the descent begun anew, as in the product's own default. The published
    one is for networks with BatchNorm: one that has it folded takes, of that rate and its quarters, the one whose first tenth leaves least.
    """
    start = {name: value.clone() for name, value in pupil.student.state_dict().items()}
    rates = [schedule.learning_rate / RATE_DIVISOR**quarters for quarters in range(MOST_RETREATS + 1)]

    def descended(rate: float, steps: int, *, may_restart: bool = False) -> float | None:
        pupil.student.load_state_dict(start)
        slower = replace(schedule, learning_rate=rate)
        return _descended(pupil, loss, images, slower, steps, may_restart=may_restart)

    if not any(isinstance(module, nn.BatchNorm2d) for module in pupil.student.modules()):
        tried = {rate: descended(rate, _early(schedule)) for rate in rates}
        rates = [min(rates, key=lambda rate: _known(tried[rate]))]
    for rate in rates[:-1]:
        if (last := descended(rate, schedule.steps, may_restart=True)) is not None:
            return last, rate
    return _known(descended(rates[-1], schedule.steps)), rates[-1]


def _known(loss: float | None) -> float:
    assert loss is not None
    return loss if math.isfinite(loss) else math.inf


def _early(schedule: Schedule) -> int:
    """How many steps tell whether a rate leads away."""
    return max(8, schedule.steps // 10)


def _descended(
    pupil: Pupil, loss: str, images: FitImages, schedule: Schedule, steps: int, *, may_restart: bool
) -> float | None:
    """The mean loss of the last tenth of so many of the schedule's steps, of 4 at least; None where the first tenth led away."""
    pupil.student.to(pupil.device).requires_grad_(True)
    pupil.teacher.to(pupil.device).requires_grad_(False).eval()
    optimiser = torch.optim.SGD(
        pupil.student.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    draw, losses, early = BatchSampler(images, schedule), list[float](), _early(schedule)
    pupil.student.train(schedule.norms == "trained")
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        x = draw(step).to(pupil.device)
        with autocast(pupil.device, schedule.dtype):
            value = LOSSES[loss](pupil, x, _labels(images, draw, step).to(pupil.device))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
        if may_restart and step + 1 == early and not fmean(losses[-early // 2 :]) <= AWAY * losses[0]:
            return None
    pupil.student.eval()
    return fmean(losses[-max(4, steps // 10) :]) if losses else 0.0


def pilot_path(results: Path) -> Path:
    """Where the trial of the learning rates is kept."""
    return results / "pilot.json"


def rate_of(loss: str, images: int, results: Path) -> float:
    """The learning rate: as published, or the pilot's best for the number of images that is nearest by ratio.

    Raises: InputError where there is no pilot.
    """
    if loss in RATES:
        return RATES[loss]
    path = pilot_path(results)
    if not path.exists():
        raise InputError(f"{path}: no such file, and '{loss}' takes its rate from it", remedy="run tiny_sets.py pilot")
    trials = json.loads(path.read_text(encoding="utf-8"))["images"]
    nearest = min(trials, key=lambda count: abs(math.log(int(count) / images)))
    return float(trials[nearest]["best"][loss])


def _labels(images: FitImages, draw: BatchSampler, step: int) -> Tensor:
    """The labels of a step's batch; zeros where the images have none."""
    which = draw.which(step)
    return torch.zeros(len(which), dtype=torch.int64) if images.labels is None else images.labels[which]
