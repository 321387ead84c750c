"""The study of streams that linear layers write: what is trained on judges nothing, and gains are paired by set."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the studies need the extra 'bench'")

from benchmarks.reproduce import small_networks
from benchmarks.reproduce.embedded_digits import Digits
from benchmarks.reproduce.small_networks import BOTH, FINETUNED, PLAIN, REFIT, split, summary


def test_as_many_images_of_each_class_judge_and_none_of_them_is_trained_on():
    labels = np.repeat(np.arange(10), 300)
    digits = Digits(images=np.arange(3000, dtype=np.int64).reshape(3000, 1, 1), labels=labels)
    train, test = split(digits)
    assert np.bincount(test.labels).tolist() == [200] * 10
    assert not set(train.images.ravel()) & set(test.images.ravel()) and len(train.labels) + len(test.labels) == 3000


def test_gains_are_paired_by_set_within_a_number_of_images():
    levels = [(50, 10.0, 1.0), (50, 80.0, 3.0), (500, 40.0, 5.0)]
    sets = [
        {"images": images, "percent": {PLAIN: level, REFIT: level + gain, FINETUNED: 90.0, BOTH: 90.0 + gain / 2}}
        for images, level, gain in levels
    ]
    few, many = summary(sets)
    assert (few["images"], few["sets"], many["images"], many["sets"]) == (50, 2, 500, 1)
    assert few["mean_percent"][PLAIN] == 45.0
    assert few["points_gained"]["refit"]["estimate"] == pytest.approx(2.0)
    assert few["points_gained"]["before finetuning"]["estimate"] == pytest.approx(1.0)
    assert many["points_gained"]["refit"]["estimate"] == pytest.approx(5.0)


@pytest.mark.parametrize("name", [path.stem for path in small_networks.RESULTS.glob("*.json")])
def test_committed_rows_are_those_of_the_committed_sets(name):
    found = json.loads((small_networks.RESULTS / f"{name}.json").read_text())
    assert len(found["sets"]) == small_networks.SETS * len(found["rows"])
    for row, again in zip(found["rows"], summary(found["sets"]), strict=True):
        assert row == again
