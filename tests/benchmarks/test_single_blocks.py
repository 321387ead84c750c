"""The study of what single blocks are judged by."""

import pytest

pytest.importorskip("scipy", reason="the study of single blocks needs the extra 'bench'")

from benchmarks.reproduce.single_blocks import AT_CUT, BEHIND, PLAIN, WHOLE, Judged, behind_the_cut, summary
from networks import tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from samples.lessons import RESNET, images, opened


def test_first_site_behind_the_cut_is_another_one_and_the_last_block_has_none():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=images(4, RESNET))
    found = behind_the_cut(calibration, blocks["layer1.1"])
    assert found is not None and found.point is not None
    assert found.point.target == "add_2" and not found.is_refitted_at_the_cut
    assert behind_the_cut(calibration, blocks["layer3.2"]) is None


def test_summary_is_over_blocks_that_have_every_error():
    rows = [Judged(f"b{n}", {PLAIN: 4.0 * n, BEHIND: 2.0 * n, AT_CUT: 13.0 - n, WHOLE: float(n)}) for n in range(1, 13)]
    plain, behind, at_cut = summary([*rows, Judged("last", {PLAIN: 1.0, AT_CUT: 1.0, WHOLE: 1.0})])
    assert [one["refitted"] for one in (plain, behind, at_cut)] == [PLAIN, BEHIND, AT_CUT]
    assert plain["blocks"] == 12
    assert (plain["rank_correlation"], at_cut["rank_correlation"]) == (pytest.approx(1), pytest.approx(-1))
    assert plain["times_the_whole"]["estimate"] == pytest.approx(4)
    assert behind["times_the_whole"]["low"] == pytest.approx(2)
    few = summary(rows[:3])
    assert few[0]["times_the_whole"] == {"estimate": pytest.approx(4), "low": None, "high": None}
