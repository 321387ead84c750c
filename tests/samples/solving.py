"""Rows to solve with, a dense solution to compare with, and where a network adds."""

import torch
from torch import Tensor

from practise_deploy.refit.normal_equations import NormalEquations


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(count: int = 60, width: int = 7, outputs: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Patches with their ones column, targets, and weights to start from."""
    patches = torch.cat([noise(count, width), torch.ones(count, 1, dtype=torch.float64)], 1)
    return patches, noise(count, outputs, seed=2) + 5, noise(width + 1, outputs, seed=3)


def summed(patches: Tensor, targets: Tensor) -> NormalEquations:
    equations = NormalEquations()
    equations.add(patches, targets)
    return equations


def dense(patches: Tensor, targets: Tensor, start: Tensor, ridge: float) -> Tensor:
    """The same minimum by QR: rows that pull to `start`, weighted by the root of the ridge, are stacked below."""
    strength = ridge * (patches[:, :-1] ** 2).sum(0).mean()
    pull = torch.full((patches.shape[1],), float(strength), dtype=torch.float64).sqrt()
    pull[-1] = (1e-9 * len(patches)) ** 0.5
    return torch.linalg.lstsq(
        torch.cat([patches, torch.diag(pull)]), torch.cat([targets, pull[:, None] * start]), driver="gelsd"
    ).solution


def additions(traced):
    return [node for node in traced.graph.nodes if "add" in node.name and node.op == "call_function"]
