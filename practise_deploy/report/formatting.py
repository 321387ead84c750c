"""Formatting of what only a release has: losses of accuracy, and ratios that may be unknown."""

from __future__ import annotations

from practise_backends.results.formatting import interval, missing
from practise_backends.terms import Interval
from practise_deploy.terms import Loss

NOT_RUN = "the engine was built ahead and has not run"


def points_lost(loss: Loss | None, *, absent: str = "no classifier's output") -> str:
    """A loss of accuracy with its interval, and whether it is an estimate."""
    if loss is None:
        return missing(absent)
    return f"{interval(loss.points, ' points')}{', estimated' if loss.estimated else ''}"


def times(ratio: Interval | None) -> str:
    """A ratio of latencies, `1.24× (1.21 to 1.27)`."""
    return interval(ratio, "×", absent=NOT_RUN)
