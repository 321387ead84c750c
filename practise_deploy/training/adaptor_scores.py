"""The paper's recoverability (section 3.2): adaptors around every block's cut, trained by SGD, then absorbed and judged.

The published code trains block after block. Here all blocks take each step together: they see the same images, so one pass of
the teacher serves them all, and a student is computed from the first adaptor on; what comes before it is its teacher's. The
scores are the same, rounding aside.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx
from torch.nn.functional import mse_loss

from practise_backends.terms import Progress
from practise_deploy.compute import autocast
from practise_deploy.images.calibration import Lesson
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.activations import batches, compute, downstream, forward, named, order_of
from practise_deploy.network.execution import Env
from practise_deploy.network.surgery import drop_blocks, feature_in
from practise_deploy.refit.criterion import Ends, errors_of, mean_interval, not_finite
from practise_deploy.terms import Block, Recoverabilities, Recoverability
from practise_deploy.training.adaptors import Adaptor, absorb_adaptors, insert_adaptors
from practise_deploy.training.batches import Draw
from practise_deploy.training.schedule import Schedule

_MOST_JUDGED = 1000
Errors = npt.NDArray[np.float64]


def measure_by_adaptors(
    lesson: Lesson, blocks: Sequence[Block], schedule: Schedule, progress: Progress
) -> Recoverabilities:
    """R of every block by the paper's SGD on adaptors alone, BatchNorm in eval mode.

    As published, R is judged on the images that the adaptors learned from (at most 1000 of them), seen plainly.
    """
    learn, judge = lesson.images, lesson.images.some(_MOST_JUDGED, lesson.seed)
    teacher = copy.deepcopy(lesson.teacher).requires_grad_(False).eval()
    trials = [_Trial.of(teacher, lesson.feature, block, schedule) for block in blocks]
    _train(teacher, lesson.feature, [trial for trial in trials if trial.adaptors], learn, schedule, progress)
    bench = _Judge.of(lesson, judge)
    found = [_scored(trial, lesson, bench, schedule, len(learn)) for trial in trials]
    return Recoverabilities(of=tuple(found))


@dataclass(frozen=True, slots=True)
class _Trial:
    """The network without one block, and the adaptors around the cut that are trained.

    way: what is computed of the student, from the teacher's values `known` to its own `feature`.
    """

    block: Block
    student: fx.GraphModule
    feature: str
    adaptors: tuple[Adaptor, ...]
    way: tuple[fx.Node, ...]
    known: tuple[str, ...]
    optimiser: torch.optim.Optimizer | None

    @classmethod
    def of(cls, teacher: fx.GraphModule, feature: str, block: Block, schedule: Schedule) -> _Trial:
        """A trial whose student uses the teacher's own modules."""
        student = drop_blocks(teacher, [block], share_weights=True)
        own = feature_in(student, feature, [block])
        adaptors = insert_adaptors(student, block.entry)
        changed = downstream(named(student, block.entry)) - {block.entry}
        changed = changed.union(*(downstream(named(student, adaptor.node)) for adaptor in adaptors))
        way = [node for node in order_of([named(student, own)], ()) if node.name in changed]
        known = {value.name: None for node in way for value in node.all_input_nodes if value.name not in changed}
        trained = [_weight_of(student, adaptor) for adaptor in adaptors]
        optimiser = schedule.optimise(trained) if trained else None
        return cls(block, student, own, adaptors, tuple(way), tuple(known), optimiser)

    def step(self, values: Env, wanted: Tensor, rate: float, precision: tuple[torch.device, torch.dtype]) -> None:
        """One step of SGD on the adaptors. values, wanted: the teacher's."""
        assert self.optimiser is not None
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(*precision):
            env = {name: values[name] for name in self.known}
            found = compute(self.student, self.way, env, frozenset([self.feature]))[self.feature]
            loss = mse_loss(found.float(), wanted.float())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def absorbed(self, teacher: fx.GraphModule) -> fx.GraphModule:
        """A network of its own without the block, the trained adaptors in its convolutions."""
        student = drop_blocks(teacher, [self.block]).requires_grad_(False)
        adaptors = insert_adaptors(student, self.block.entry)
        with torch.no_grad():
            for mine, trained in zip(adaptors, self.adaptors, strict=True):
                _weight_of(student, mine).copy_(_weight_of(self.student, trained))
        absorb_adaptors(student, adaptors)
        return student


