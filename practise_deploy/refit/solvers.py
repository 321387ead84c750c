"""The solvers of a point: which least squares, on which sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from torch import Tensor

from practise_deploy.refit.normal_equations import NormalEquations

Solve = Callable[[NormalEquations, Tensor], Tensor]
"""From the sums over rows and the weights to start from, both of shape [d + 1, outputs], to other weights."""
RIDGES = (0.003, 0.03, 0.3, 3.0)
NO_REFIT = "plain"
WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"


class SolverKind(Enum):
    """What a solver is free to change."""

    BIAS = auto()
    SCALE = auto()
    """A scale and a bias for every output."""
    RIDGE = auto()
    """All weights, by ridge regression around those to start from."""


@dataclass(frozen=True, slots=True)
class Solver:
    """One solver of a point.

    weighted: every row by how much the features depend on its position. refines: the solver that has to be the best so far for this one to
    be tried.
    """

    kind: SolverKind
    solve: Solve
    weighted: bool = False
    refines: str = ""


def ridge_solvers(ridges: Sequence[float] = RIDGES) -> dict[str, Solver]:
    """Ridge regression, by the name of its strength."""
    return {f"refit, ridge {ridge:g}": Solver(SolverKind.RIDGE, partial(_ridge, ridge)) for ridge in ridges}


def basic_solvers() -> dict[str, Solver]:
    """The solvers that refine no other one, by name."""
    return {
        "bias": Solver(SolverKind.BIAS, lambda sums, start: sums.with_bias(start)),
        "bias and scale": Solver(SolverKind.SCALE, lambda sums, start: sums.with_scale(start)),
        **ridge_solvers(),
    }


def all_solvers() -> dict[str, Solver]:
    """Every solver by its name, but for no refit."""
    solvers = basic_solvers()
    for name, solver in list(solvers.items()):
        if solver.kind is SolverKind.RIDGE:
            solvers[f"{name}, {REPAIRED}"] = Solver(solver.kind, partial(_repaired, solver.solve), refines=name)
            solvers[f"{name}, {WEIGHTED}"] = Solver(solver.kind, solver.solve, weighted=True, refines=name)
    return solvers


def _ridge(ridge: float, sums: NormalEquations, start: Tensor) -> Tensor:
    return sums.solve(ridge, start)


def _repaired(solve: Solve, sums: NormalEquations, start: Tensor) -> Tensor:
    return sums.with_variance(solve(sums, start))


SOLVERS = all_solvers()
