"""A point's least squares problem: what is solved for, over which rows, and what becomes of a solution."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from practise_deploy.network.graph.execution import Env
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.replay import changed
from practise_deploy.refit.rows import Sampler, rows_for
from practise_deploy.refit.write_back import put_in, start_of
from practise_deploy.refit.writers import ReconstructionPoint


@dataclass(slots=True)
class Problem:
    """Rows P, targets T, and unknowns W so that P W is as near to T as it can be.

    The unknowns are the weights of the point's writers, with BatchNorm and scale folded in.
    """

    point: ReconstructionPoint
    sums: NormalEquations = field(default_factory=NormalEquations)
    weighted: NormalEquations = field(default_factory=NormalEquations)

    def add(
        self, env: Env, teacher_vectors: Tensor, sampler: Sampler, weights: Tensor | None, counted: Tensor | None
    ) -> None:
        """Sum the rows of a batch, and where there are weights sum them weighted too.

        counted: 0 for the rows of padding, else 1; None where all count.
        Shapes: wanted [n, positions, channels], the teacher's value at the drawn positions; weights, counted [rows].
        """
        patches, targets = rows_for(self.point, env, teacher_vectors, sampler)
        self.sums.add(patches, targets, counted)
        if weights is not None:
            self.weighted.add(patches, targets, weights if counted is None else weights * counted)

    @property
    def start(self) -> Tensor:
        """W as the student has it. Shapes: [d + 1, outputs], the bias last, in fp64."""
        return start_of(self.point)


@dataclass(frozen=True, slots=True)
class Solution:
    """What solves a problem. weights: W in fp64; change: from the start, in the student's precision."""

    problem: Problem
    weights: Tensor
    change: Tensor

    def value(self, env: Env, dtype: torch.dtype) -> Tensor:
        """The point's value with it, from values as they are without it. dtype: to compute in. Shapes: the value's own."""
        return changed(self.problem.point, self.change, env, dtype)

    def put_in(self) -> None:
        """Give it to the student."""
        put_in(self.problem.point, self.weights, self.problem.sums)
