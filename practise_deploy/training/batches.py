"""The batches of a descent: whole passes in fresh orders, augmented, and mixed where the schedule says so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from practise_deploy.images.tiny_set import FitImages, augmenter, normalise
from practise_deploy.training.schedule import Schedule

_ALIKE = 8  # images that are mixed alike in a view to judge by: one share for all of them may be a share of nothing


class Draw:
    """The batch of any step, the same whenever it is drawn."""

    def __init__(self, images: FitImages, schedule: Schedule) -> None:
        self.images = images
        self.schedule = schedule
        self.augment = augmenter(images.preprocessing, schedule.crop)

    def __call__(self, step: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            pixels = self.images.pixels[self.which(step)]
            torch.manual_seed(self.schedule.seed_of(step))
            varied = torch.stack([self.augment(image) for image in pixels])
            drawn = normalise(varied, self.images.preprocessing)
            if float(torch.rand(())) < self.schedule.mix:
                drawn = mixed(drawn)
        return drawn.contiguous(memory_format=torch.channels_last)

    def which(self, step: int) -> Tensor:
        """Whole passes in fresh orders, cut into batches; a batch may span passes."""
        size, count = self.schedule.batch_size, len(self.images)
        first = step * size
        passes = range(first // count, (first + size - 1) // count + 1)
        orders = [
            torch.randperm(count, generator=torch.Generator().manual_seed(self.schedule.seed * 7919 + n))
            for n in passes
        ]
        return torch.cat(orders)[first % count : first % count + size]


def other_views(images: FitImages, schedule: Schedule) -> FitImages:
    """Every image once, varied with a seed that no step has: augmented, or mixed where nothing else varies them."""
    augment = augmenter(images.preprocessing, schedule.crop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed_of(-1))
        pixels = torch.stack([augment(image) for image in images.pixels])
        if images.preprocessing.augment == "none" and schedule.mix:
            parts = torch.split(normalise(pixels, images.preprocessing), _ALIKE)
            pixels = torch.cat([mixed(part) for part in parts])
    return FitImages(pixels, None, images.preprocessing)


def mixed(images: Tensor) -> Tensor:
    """Every image with another one of the batch: blended (mixup) or with a rectangle of it (CutMix), by a coin.

    Without labels: the teacher looks at the same mixture. Sources: Zhang et al. (ICLR 2018), Yun et al. (ICCV 2019).
    """
    others = images[torch.randperm(len(images))]
    share = float(torch.rand(()))
    if float(torch.rand(())) < 0.5:
        return share * images + (1 - share) * others
    height, width = images.shape[2:]
    tall, wide = (int(side * math.sqrt(1 - share)) for side in (height, width))
    top, left = (int(torch.randint(0, room + 1, ())) for room in (height - tall, width - wide))
    pasted = images.clone()
    pasted[:, :, top : top + tall, left : left + wide] = others[:, :, top : top + tall, left : left + wide]
    return pasted
