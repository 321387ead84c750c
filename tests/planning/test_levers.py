"""The choice among points of blocks and precision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practise_backends.choices import Precision
from practise_backends.terms import Interval
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.outcome import BuiltPoint, LeverPoint
from practise_deploy.planning.levers import advice, best_built, choose_point, next_point, no_point, with_front
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


def built(point_: LeverPoint, lost: float, by: float = 0.5, *, above_chance: bool = True) -> BuiltPoint:
    assert point_.loss
    points = Interval(estimate=lost, low=lost - by, high=lost + by, confidence=0.95)
    loss = replace(point_.loss, points=points, above_chance=above_chance)
    return BuiltPoint(dropped=point_.dropped, precision=point_.precision, loss=loss)


FAST, SLOWER, SLOWEST = POINTS[5], POINTS[4], POINTS[3]


def test_first_point_counts_on_what_finetuning_may_win_back():
    assert choose_point(POINTS, max_drop=1.0, min_speedup=None, left=0.25) is FAST
    assert choose_point(POINTS, max_drop=0.7, min_speedup=None, left=0.25) is SLOWER


@pytest.mark.parametrize(
    ("lost", "by", "to_prove", "following"),
    [
        (0.3, 0.5, True, None),  # kept
        (0.8, 0.5, False, None),  # not proven, and not asked to be
        (0.8, 0.5, True, SLOWER),  # half an interval less is expected to do
        (3.0, 0.5, False, SLOWER),  # 2.2 of 2.8 saves a third of the time only
        (9.0, 0.5, False, SLOWEST),
    ],
)
def test_slower_point_follows_where_the_built_one_loses_too_much(lost, by, to_prove, following):
    assert next_point(POINTS, [built(FAST, lost, by)], 1.0, to_prove=to_prove) is following


def test_no_more_points_are_built_than_pay():
    tried = [built(FAST, 9.0), built(SLOWER, 5.0), built(SLOWEST, 3.0)]
    assert next_point(POINTS, tried, 1.0, to_prove=True) is None
    unknown = BuiltPoint(dropped=FAST.dropped, precision=FAST.precision, loss=None)
    assert next_point(POINTS, [unknown], 1.0, to_prove=True) is None
    ignorant = built(FAST, 0.8, above_chance=False)
    assert next_point(POINTS, [ignorant], 1.0, to_prove=True) is None


def test_share_of_the_time_tells_where_no_answer_changed():
    """All points of few images seem to lose nothing; the built one lost 0.9, and the slower one saves a third as much."""
    int8 = Precision.INT8
    points = (ORIGINAL, point(0, int8, 2.0, 0.0), point(2, int8, 2.2, 0.0), point(4, int8, 2.8, 0.0))
    assert next_point(points, [built(points[3], 0.9)], 1.0, to_prove=True) is points[2]
    assert next_point(points, [built(points[3], 4.0)], 1.0, to_prove=True) is points[1]


@pytest.mark.parametrize(
    ("losses", "taken"),
    [((3.0, 0.3), 1), ((0.8, 0.7), 0), ((3.0, 0.8), 1), ((3.0, 2.0), 1), ((3.0, 4.0), 0)],
)
def test_released_is_what_keeps_else_what_may_else_what_loses_least(losses, taken):
    tried = [built(each, lost) for each, lost in zip((FAST, SLOWER), losses, strict=True)]
    assert best_built(POINTS, tried, 1.0) == taken
    assert best_built(POINTS, tried, None) == 0
