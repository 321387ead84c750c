"""Training schedules: the paper's, and the further options that a tiny set needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

MAX_RESTARTS, RATE_DIVISOR = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The defaults are the paper's (section 4): SGD on the features alone, rate x0.1 at 40% of the steps.

    norms: BatchNorm statistics stay ("frozen"), or follow every batch ("trained").
    mix: share of batches whose images are mixed with each other (mixup or CutMix with even odds); the teacher
    provides the target, so no label is needed.
    hints: weight of the mean error at the exits of the
    blocks behind the first splice, each over its variance (Romero et al., ICLR 2015). scaled: the features' error is
    divided by their variance, so that one rate suits networks of any scale. ema_decay: decay of the exponential moving average
    of the weights that is kept; 0 keeps the last ones.
    keep_start: the starting weights are kept where training ends with more error than it began with.
    restart_ratio: where the first tenth of the steps (8 at least) leaves more error than this times the start's, training restarts with a
    quarter of the rate, up to MAX_RESTARTS times; 0 never does. The right rate depends on the network: 0.002 suits CIFAR's ResNets, and
    moves networks of depthwise convolutions further from their teacher than the rest of the schedule can repair.
    early_end: where the first fifth of the steps leaves no less error than the start's, the others are left out.
    behind_the_cut: what lies before the first layer that differs from the teacher's stays as it is, and is computed once for both networks.
    """

    steps: int
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    decay_at: float = 0.4
    cosine: bool = False
    norms: Literal["frozen", "trained"] = "frozen"
    mix: float = 0.0
    hints: float = 0.0
    scaled: bool = False
    ema_decay: float = 0.0
    keep_start: bool = False
    restart_ratio: float = 0.0
    early_end: bool = False
    behind_the_cut: bool = False
    seed: int = 0
    dtype: torch.dtype = torch.float32

    def rate_limit(self, restarts: int = 0) -> float:
        """The highest learning rate after this many restarts."""
        return self.learning_rate / RATE_DIVISOR**restarts

    def rate(self, step: int, restarts: int = 0) -> float:
        """The learning rate of a step after this many restarts."""
        return self._rate(step) / RATE_DIVISOR**restarts

    def _rate(self, step: int) -> float:
        if self.cosine:
            warm = min(1.0, (step + 1) / max(1, self.steps // 20))
            return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * (1.0 if step < self.decay_at * self.steps else 0.1)

    def seed_of(self, step: int) -> int:
        """The seed of a step's random numbers; -1: of those drawn outside the steps."""
        return self.seed * 1_000_003 + step + 1

    def optimise(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        if self.optimiser == "adamw":
            return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
