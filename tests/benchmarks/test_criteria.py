"""The study of criteria: sets are ranked within their size, and a set that was finetuned otherwise is computed anew."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

spearmanr = pytest.importorskip("scipy.stats", reason="the study of criteria needs the extra 'bench'").spearmanr

from benchmarks.reproduce import choice  # noqa: E402
from benchmarks.reproduce.ranks import advantage, best_mean, correlation  # noqa: E402

BLOCKS = tuple(f"block{number}" for number in range(7))
RANDOM = np.random.default_rng(0)
SIZES = [2] * 12 + [3] * 18
ACCURACY = np.where(np.array(SIZES) == 2, 90.0, 70.0) + RANDOM.normal(size=30)
CRITERION = -ACCURACY + RANDOM.normal(size=30)


def test_small_network_has_sets_of_two_sizes_and_at_least_forty():
    sets = choice.sets_of("resnet20", BLOCKS)
    assert len(set(sets)) == len(sets) >= 40
    assert {len(names) for names in sets[:2]} == {2, 3}
    assert [len(names) for names in sets].count(2) == len(sets) / 2
    assert set(sets) <= {names for size in (2, 3) for names in combinations(BLOCKS, size)}


def test_large_network_has_sets_of_one_size():
    sets = choice.sets_of("resnet56", tuple(f"block{number}" for number in range(25)))
    assert len(sets) >= 40 and {len(names) for names in sets} == {8}


def test_correlation_is_the_mean_of_those_within_a_size_by_number_of_sets():
    two, three = (-spearmanr(CRITERION[part], ACCURACY[part]).statistic for part in (slice(12), slice(12, None)))
    found = correlation(CRITERION, ACCURACY, SIZES)
    assert found["estimate"] == pytest.approx((12 * two + 18 * three) / 30)
    assert found["low"] < found["estimate"] < found["high"]


def test_criterion_that_tells_sizes_apart_and_nothing_else_is_worth_nothing():
    by_size = np.array(SIZES) + 0.01 * np.random.default_rng(1).normal(size=30)
    together = correlation(by_size, ACCURACY, [0] * 30)
    within = correlation(by_size, ACCURACY, SIZES)
    assert together["low"] > 0.5
    assert within["low"] < 0 < within["high"]


def test_resamples_keep_the_number_of_sets_of_each_size():
    exact = correlation(-ACCURACY, ACCURACY, SIZES)
    assert (exact["low"], exact["estimate"], exact["high"]) == pytest.approx((1.0, 1.0, 1.0))


def test_no_criterion_has_an_advantage_over_itself():
    found = advantage(CRITERION, CRITERION, ACCURACY, SIZES)
    assert (found["low"], found["estimate"], found["high"]) == (0.0, 0.0, 0.0)


def test_best_sets_are_those_of_each_size():
    found = best_mean(-ACCURACY, ACCURACY, SIZES, 1)
    assert found == pytest.approx((12 * ACCURACY[:12].max() + 18 * ACCURACY[12:].max()) / 30)


def test_sets_of_another_finetuning_are_left_out_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "study.json"
    kept = {"dropped": ["a"], "finetuning": "today's"}
    path.write_text(json.dumps({"sets": [{"dropped": ["b"]}, kept, {"dropped": ["c"], "finetuning": "another"}]}))
    assert choice.kept_sets(path, "today's") == [kept]
    assert "2 sets of another finetuning are left out" in capsys.readouterr().out


def test_study_that_is_not_there_yet_has_no_sets(tmp_path: Path):
    assert choice.kept_sets(tmp_path / "none.json", "today's") == []
