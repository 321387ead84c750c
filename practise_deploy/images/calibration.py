"""The calibration problem of planning and recovery: the teacher, its feature map, and the tiny set."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.heads import has_heads, scale_heads
from practise_deploy.terms import CLASSES, Task

_TO_SCALE = 16


@dataclass(frozen=True, slots=True)
class End:
    """What a network is compared by: its features, by their name in the graph, and its answers to the task. dtype: to compute in."""

    feature: str
    dtype: torch.dtype = torch.float32
    task: Task = CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationProblem:
    """A traced teacher, the name of its pre-pooling feature map, the images to fit, the task, and the random seed.

    comparison_dtype: the precision in which candidates are compared; sums and solutions are never below fp32.
    """

    teacher: fx.GraphModule
    feature: str
    images: FitImages
    seed: int = 0
    comparison_dtype: torch.dtype = torch.float32
    task: Task = CLASSES

    @property
    def end(self) -> End:
        """What the teacher and its students are compared by."""
        return End(self.feature, self.comparison_dtype, self.task)

    @property
    def device(self) -> torch.device:
        """Where everything is computed: where the images are."""
        return self.images.pixels.device

    def to(self, device: torch.device) -> CalibrationProblem:
        """The same on a device, with a copy of the teacher."""
        if device == self.device:
            return self
        return replace(self, teacher=copy.deepcopy(self.teacher).to(device), images=self.images.to(device))

    @property
    def folds(self) -> list[tuple[FitImages, FitImages]]:
        """(fit, validation) pairs to recover by."""
        return self.images.folds(self.seed)

    @property
    def comparison_folds(self) -> list[tuple[FitImages, FitImages]]:
        """(fit, validation) pairs to compare sets of blocks by; fits are small, since many sets are compared."""
        return self.images.comparison_folds(self.seed)

    @property
    def comparison_labels(self) -> Tensor | None:
        """Labels of the validation images of `comparison_folds`, in order: for verification alone. Shape: [images]."""
        folds = [validation.labels for _, validation in self.comparison_folds]
        labels = [fold for fold in folds if fold is not None]
        return torch.cat(labels) if len(labels) == len(folds) else None

    @property
    def subsampled(self) -> CalibrationProblem:
        """The same for a quick estimate, with so many images at most as are cross-validated."""
        return replace(self, images=self.images.subsample(self.images.cross_validate_below, self.seed))

    @property
    def batch_size(self) -> int:
        """Images per forward pass, such that the activations that are kept fit in memory."""
        return 16 if self.images.pixels.shape[-1] > 64 else 64


def with_scaled_heads(teacher: fx.GraphModule, images: FitImages) -> fx.GraphModule:
    """The network, its heads scaled by what they read of some images (`heads.scale_heads`); itself where it has one head."""
    if not has_heads(teacher):
        return teacher
    scaled = copy.deepcopy(teacher)
    scale_heads(scaled, images.subsample(_TO_SCALE, seed=0).batch(slice(None)))
    return scaled
