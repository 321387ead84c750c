"""Least squares for a point's writers: the sums over rows, and what they solve for.

With P the patches of the writers' inputs (im2col, with a ones column), T the target less what the rest of the sum
gives, and W0 the writers' own weights (BatchNorm folded):

    W' = argmin ||P W - T||^2 + a ||W - W0||^2 = (P'P + a I)^-1 (P'T + a W0),   a = ridge * tr(P'P) / d

It is exact, convex, free of a learning rate, and leaves no operator behind. A bias and a scale are the same problem with fewer
unknowns: no further pass over the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from practise_deploy.errors import InputError


@dataclass(slots=True)
class NormalEquations:
    """Sums over rows, in fp64: gram P'P [d, d], xty P'T [d, outputs], square of T [outputs]."""

    gram: Tensor | None = None
    xty: Tensor | None = None
    square: Tensor | None = None
    rows: float = 0.0

    def add(self, patches: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add rows. Shapes: patches [rows, d] with the ones column last, targets [rows, outputs], weights [rows]."""
        weighted = patches if weights is None else patches * weights[:, None]
        gram, xty = weighted.T @ patches, weighted.T @ targets
        heights = targets.square() if weights is None else targets.square() * weights[:, None]
        square = heights.sum(0, dtype=torch.float64)
        self.gram = gram.double() if self.gram is None else self.gram.add_(gram)
        self.xty = xty.double() if self.xty is None else self.xty.add_(xty)
        self.square = square if self.square is None else self.square + square
        self.rows += len(patches) if weights is None else float(weights.sum())

    def solve(self, ridge: float, start: Tensor) -> Tensor:
        """The ridge solution around `start`. Shapes: [d, outputs]. The bias row is hardly held back."""
        gram, xty = self._sums
        # a = ridge times the mean diagonal of P'P; the bias, whose column is ones, is left all but free
        weights = gram.diagonal()[:-1]
        penalty = torch.full_like(gram.diagonal(), ridge * float(weights.mean()) + 1e-12)
        penalty[-1] = 1e-9 * self.rows + 1e-12
        # (P'P + diag(a)) W' = P'T + diag(a) W0, by Cholesky, or by LU where rounding makes the left side indefinite
        right = xty + penalty[:, None] * start.double()
        factor, failed = torch.linalg.cholesky_ex(_penalised(gram, penalty))
        return (
            torch.linalg.solve(_penalised(gram, penalty), right) if int(failed) else torch.cholesky_solve(right, factor)
        )

    def with_bias(self, start: Tensor) -> Tensor:
        """`start` with the bias that takes the mean error away. Shapes: [d, outputs]."""
        gram, xty = self._sums
        weights = start.double().clone()
        # the last row of P'T - P'P W is the sum of what is left over, as the last column of P is ones
        weights[-1] += (xty[-1] - gram[-1] @ weights) / self.rows
        return weights

    def with_scale(self, start: Tensor) -> Tensor:
        """`start` with the scale and bias of each output that fit best; outputs that hardly vary keep their scale.

        Shapes: [d, outputs].
        """
        gram, xty = self._sums
        weights = start.double()
        # simple regression of every output y on its target t: scale = cov(y, t) / var(y), held back towards 1
        mean, goal = gram[-1] @ weights / self.rows, xty[-1] / self.rows
        both = (weights * xty).sum(0) / self.rows - mean * goal
        spread = self.spread_of(weights)
        penalty = 0.01 * spread.mean() + 1e-12
        return self.with_bias(weights * ((both + penalty) / (spread + penalty)))

    def with_variance(self, solution: Tensor) -> Tensor:
        """A solution scaled so that each output varies as much as its target does; the ridge shrinks it.

        Shapes: [d, outputs].
        """
        _, xty = self._sums
        assert self.square is not None
        target_variance = (self.square / self.rows - (xty[-1] / self.rows) ** 2).clamp_min(0)
        spread = self.spread_of(solution)
        scale = torch.where(spread > 1e-12, (target_variance / spread.clamp_min(1e-12)).sqrt(), torch.ones_like(spread))
        return self.with_bias(solution * scale.clamp(0.5, 2.0))

    def spread_of(self, weights: Tensor) -> Tensor:
        """Variance of every output of these weights over the rows. Shapes: [outputs]."""
        gram, _ = self._sums
        # var(y) = w' P'P w / n - mean(y)^2
        mean = gram[-1] @ weights / self.rows
        return (((gram @ weights) * weights).sum(0) / self.rows - mean**2).clamp_min(0)

    @property
    def _sums(self) -> tuple[Tensor, Tensor]:
        assert self.gram is not None and self.xty is not None and self.square is not None
        if not (torch.isfinite(self.gram[-1]).all() and torch.isfinite(self.square).all()):
            raise InputError(
                f"within the network some of the images to fit become NaN or infinity ({self.rows:,} rows were looked at)",
                remedy="look for constant or broken images among them, and check --mean and --std",
            )
        return self.gram, self.xty


def _penalised(gram: Tensor, penalty: Tensor) -> Tensor:
    """The left side of a ridge problem. Shapes: gram [d, d], hold [d]."""
    left = gram.clone()
    left.diagonal().add_(penalty)
    return left
