"""What planning and recovery learn from: the teacher, its feature map, and the tiny set."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import fx

from practise_deploy.model.images import FEW, FitImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A traced teacher, the name of its pre-pooling feature map, the images to fit, and the seed of every draw.

    judging: the precision in which candidates are compared; sums and solutions are never below fp32.
    in_turns: few images are judged in turns (k-fold); else a fifth of them is kept aside.
    """

    teacher: fx.GraphModule
    feature: str
    images: FitImages
    seed: int = 0
    judging: torch.dtype = torch.float32
    in_turns: bool = True

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
    def few(self) -> Lesson:
        """The same with at most FEW images, drawn at random: enough to compare sets of blocks by."""
        return replace(self, images=self.images.some(FEW, self.seed))

    @property
    def folds(self) -> list[tuple[FitImages, FitImages]]:
        """(learn, judge) pairs."""
        return self.images.folds(self.seed) if self.in_turns else [self.images.split(self.seed)]

    @property
    def batch_size(self) -> int:
        """Images a pass: as many as keep the values that matter of a network in memory."""
        return 16 if self.images.pixels.shape[-1] > 64 else 64
