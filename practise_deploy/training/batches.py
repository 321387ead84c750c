"""The batches of training: shuffled epochs, augmented, and mixed where the schedule says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from practise_deploy.images.tiny_set import FitImages, augmenter, normalise
from practise_deploy.network.graph.packing import mask_place
from practise_deploy.terms import InputSpec
from practise_deploy.training.schedule import Schedule

_MIX_GROUP = 8  # validation images that are mixed with one weight: a single weight for all of them may be near 0 or 1


class BatchSampler:
    """The batch of any step, always the same for one step."""

    def __init__(self, images: FitImages, schedule: Schedule) -> None:
        self.images = images
        self.schedule = schedule
        self.augment = augmenter(images.preprocessing)

    def __call__(self, step: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            pixels = self.images.pixels[self.which(step)]
            torch.manual_seed(self.schedule.seed_of(step))
            augmented = torch.stack([self.augment(image) for image in pixels])
            batch = normalise(augmented, self.images.preprocessing)
            if float(torch.rand(())) < self.schedule.mix:
                batch = mixed(batch, self.images.preprocessing.inputs)
        return batch.contiguous(memory_format=torch.channels_last)

    def which(self, step: int) -> Tensor:
        """Indices into shuffled epochs, cut into batches; a batch may span epochs. Shape: [batch size]."""
        size, count = self.schedule.batch_size, len(self.images)
        first = step * size
        epochs = range(first // count, (first + size - 1) // count + 1)
        orders = [
            torch.randperm(count, generator=torch.Generator().manual_seed(self.schedule.seed * 7919 + n))
            for n in epochs
        ]
        return torch.cat(orders)[first % count : first % count + size]


def augmented_views(images: FitImages, schedule: Schedule) -> FitImages:
    """Every image once, augmented with a seed that no step has, or mixed where there is no augmentation."""
    augment = augmenter(images.preprocessing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed_of(-1))
        pixels = torch.stack([augment(image) for image in images.pixels])
        if images.preprocessing.augment == "none" and schedule.mix:
            parts = torch.split(normalise(pixels, images.preprocessing), _MIX_GROUP)
            pixels = torch.cat([mixed(part, images.preprocessing.inputs) for part in parts])
    return FitImages(pixels, None, images.preprocessing)


def mixed(images: Tensor, inputs: Sequence[InputSpec] = ()) -> Tensor:
    """Mix every image with another one of the batch, by mixup or by CutMix with even odds; tokens by CutMix alone.

    Without labels: the teacher sees the same mixture. Sources: Zhang et al. (ICLR 2018), Yun et al. (ICCV 2019).
    inputs: of a network that takes no images. Shapes: [n, channels, height, width].
    """
    if inputs:
        return mixed_tokens(images, inputs)
    others = images[torch.randperm(len(images))]
    weight = float(torch.rand(()))
    if float(torch.rand(())) < 0.5:
        return weight * images + (1 - weight) * others
    height, width = images.shape[2:]
    cut_height, cut_width = (int(side * math.sqrt(1 - weight)) for side in (height, width))
    top, left = (int(torch.randint(0, slack + 1, ())) for slack in (height - cut_height, width - cut_width))
    rows, columns = slice(top, top + cut_height), slice(left, left + cut_width)
    pasted = images.clone()
    pasted[:, :, rows, columns] = others[:, :, rows, columns]
    return pasted


def are_tokens(inputs: Sequence[InputSpec]) -> bool:
    """Whether all inputs are whole numbers, one for each position of a sequence."""
    return len({spec.shape for spec in inputs}) == 1 and all(
        len(spec.shape) == 1 and spec.dtype != "float32" for spec in inputs
    )


def mixed_tokens(rows: Tensor, inputs: Sequence[InputSpec]) -> Tensor:
    """Give every text tokens of another one: a stretch of them, or scattered ones, with even odds; all inputs alike.

    Shapes: rows [n, 1, 1, numbers], packed (`network.graph.packing`).
    """
    count, positions = len(rows), inputs[0].shape[0]
    place = mask_place(inputs)
    lengths = rows.flatten(1)[:, place].sum(1) if place is not None else rows.new_full((count,), positions)
    at, share = torch.arange(positions), torch.rand(count, 1)
    if float(torch.rand(())) < 0.5:
        begin = torch.rand(count, 1) * lengths[:, None]
        taken = (at >= begin) & (at < begin + share * lengths[:, None])
    else:
        taken = torch.rand(count, positions) < share / 2
    others = rows[torch.randperm(count)]
    return torch.where(taken.repeat(1, len(inputs))[:, None, None], others, rows)
