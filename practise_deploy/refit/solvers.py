"""The solvers of a point: which least squares, on which sums."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.refit.normal_equations import NO_REFIT, Option, options

WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"


@dataclass(frozen=True, slots=True)
class Solver:
    """One solver of a point.

    weighted: every row by how much the features depend on its position. refines: the solver that has to be the best so far for this one to
    be tried.
    """

    solve: Option
    weighted: bool = False
    refines: str = ""


def all_solvers() -> dict[str, Solver]:
    """Every solver by its name, but for no refit."""
    solvers = {name: Solver(solve) for name, solve in options().items() if name != NO_REFIT}
    for name, solver in list(solvers.items()):
        if name.startswith("refit"):
            solvers[f"{name}, {REPAIRED}"] = Solver(_repaired(solver.solve), refines=name)
            solvers[f"{name}, {WEIGHTED}"] = Solver(solver.solve, weighted=True, refines=name)
    return solvers


def _repaired(solve: Option) -> Option:
    return lambda sums, start: sums.with_variance(solve(sums, start))


SOLVERS = all_solvers()
