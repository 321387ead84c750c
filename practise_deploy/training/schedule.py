"""How to descend: the paper's schedule, and what a tiny set calls for beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

RETREATS, SLOWER = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The defaults are the paper's (section 4): SGD on the features alone, rate x0.1 at 40% of the steps.

    norms: BatchNorm statistics stay ("frozen"), are taken anew from the images before the descent and then stay
    ("re-estimated"), or follow every batch ("trained").
    mix: share of batches whose images are mixed with each other (mixup and CutMix by turns of a coin); the teacher
    says what is right, so no label is needed.
    crop: the share of the picture that a random crop holds at least (torchvision's 0.08 as published; small inputs are shifted instead).
    logits: weight of the KL divergence from the teacher's classes. exits: weight of the mean error at the ends of the
    blocks behind the first cut, each over its variance (hints: Romero et al., ICLR 2015). scaled: the features' error is
    divided by their variance, so that one rate suits networks of any scale. average: decay of the exponential moving average
    of the weights that is kept; 0 keeps the last ones. pull: decay towards the teacher's own weights, in shares of the
    rate a step; it takes the place of `weight_decay`, which is towards zero (L2-SP: Li et al., ICML 2018).
    keep_best: the weights of least error on images kept aside are kept, and those images are not learned from.
    keep_start: the weights of the start are kept where the descent ends with more error than it began with.
    retreat: where the first tenth of the steps (8 at least) leaves more error than this times the start's, the descent begins anew with a quarter
    of the rate, up to RETREATS times; 0 never does. What a rate does depends on the network: 0.002 suits CIFAR's ResNets, and
    takes networks of depthwise convolutions further from their teacher than the whole schedule brings them back.
    """

    steps: int
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    decay_at: float = 0.4
    cosine: bool = False
    norms: Literal["frozen", "re-estimated", "trained"] = "frozen"
    mix: float = 0.0
    crop: float = 0.08
    logits: float = 0.0
    exits: float = 0.0
    scaled: bool = False
    average: float = 0.0
    pull: float = 0.0
    keep_best: bool = False
    keep_start: bool = False
    retreat: float = 0.0
    seed: int = 0
    dtype: torch.dtype = torch.float32

    def rate(self, step: int, retreats: int = 0) -> float:
        """The learning rate of a step, after so many retreats."""
        return self._rate(step) / SLOWER**retreats

    def _rate(self, step: int) -> float:
        if self.cosine:
            warm = min(1.0, (step + 1) / max(1, self.steps // 20))
            return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * (1.0 if step < self.decay_at * self.steps else 0.1)

    def seed_of(self, step: int) -> int:
        """The seed of all that a step draws; -1: of what is drawn besides the steps."""
        return self.seed * 1_000_003 + step + 1

    def optimise(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        if self.optimiser == "adamw":
            return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