def _weight_of(student: fx.GraphModule, adaptor: Adaptor) -> torch.nn.Parameter:
    return student.get_parameter(f"{named(student, adaptor.node).target}.weight")


def _train(
    teacher: fx.GraphModule,
    feature: str,
    trials: Sequence[_Trial],
    learn: FitImages,
    schedule: Schedule,
    progress: Progress,
) -> None:
    """All trials take every step together, on the same images."""
    draw, device = Draw(learn, schedule), learn.pixels.device
    names = list(dict.fromkeys([feature, *(name for trial in trials for name in trial.known)]))
    nodes = [named(teacher, name) for name in names]
    for step in range(schedule.steps if trials else 0):
        with torch.no_grad(), autocast(device, schedule.dtype):
            values = dict(zip(names, forward(teacher, draw(step).to(device), nodes), strict=True))
        for number, trial in enumerate(trials, 1):
            trial.step(values, values[feature], schedule.rate(step), (device, schedule.dtype))
            progress.advance(
                step * len(trials) + number, schedule.steps * len(trials), f"step {step + 1}, {trial.block.name}"
            )


@dataclass(frozen=True, slots=True)
class _Judge:
    """Images, the teacher's features of them by batch, and the variance of those."""

    images: FitImages
    size: int
    wanted: tuple[Tensor, ...]
    variance: float

    @classmethod
    def of(cls, lesson: Lesson, images: FitImages) -> _Judge:
        """The teacher looks at them once."""
        value, size = named(lesson.teacher, lesson.feature), lesson.batch_size
        with torch.no_grad():
            parts = [forward(lesson.teacher, images.batch(part), [value])[0] for part in batches(len(images), size)]
        variance = torch.cat([errors_of(Ends(part, None), Ends(part, None)).variance for part in parts]).mean()
        return cls(images, size, tuple(parts), float(variance))

    def errors(self, student: fx.GraphModule, feature: str) -> Errors:
        """Every image's error."""
        value, found = named(student, feature), []
        with torch.no_grad():
            for part, wanted in zip(batches(len(self.images), self.size), self.wanted, strict=True):
                (own,) = forward(student, self.images.batch(part), [value])
                found.append(errors_of(Ends(wanted, None), Ends(own, None)).features)
        return torch.cat(found).double().cpu().numpy()


def _scored(trial: _Trial, lesson: Lesson, judge: _Judge, schedule: Schedule, learnt: int) -> Recoverability:
    plain = judge.errors(drop_blocks(lesson.teacher, [trial.block], share_weights=True), trial.feature)
    if not np.isfinite(plain).all():
        raise not_finite(trial.block.name)
    best, method = plain, "plain (no convolution takes an adaptor)"
    if trial.adaptors:
        trained = judge.errors(trial.absorbed(lesson.teacher), trial.feature)
        count = len(trial.adaptors)
        adaptors = f"{count} adaptor{'s' if count > 1 else ''}"
        if trained.mean() <= plain.mean():
            best, method = trained, f"{adaptors}, {schedule.steps} SGD steps"
        else:  # identity adaptors belong to the minimum too
            what = "were worse" if math.isfinite(trained.mean()) else "diverged"
            method = f"plain (the {adaptors} {what})"
    return Recoverability(
        block=trial.block.name,
        mse=mean_interval(best),
        mse_dropped=float(plain.mean()),
        relative=float(best.mean()) / judge.variance if judge.variance else math.nan,
        fit_images=learnt,
        judged_images=len(judge.images),
        method=method,
    )
