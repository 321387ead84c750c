"""Formatting of what only a release has: losses of accuracy, and ratios that may be unknown."""

from __future__ import annotations

from dataclasses import replace

from practise_backends.results.formatting import interval, missing
from practise_backends.terms import Interval
from practise_deploy.planning.measures import points_of
from practise_deploy.terms import Loss

NOT_RUN = "the engine was built ahead and has not run"


def count_of_points(points: float) -> str:
    """A number of points, `1 point`, `2.5 points`."""
    return f"{points:g} {'point' if points == 1 else 'points'}"


def points_lost(loss: Loss | None, *, absent: str = "no answers to the task") -> str:
    """A loss with its interval, and whether it is an estimate."""
    if loss is None:
        return missing(absent)
    return f"{interval(loss.points, f' {points_of(of_accuracy=loss.of_accuracy)}')}{', estimated' if loss.estimated else ''}"


def lost_or_gained(loss: Loss | None) -> str:
    """The same in words: `lost 0.9 points (0.5 to 1.3)`, or `gained 0.2 points (−0.6 to 1.1)`."""
    if loss is None or loss.points.estimate >= 0:
        return f"lost {points_lost(loss)}"
    points = loss.points
    gain = replace(points, estimate=-points.estimate, low=-points.high, high=-points.low)
    return f"gained {points_lost(replace(loss, points=gain))}"


def times(ratio: Interval | None) -> str:
    """A ratio of latencies, `1.24× (1.21 to 1.27)`."""
    return interval(ratio, "×", absent=NOT_RUN)
