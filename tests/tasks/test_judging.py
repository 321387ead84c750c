"""How far networks agree, by the task."""

from __future__ import annotations

import numpy as np
import pytest

from practise_deploy.tasks.judging import agreement_of, loss_of, neighbours_kept, shares_of
from practise_deploy.terms import Task, TaskKind

RNG = np.random.default_rng(0)


def shares(kind: TaskKind, first, second) -> list[float]:
    return shares_of(Task(kind=kind), np.array(first, np.float32), np.array(second, np.float32)).tolist()


def test_labels_agree_one_by_one():
    assert shares(TaskKind.MULTI_LABEL, [[1, -1, 2, -2]], [[3, -1, -2, -2]]) == [0.75]


def test_pixels_and_positions_agree_one_by_one():
    for kind in (TaskKind.SEGMENTATION, TaskKind.SEQUENCE):
        assert shares(kind, [[1, 2, 3, 4], [0, 0, 0, 0]], [[1, 2, 0, 0], [0, 0, 0, 0]]) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ([0, 5, 5, 0, 6, 0], [5, 0, 0, 6, 6, 6], 1.0),  # both read 5 6
        ([5, 0, 5, 0, 6, 0], [5, 5, 0, 6, 6, 0], 2 / 3),  # 5 5 6 against 5 6
        ([5, 6, 7, 8, 0, 0], [6, 7, 8, 0, 0, 0], 0.75),  # one character is missing, the others are not shifted
        ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], 1.0),
        ([0, 0, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0], 0.0),
    ],
)
def test_characters_are_what_is_left_of_repetitions_and_blanks(first, second, share: float):
    assert shares(TaskKind.CTC, [first], [second]) == [pytest.approx(share)]


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "original", "other", "share"),
    [
        (TaskKind.SEQUENCE, [1, 2, NAN, NAN], [1, 0, 5, 6], 0.5),
        (TaskKind.MULTI_LABEL, [1, -2, NAN, NAN], [1, 2, 3, NAN], 0.5),
        (TaskKind.CTC, [5, 0, 6, NAN], [5, 0, 6, 7], 1.0),
        (TaskKind.CTC, [NAN, NAN], [5, 6], 1.0),
        (TaskKind.EMBEDDING, [3, 4, NAN], [6, 8, 100], 1.0),
        (TaskKind.SEQUENCE, [NAN, NAN], [5, 6], 0.0),  # nothing counts: nothing is proven
    ],
)
def test_what_is_nan_in_the_original_is_padding_and_does_not_count(kind, original, other, share: float):
    assert shares(kind, [original], [other]) == [pytest.approx(share)]


def test_variance_is_explained_of_what_counts_alone():
    values = RNG.normal(size=(400, 5))
    noisy, padding = values + 0.5 * RNG.normal(size=values.shape), RNG.random(values.shape) < 0.3
    padding[:, 0] = False
    found = np.mean(shares(TaskKind.REGRESSION, np.where(padding, NAN, values), np.where(padding, 1e6, noisy)))
    assert found == pytest.approx(0.75, abs=0.03)


def test_embeddings_agree_by_cosine_and_never_below_none():
    assert shares(TaskKind.EMBEDDING, [[3, 4], [1, 0], [1, 0]], [[6, 8], [0, 1], [-1, 0]]) == [pytest.approx(1.0), 0, 0]


def test_values_agree_as_far_as_their_variance_is_explained():
    values = RNG.normal(size=(400, 5))
    noisy = values + 0.5 * RNG.normal(size=values.shape)
    assert np.mean(shares(TaskKind.REGRESSION, values, noisy)) == pytest.approx(0.75, abs=0.02)
    assert shares(TaskKind.REGRESSION, values, values) == [1.0] * 400
    assert np.mean(shares(TaskKind.REGRESSION, values, np.zeros_like(values) + values.mean(0))) < 0.25


def test_nans_agree_with_nothing():
    broken = np.full((3, 4), np.nan, np.float32)
    assert shares(TaskKind.CLASSIFICATION, np.eye(4)[:3], broken) == [0, 0, 0]


def test_loss_of_what_is_no_classifier_is_what_does_not_agree():
    first = RNG.integers(0, 5, (50, 40)).astype(np.float32)
    second = first.copy()
    second[:, :4] += 1
    task = Task(kind=TaskKind.SEGMENTATION)
    loss, agreement = loss_of(task, first, second), agreement_of(task, first, second)
    assert loss.points.estimate == pytest.approx(10) and agreement.estimate == pytest.approx(90)
    assert loss.points.low <= 10 <= loss.points.high and loss.kind is TaskKind.SEGMENTATION
    assert loss.agreement_percent == agreement and not loss.estimated


def test_agreement_without_any_difference_is_not_certain():
    same = np.ones((20, 4), np.float32)
    assert agreement_of(Task(kind=TaskKind.EMBEDDING), same, same).low < 95


def test_one_logit_is_judged_as_two_classes():
    first = np.array([[-1, 1], [1, -1], [2, -2]], np.float32)
    loss = loss_of(Task(kind=TaskKind.BINARY), first, -first, np.array([1, 0, 0]))
    assert loss.points.estimate == 100 and loss.agreement_percent.estimate == 0


def test_neighbours_of_embeddings_are_kept_or_not():
    first = RNG.normal(size=(60, 8))
    assert neighbours_kept(first, 3 * first) == 1.0
    assert neighbours_kept(first, RNG.normal(size=(60, 8))) < 0.3
    assert neighbours_kept(first[:10], first[:10]) is None
