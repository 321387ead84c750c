"""How far a network is from its teacher, image by image: at the features, which decides, and at the answers. No labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from practise_backends.rounds.intervals import bootstrap
from practise_backends.terms import Interval
from practise_deploy.compute import autocast
from practise_deploy.errors import InputError
from practise_deploy.images.calibration import End
from practise_deploy.network.graph.activations import compute, node_by_name, nodes_to_compute
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.heads import mask_of
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.tasks.answers import answers_of


@dataclass(frozen=True)
class Ends:
    """Where a network ends. Shapes: features [n, ...] before pooling, answers [n, numbers] or None where the task has none."""

    features: Tensor
    answers: Tensor | None

    @cached_property
    def variance(self) -> Tensor:
        """Of the features, image by image. Shapes: [n]."""
        return self.features.var(tuple(range(1, self.features.ndim)))


@dataclass(frozen=True, slots=True)
class Errors:
    """By image. Shapes: features [n], mean squared differences; variance [n], of the teacher's features.

    teacher_answers, student_answers: those of both networks [n, numbers], without columns where there are none.
    """

    features: Tensor
    variance: Tensor
    teacher_answers: Tensor
    student_answers: Tensor

    def first(self, images: int) -> Errors:
        """Those of the first so many images."""
        return Errors(*(getattr(self, name)[:images] for name in Errors.__slots__))

    @property
    def by_image(self) -> Tensor:
        """What recoveries are compared by: every image's error of the features over their mean variance. Shapes: [n].

        Of refitted sets it predicts the accuracy better than the KL divergence of the classes or the sum of both; solvers are chosen
        equally well by any of them (docs/planning.md).
        """
        return self.features / self.variance.mean().clamp_min(1e-12)

    @property
    def relative(self) -> float:
        """The features' mean squared error over their variance."""
        return float(self.by_image.mean())


def end_of(network: fx.GraphModule, env: Env, end: End) -> Ends:
    """Compute a network's ends from any known values, nothing else."""
    feature, outputs, mask = node_by_name(network, end.feature), outputs_of(network), mask_of(network)
    ends = [feature, *outputs] if mask is None else [feature, *outputs, mask]
    keep = frozenset(node.name for node in ends)
    device = next(value.device for value in env.values() if isinstance(value, Tensor))  # a batch size is none
    with autocast(device, end.dtype):
        values = compute(network, nodes_to_compute(ends, env), env, keep)
    counted = None if mask is None else values[mask.name]
    return Ends(values[feature.name].float(), answers_of(end.task, [values[o.name] for o in outputs], counted))


def errors_of(teacher: Ends, student: Ends) -> Errors:
    """The student's errors, image by image."""
    features = (teacher.features - student.features).square().mean(tuple(range(1, teacher.features.ndim)))
    none = features.new_zeros(len(features), 0)
    if teacher.answers is None or student.answers is None:
        return Errors(features, teacher.variance, none, none)
    return Errors(features, teacher.variance, teacher.answers, student.answers)


def joined(parts: list[Errors]) -> Errors:
    """The errors of several batches as those of one."""
    return Errors(*(torch.cat([getattr(part, name) for part in parts]) for name in Errors.__slots__))


def interactions_of(teacher: Ends, students: list[Ends]) -> Tensor:
    """Inner products of what several students change of the features, a feature. Shapes: [n, students, students]."""
    products = []
    for image, features in enumerate(teacher.features):
        # d_i = f_i - f, the displacement by student i; Q_ij = d_i' d_j over the number of features
        moved = torch.stack([(student.features[image] - features).flatten() for student in students]).double()
        products.append(moved @ moved.T / moved.shape[1])
    return torch.stack(products)


def mean_interval(errors: npt.NDArray[np.float64]) -> Interval:
    """The mean over images with its interval: bootstrap, or the normal approximation below 10 images. Shapes: errors [n]."""
    if len(errors) >= 10:
        return bootstrap(errors, lambda sample: np.asarray(sample.mean(-1)))
    mean, half = (
        float(errors.mean()),
        1.96 * float(errors.std(ddof=min(1, len(errors) - 1))) / math.sqrt(len(errors)),
    )
    return Interval(estimate=mean, low=max(0.0, mean - half), high=mean + half, confidence=0.95)


def not_finite(block: str) -> InputError:
    """The error where features overflow without a block."""
    return InputError(
        f"the features of the network without {block} are no numbers on some images",
        remedy="check --mean and --std, and the weights",
    )
