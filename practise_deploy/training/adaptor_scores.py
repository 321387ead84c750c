"""The paper's recoverability (section 3.2): adaptors around every block's splice, trained by SGD, then absorbed and validated.

The published code trains block after block. Here all blocks take each step together: they see the same images, so one pass of
the teacher serves them all, and a student is computed from its first adaptor on; everything before that equals the teacher. The
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

from practise_backends.interfaces import Progress
from practise_deploy.compute import autocast
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import (
    batches,
    compute,
    downstream,
    forward,
    node_by_name,
    nodes_to_compute,
)
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.refit.criterion import Ends, errors_of, mean_interval, not_finite
from practise_deploy.terms import Block, Recoverabilities, Recoverability
from practise_deploy.training.adaptors import Adaptor, absorb_adaptors, insert_adaptors
from practise_deploy.training.batches import BatchSampler
from practise_deploy.training.schedule import Schedule

_MAX_VALIDATION_IMAGES = 1000
Errors = npt.NDArray[np.float64]


def measure_by_adaptors(
    problem: CalibrationProblem, blocks: Sequence[Block], schedule: Schedule, progress: Progress
) -> Recoverabilities:
    """R of every block by the paper's SGD on adaptors alone, BatchNorm in eval mode.

    As published, R is computed on the images that the adaptors were fitted to (at most 1000 of them), without augmentation.
    """
    teacher = copy.deepcopy(problem.teacher).requires_grad_(False).eval()
    trials = [_Trial.of(teacher, problem.feature, block, schedule) for block in blocks]
    _train(teacher, problem.feature, [trial for trial in trials if trial.adaptors], problem.images, schedule, progress)
    validation = _Validation.of(problem, problem.images.subsample(_MAX_VALIDATION_IMAGES, problem.seed))
    return Recoverabilities(of=tuple(_score(trial, problem, validation, schedule) for trial in trials))


@dataclass(frozen=True, slots=True)
class _Trial:
    """The network without one block, and the trained adaptors around the splice.

    nodes: the part of the student that is computed, from the teacher's values `inputs` to its own `feature`.
    """

    block: Block
    student: fx.GraphModule
    feature: str
    adaptors: tuple[Adaptor, ...]
    nodes: tuple[fx.Node, ...]
    inputs: tuple[str, ...]
    optimiser: torch.optim.Optimizer | None

    @classmethod
    def of(cls, teacher: fx.GraphModule, feature: str, block: Block, schedule: Schedule) -> _Trial:
        """A trial whose student uses the teacher's own modules."""
        student = drop_blocks(teacher, [block], share_weights=True)
        student_feature = feature_in(student, feature, [block])
        adaptors = insert_adaptors(student, block.entry)
        changed = downstream(node_by_name(student, block.entry)) - {block.entry}
        changed = changed.union(*(downstream(node_by_name(student, adaptor.node)) for adaptor in adaptors))
        nodes = [
            node for node in nodes_to_compute([node_by_name(student, student_feature)], ()) if node.name in changed
        ]
        inputs = {value.name: None for node in nodes for value in node.all_input_nodes if value.name not in changed}
        trained = [_weight_of(student, adaptor) for adaptor in adaptors]
        optimiser = schedule.optimise(trained) if trained else None
        return cls(block, student, student_feature, adaptors, tuple(nodes), tuple(inputs), optimiser)

    def step(self, values: Env, target: Tensor, rate: float, precision: tuple[torch.device, torch.dtype]) -> None:
        """One step of SGD on the adaptors. values: the teacher's; target: its features.

        Shapes: target as the student's features, [n, ...].
        """
        assert self.optimiser is not None
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(*precision):
            env = {name: values[name] for name in self.inputs}
            output = compute(self.student, self.nodes, env, frozenset([self.feature]))[self.feature]
            loss = mse_loss(output.float(), target.float())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def absorbed(self, teacher: fx.GraphModule) -> fx.GraphModule:
        """A network of its own without the block, the trained adaptors in its convolutions."""
        student = drop_blocks(teacher, [self.block]).requires_grad_(False)
        adaptors = insert_adaptors(student, self.block.entry)
        with torch.no_grad():
            for adaptor, trained in zip(adaptors, self.adaptors, strict=True):
                _weight_of(student, adaptor).copy_(_weight_of(self.student, trained))
        absorb_adaptors(student, adaptors)
        return student


