"""The ways to solve a site: of which problem, on which sums, by which least squares."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from practise_deploy.refit.normal_equations import PLAIN, NormalEquations, Option, options
from practise_deploy.refit.problems import Problem, StreamProblem, WriterProblem
from practise_deploy.refit.streams import Stream

WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"
STREAM_SCALE, STREAM_MAP = "stream scale", "stream map"
STREAM_RIDGES = (0.01, 0.3)
_LEAST_SCALE, _MOST_SCALE = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to solve a site.

    of: which of its problems. weighted: every row by how much the features depend on its position. refines: the way
    that has to be the best so far for this one to be tried.
    """

    solve: Option
    of: type[Problem] = WriterProblem
    weighted: bool = False
    refines: str = ""


def maps_stream(way: str) -> bool:
    """Whether a way changes the basis of the stream behind its site."""
    return way == STREAM_SCALE or way.startswith(STREAM_MAP)


def ways_of(stream: Stream | None) -> dict[str, Way]:
    """Every way to solve a site by its name, but for doing nothing. stream: the one behind it, where it can be mapped."""
    return _ways_of_writers() | ({} if stream is None else _ways_of_stream(diagonal=stream.diagonal))


def _ways_of_writers() -> dict[str, Way]:
    found = {name: Way(solve) for name, solve in options().items() if name != PLAIN}
    for name, way in list(found.items()):
        if name.startswith("refit"):
            found[f"{name}, {REPAIRED}"] = Way(_repaired(way.solve), refines=name)
            found[f"{name}, {WEIGHTED}"] = Way(way.solve, weighted=True, refines=name)
    return found


def _ways_of_stream(*, diagonal: bool) -> dict[str, Way]:
    found = {STREAM_SCALE: Way(_scaled, StreamProblem)}
    for ridge in () if diagonal else STREAM_RIDGES:
        found[f"{STREAM_MAP}, ridge {ridge:g}"] = Way(_mapped(ridge), StreamProblem)
    return found


def _repaired(solve: Option) -> Option:
    return lambda sums, start: sums.with_variance(solve(sums, start))


def _mapped(ridge: float) -> Option:
    return lambda sums, start: sums.solve(ridge, start)


def _scaled(sums: NormalEquations, identity: Tensor) -> Tensor:
    """A positive scale of each channel, within bounds, and the bias that fits it best."""
    scales = sums.with_scale(identity).diagonal()
    return sums.with_bias(identity * scales.clamp(_LEAST_SCALE, _MOST_SCALE))
