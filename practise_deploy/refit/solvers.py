"""The ways to solve a site: by which least squares, on which sums."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.refit.normal_equations import PLAIN, Option, options

WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to solve a site.

    weighted: every row by how much the features depend on its position. refines: the way that has to be the best so far for this one to
    be tried.
    """

    solve: Option
    weighted: bool = False
    refines: str = ""


def all_ways() -> dict[str, Way]:
    """Every way to solve a site by its name, but for doing nothing."""
    found = {name: Way(solve) for name, solve in options().items() if name != PLAIN}
    for name, way in list(found.items()):
        if name.startswith("refit"):
            found[f"{name}, {REPAIRED}"] = Way(_repaired(way.solve), refines=name)
            found[f"{name}, {WEIGHTED}"] = Way(way.solve, weighted=True, refines=name)
    return found


def _repaired(solve: Option) -> Option:
    return lambda sums, start: sums.with_variance(solve(sums, start))


WAYS = all_ways()
