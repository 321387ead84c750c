"""How long a step will take is said by both programs, at its current pace."""

from __future__ import annotations

import pytest

from practise_backends import cli
from practise_backends.cli.progress import Pace
from practise_backends.fake import ScriptedClock


def test_time_left_follows_the_pace_of_the_last_half_minute() -> None:
    clock = ScriptedClock()
    pace, done = Pace(clock.now_s), 0.0
    for second in range(1, 101):  # twice as slow from the middle on
        clock.advance(1.0)
        done += 2.0 if second <= 50 else 1.0
        told = pace.left(done, 200.0)
        if second == 50:
            assert told == "about 50 s left"
    assert told == "about 50 s left"  # by the mean of all that was done it would be a third


def test_time_left_begins_anew_with_each_part_of_a_step() -> None:
    clock = ScriptedClock()
    pace = Pace(clock.now_s)
    for _ in range(20):  # files are opened for 20 s
        assert pace.left(0.0, 1.0) == ""
        clock.advance(1.0)
    assert pace.left(0.0, 1.0) == ""
    for second in range(1, 6):
        clock.advance(1.0)
        told = pace.left(float(second), 60.0)
    assert told == "about 55 s left"
    clock.advance(1.0)
    assert pace.left(1.0, 60.0) == ""  # another measurement


def test_line_of_progress_says_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ScriptedClock()
    line = cli._Line(clock.now_s)
    for second in range(3):
        line.advance(second, 200.0, f"{second} rounds")
        clock.advance(1.0)
    line.advance(200.0, 200.0)
    assert capsys.readouterr().err.split(cli._CLEARED)[1:] == [
        "  0% 0 rounds",
        "  0% about 3 min 19 s left, 1 rounds",
        "  1% about 3 min 18 s left, 2 rounds",
        "100% ",
    ]