def _weight_of(student: fx.GraphModule, adaptor: Adaptor) -> torch.nn.Parameter:
    return student.get_parameter(f"{node_by_name(student, adaptor.node).target}.weight")


def _train(
    teacher: fx.GraphModule,
    feature: str,
    trials: Sequence[_Trial],
    images: FitImages,
    schedule: Schedule,
    progress: Progress,
) -> None:
    """All trials take every step together, on the same images."""
    sampler, device = BatchSampler(images, schedule), images.pixels.device
    names = list(dict.fromkeys([feature, *(name for trial in trials for name in trial.inputs)]))
    nodes = [node_by_name(teacher, name) for name in names]
    for step in range(schedule.steps if trials else 0):
        with torch.no_grad(), autocast(device, schedule.dtype):
            values = dict(zip(names, forward(teacher, sampler(step).to(device), nodes), strict=True))
        for number, trial in enumerate(trials, 1):
            trial.step(values, values[feature], schedule.rate(step), (device, schedule.dtype))
            progress.advance(
                step * len(trials) + number, schedule.steps * len(trials), f"step {step + 1}, {trial.block.name}"
            )


@dataclass(frozen=True, slots=True)
class _Validation:
    """Images, the teacher's features of each batch of them, and their variance."""

    images: FitImages
    batch_size: int
    teacher_features: tuple[Tensor, ...]
    variance: float

    @classmethod
    def of(cls, problem: CalibrationProblem, images: FitImages) -> _Validation:
        """The teacher computes its features once."""
        feature, parts = node_by_name(problem.teacher, problem.feature), batches(len(images), problem.batch_size)
        with torch.no_grad():
            features = [forward(problem.teacher, images.batch(part), [feature])[0] for part in parts]
        variance = torch.cat([errors_of(Ends(part, None), Ends(part, None)).variance for part in features]).mean()
        return cls(images, problem.batch_size, tuple(features), float(variance))

    def errors(self, student: fx.GraphModule, feature: str) -> Errors:
        """Every image's error."""
        node, errors = node_by_name(student, feature), []
        parts = batches(len(self.images), self.batch_size)
        with torch.no_grad():
            for part, teacher_features in zip(parts, self.teacher_features, strict=True):
                (student_features,) = forward(student, self.images.batch(part), [node])
                errors.append(errors_of(Ends(teacher_features, None), Ends(student_features, None)).features)
        return torch.cat(errors).double().cpu().numpy()


def _score(trial: _Trial, problem: CalibrationProblem, validation: _Validation, schedule: Schedule) -> Recoverability:
    dropped = validation.errors(drop_blocks(problem.teacher, [trial.block], share_weights=True), trial.feature)
    if not np.isfinite(dropped).all():
        raise not_finite(trial.block.name)
    best, method = dropped, "plain (no convolution takes an adaptor)"
    if trial.adaptors:
        trained = validation.errors(trial.absorbed(problem.teacher), trial.feature)
        count = len(trial.adaptors)
        adaptors = f"{count} adaptor{'s' if count > 1 else ''}"
        if trained.mean() <= dropped.mean():
            best, method = trained, f"{adaptors}, {schedule.steps} SGD steps"
        else:  # identity adaptors belong to the minimum too
            outcome = "were worse" if math.isfinite(trained.mean()) else "diverged"
            method = f"plain (the {adaptors} {outcome})"
    return Recoverability(
        block=trial.block.name,
        mse=mean_interval(best),
        mse_dropped=float(dropped.mean()),
        relative=float(best.mean()) / validation.variance if validation.variance else math.nan,
        fit_images=len(problem.images),
        judged_images=len(validation.images),
        method=method,
    )
