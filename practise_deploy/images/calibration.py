"""What planning and recovery learn from: the teacher, its feature map, and the tiny set."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from practise_deploy.images.tiny_set import FEW, FitImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A traced teacher, the name of its pre-pooling feature map, the images to fit, and the seed of every draw.

    judging: the precision in which candidates are compared; sums and solutions are never below fp32.
    quick: for a look: the student that is judged, without the images that judge it, is the one that is given.
    """

    teacher: fx.GraphModule
    feature: str
    images: FitImages
    seed: int = 0
    judging: torch.dtype = torch.float32
    quick: bool = False

    @property
    def device(self) -> torch.device:
        """Where everything is computed: where the images are."""
        return self.images.pixels.device

    def placed(self, device: torch.device) -> Lesson:
        """The same on a device; the teacher stays where it is, and a copy of it goes."""
        if device == self.device:
            return self
        return replace(self, teacher=copy.deepcopy(self.teacher).to(device), images=self.images.to(device))

    @property
    def folds(self) -> list[tuple[FitImages, FitImages]]:
        """(learn, judge) pairs to recover by."""
        return [self.images.split(self.seed)] if self.quick else self.images.folds(self.seed)

    @property
    def comparing_folds(self) -> list[tuple[FitImages, FitImages]]:
        """(learn, judge) pairs to compare sets of blocks by: many are compared, so that few images are learned from."""
        return self.images.comparing_folds(self.seed)

    @property
    def compared_labels(self) -> Tensor | None:
        """Labels of the images that `comparing_folds` judges by, in their order: for verification alone. Shape: [images]."""
        parts = [judge.labels for _, judge in self.comparing_folds]
        known = [labels for labels in parts if labels is not None]
        return torch.cat(known) if len(known) == len(parts) else None

    @property
    def quick_look(self) -> Lesson:
        """The same for a look, with FEW images at most."""
        return replace(self, images=self.images.some(FEW, self.seed), quick=True)

    @property
    def batch_size(self) -> int:
        """Images a pass: as many as keep the values that matter of a network in memory."""
        return 16 if self.images.pixels.shape[-1] > 64 else 64
