"""A site's least squares problems: what is solved for, over which rows, and what becomes of a solution.

What the writers of the site give can be changed, and so can the whole stream that it is in: the unknowns are the
writers' weights, or a map z -> A z + b that is free to keep (see `streams`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from practise_deploy.compute import autocast
from practise_deploy.network.execution import Env
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.replay import changed
from practise_deploy.refit.rows import Sampler, channels_of, rows_for
from practise_deploy.refit.streams import accumulated, insert
from practise_deploy.refit.write_back import put_in, start_of
from practise_deploy.refit.writers import Site

WORST_CONDITION = 1e3


@dataclass(slots=True)
class Problem(ABC):
    """Rows P, targets T, and unknowns W so that P W is as near to T as it can be."""

    student: fx.GraphModule
    site: Site
    sums: NormalEquations = field(default_factory=NormalEquations)
    weighted: NormalEquations = field(default_factory=NormalEquations)

    def add(self, env: Env, wanted: Tensor, sampler: Sampler, weights: Tensor | None) -> None:
        """Sum the rows of a batch, and where there are weights sum them weighted too.

        Shapes: wanted [n, positions, channels], the teacher's value at the drawn positions; weights [rows].
        """
        patches, targets = self.rows(env, wanted, sampler)
        self.sums.add(patches, targets)
        if weights is not None:
            self.weighted.add(patches, targets, weights)

    @property
    @abstractmethod
    def start(self) -> Tensor:
        """W as the student has it. Shapes: [d + 1, outputs], the bias last, in fp64."""

    @abstractmethod
    def rows(self, env: Env, wanted: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        """Patches with the ones column, and what they should give."""

    @abstractmethod
    def admits(self, solution: Tensor) -> bool:
        """Whether the student could keep a solution."""

    @abstractmethod
    def changed(self, change: Tensor, env: Env, dtype: torch.dtype) -> Tensor:
        """The site's value after a change from the start."""

    @abstractmethod
    def put_in(self, solution: Tensor) -> None:
        """Give the student a solution."""


class WriterProblem(Problem):
    """The unknowns are the weights of the site's writers, with BatchNorm and scale folded in."""

    @property
    def start(self) -> Tensor:
        return start_of(self.student, self.site)

    def rows(self, env: Env, wanted: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        return rows_for(self.student, self.site, env, wanted, sampler)

    def admits(self, solution: Tensor) -> bool:
        return True

    def changed(self, change: Tensor, env: Env, dtype: torch.dtype) -> Tensor:
        return changed(self.student, self.site, change, env, dtype)

    def put_in(self, solution: Tensor) -> None:
        put_in(self.student, self.site, solution, self.sums)


class StreamProblem(Problem):
    """The unknowns are a map of the stream behind the site, z -> A z + b. Shapes: W is A' with b below it."""

    @property
    def start(self) -> Tensor:
        width, weight = channels_of(self.site), next(self.student.parameters())
        return torch.eye(width + 1, width, dtype=torch.float64, device=weight.device)

    def rows(self, env: Env, wanted: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        value = sampler.vectors(self.site, env[self.site.value.name]).flatten(0, 1)
        return torch.cat([value, value.new_ones(len(value), 1)], 1), wanted.flatten(0, 1)

    def admits(self, solution: Tensor) -> bool:
        matrix = accumulated(self.student, self.site.value, solution[:-1].T)
        return bool(matrix.isfinite().all()) and float(torch.linalg.cond(matrix)) <= WORST_CONDITION

    def changed(self, change: Tensor, env: Env, dtype: torch.dtype) -> Tensor:
        value = env[self.site.value.name]
        with autocast(value.device, dtype):
            return value + nn.functional.conv2d(value, change[:-1].T[:, :, None, None], change[-1])

    def put_in(self, solution: Tensor) -> None:
        insert(self.student, self.site, solution[:-1].T, solution[-1])


@dataclass(frozen=True, slots=True)
class Solution:
    """What solves a problem. weights: W in fp64; change: from the start, in the student's precision."""

    problem: Problem
    weights: Tensor
    change: Tensor

    def value(self, env: Env, dtype: torch.dtype) -> Tensor:
        """The site's value with it, from values as they are without it. dtype: to compute in."""
        return self.problem.changed(self.change, env, dtype)

    def put_in(self) -> None:
        """Give it to the student."""
        self.problem.put_in(self.weights)
