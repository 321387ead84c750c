"""How far a network is from its teacher, image by image: at the features, and at the classes. No labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from practise_deploy.model.compute import autocast
from practise_deploy.model.values import Env, compute, logits_of, named, order_of

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a network ends. Shapes: features [n, ...] before pooling, logits [n, classes] or None where it has none."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True, slots=True)
class Errors:
    """By image. features: mean squared difference; divergence: KL from the teacher's classes in nats, else zeros.

    variance: of the teacher's features.
    """

    features: Tensor
    divergence: Tensor
    variance: Tensor

    @property
    def criterion(self) -> Tensor:
        """What recoveries are compared by: the features' error over their variance, plus the divergence."""
        return self.features / self.variance.mean().clamp_min(1e-12) + self.divergence


def end_of(network: fx.GraphModule, known: Env, feature: str, dtype: torch.dtype = torch.float32) -> Ends:
    """Compute a network's ends from any known values, nothing else."""
    end, logits = named(network, feature), logits_of(network)
    keep = frozenset({end.name, logits.name})
    with autocast(_CPU, dtype):
        found = compute(network, order_of([end, logits], known), known, keep)
    outputs = found[logits.name]
    return Ends(found[end.name].float(), outputs.float() if outputs.ndim == 2 else None)


def errors_of(wanted: Ends, found: Ends) -> Errors:
    """The student's errors, image by image."""
    features = (wanted.features - found.features).flatten(1).square().mean(1)
    divergence = torch.zeros_like(features)
    if wanted.logits is not None and found.logits is not None:
        goal, own = (F.log_softmax(each, 1) for each in (wanted.logits, found.logits))
        divergence = F.kl_div(own, goal, log_target=True, reduction="none").sum(1)
    return Errors(features, divergence, wanted.features.flatten(1).var(1))


def joined(parts: list[Errors]) -> Errors:
    """The errors of several batches as those of one."""
    return Errors(*(torch.cat([getattr(part, name) for part in parts]) for name in Errors.__slots__))


def interactions_of(wanted: Ends, found: list[Ends]) -> dict[str, Tensor]:
    """Inner products of what several students change, image by image. Shapes: [n, students, students].

    "features": over their variance. "logits": d_i' (diag p - p p') d_j / 2 with the teacher's classes p, the
    second-order expansion of the KL divergence.
    """
    moved = torch.stack([(each.features - wanted.features).flatten(1) for each in found], 1).double()
    variance = wanted.features.double().flatten(1).var(1).mean().clamp_min(1e-12)
    products = {"features": moved @ moved.transpose(1, 2) / (moved.shape[2] * variance)}
    if wanted.logits is not None:
        classes = F.softmax(wanted.logits.double(), 1)[:, None]
        change = torch.stack([(each.logits - wanted.logits).double() for each in found if each.logits is not None], 1)
        means = (change * classes).sum(2)
        products["logits"] = ((change * classes) @ change.transpose(1, 2) - means[:, :, None] * means[:, None]) / 2
    return products
