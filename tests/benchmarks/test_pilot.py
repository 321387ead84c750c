"""Learning rates of the baselines: what the pilot tries, and what the grid takes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from practise_deploy.errors import InputError

pytest.importorskip("torch_pruning", reason="filter pruning needs the extra 'bench'")
from benchmarks.reproduce.tiny.lessons import pilot_path, rate_of
from benchmarks.reproduce.tiny.pilot import TRIED, climbed


def test_rates_are_the_pilots_best_for_the_number_of_images_that_is_nearest(tmp_path):
    trials = {"50": {"best": {"kd": 0.001, "labels": 0.0002}}, "500": {"best": {"kd": 0.02, "labels": 0.005}}}
    pilot_path(tmp_path).write_text(json.dumps({"images": trials}))
    assert [rate_of("kd", count, tmp_path) for count in (10, 50, 100, 500, 1000)] == [0.001] * 3 + [0.02] * 2
    assert rate_of("labels", 500, tmp_path) == 0.005
    assert rate_of("mimic", 500, tmp_path) == 0.02


def test_rates_cannot_be_told_without_the_pilot_but_for_those_that_are_published(tmp_path):
    assert rate_of("mimic", 50, tmp_path) == 0.02
    with pytest.raises(InputError, match=r"pilot\.json"):
        rate_of("kd", 50, tmp_path)


@pytest.mark.parametrize("best", [0.0000125, 0.001, 0.08, 0.32])
def test_pilot_goes_beyond_an_edge_that_is_best_until_it_is_best_no_more(best):
    found = climbed(TRIED, lambda rate: -abs(np.log(rate / best)))
    assert list(found) == sorted(found)
    assert max(found, key=found.__getitem__) == pytest.approx(best)
    assert min(found) < best * 0.99 and max(found) > best * 1.01
    assert set(TRIED) <= set(found)
