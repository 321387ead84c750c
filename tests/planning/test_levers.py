"""The choice among points of blocks and precision."""

from __future__ import annotations

import pytest

from practise_backends.choices import Precision
from practise_backends.terms import Interval
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.outcome import LeverPoint
from practise_deploy.planning.levers import advice, choose_point, no_point, with_front
from practise_deploy.terms import Loss


def point(blocks: int, precision: Precision, speedup: float, lost: float) -> LeverPoint:
    def known(value: float, by: float) -> Interval:
        return Interval(estimate=value, low=value - by, high=value + by, confidence=0.95)

    loss = Loss(points=known(lost, 1.0), estimated=True, agreement_percent=known(95.0, 2.0), images=100)
    dropped = tuple(f"b{number}" for number in range(blocks))
    width = 0.0 if speedup == 1 else 0.02
    return LeverPoint(
        dropped=dropped, precision=precision, speedup=known(speedup, width), agreement_percent=None, loss=loss
    )


ORIGINAL = point(0, Precision.FP32, 1.0, 0.0)
POINTS = (
    ORIGINAL,
    point(1, Precision.FP32, 1.1, 0.8),
    point(3, Precision.FP32, 1.4, 3.0),
    point(0, Precision.INT8, 2.0, 0.5),
    point(1, Precision.INT8, 2.2, 1.2),
    point(3, Precision.INT8, 2.8, 3.2),
)


def test_front_leaves_out_what_another_point_beats():
    assert [each.on_front for each in with_front(POINTS)] == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    ("max_drop", "min_speedup", "taken"),
    [(1.0, None, 3), (2.0, None, 4), (0.7, None, 3), (None, 2.1, 4), (1.0, 2.1, 4), (1.0, 2.5, 5), (None, 1.05, 3)],
)
def test_fastest_within_the_loss_or_least_loss_at_the_speed(max_drop, min_speedup, taken):
    assert choose_point(POINTS, max_drop=max_drop, min_speedup=min_speedup) is POINTS[taken]


def test_required_speed_must_be_reached_with_half_an_interval_to_spare():
    # 2.2 [2.18, 2.22] is surely 2.16 in the final measurement
    assert choose_point(POINTS, max_drop=None, min_speedup=2.16) is POINTS[4]
    assert choose_point(POINTS, max_drop=None, min_speedup=2.17) is POINTS[5]


def test_original_itself_is_no_choice():
    assert choose_point(POINTS, max_drop=0.1, min_speedup=None) is None
    error = no_point(POINTS, max_drop=0.1, min_speedup=None)
    assert isinstance(error, TargetOutOfReach) and "all blocks in int8, is 2.00 times as fast, loses 0.5" in str(error)


def test_point_whose_loss_is_not_known_is_never_within_it():
    unknown = LeverPoint(
        dropped=(), precision=Precision.INT8, speedup=POINTS[3].speedup, agreement_percent=None, loss=None
    )
    assert choose_point((ORIGINAL, unknown), max_drop=50.0, min_speedup=None) is None


def test_advice_is_the_next_slower_point_by_options_that_build_it():
    assert advice(POINTS, POINTS[5]).endswith("--precision int8 --drop 1")
    assert advice(POINTS, POINTS[4]).endswith("--precision auto --max-drop none --min-speedup 1.96")
    assert "no slower point" in advice(POINTS[:2], POINTS[1])
