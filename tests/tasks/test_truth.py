"""Labels of tasks without classes, as true answers, and what is lost by them."""

from __future__ import annotations

import numpy as np
import pytest

from practise_deploy.errors import InputError
from practise_deploy.planning.loss import mean_difference
from practise_deploy.tasks.judging import accuracy_of, loss_of, shares_of
from practise_deploy.tasks.truth import best_constant, takes_labels, truth_of
from practise_deploy.terms import Task, TaskKind

RNG = np.random.default_rng(0)
NAN = float("nan")


def task(kind: TaskKind, *shape: int) -> Task:
    return Task(kind=kind, shapes=(shape,))


LABELS = task(TaskKind.MULTI_LABEL, 4)
MAPS = task(TaskKind.SEGMENTATION, 3, 2, 2)
VALUES = task(TaskKind.REGRESSION, 2)


@pytest.mark.parametrize(
    ("what", "labels", "answers", "right"),
    [
        (LABELS, [[1, 0, 1, -1]], [[5.0, 5.0, 0.1, -3.0]], 2 / 3),
        (LABELS, [[True, False, True, True]], [[5.0, -5.0, 0.1, 3.0]], 1.0),
        (MAPS, [[[0, 2], [255, 1]]], [[0, 2, 1, 0]], 2 / 3),
        (task(TaskKind.SEGMENTATION, 1, 1, 2), [[[0, 1]]], [[0, 0]], 0.5),
        (task(TaskKind.SEQUENCE, 3, 5), [[4, 2, -1]], [[4, 1, 1]], 0.5),
    ],
)
def test_answers_are_held_against_what_the_labels_say_and_unknown_ones_do_not_count(what, labels, answers, right):
    truth = truth_of(what, np.array(labels))
    assert shares_of(what, truth, np.array(answers, np.float32)).tolist() == [pytest.approx(right)]


def test_one_number_for_each_sample_needs_no_axis_of_its_own():
    assert truth_of(task(TaskKind.REGRESSION, 1), np.array([1.5, NAN, 3])).shape == (3, 1)


@pytest.mark.parametrize(
    ("what", "labels", "said"),
    [
        (LABELS, np.zeros((3, 5)), r"float64\[3, 5\]; as multi-label the network answers \[n, 4\]"),
        (LABELS, np.full((3, 4), 2), "numbers from 2 to 2; a label holds"),
        (MAPS, np.full((3, 2, 2), 3), "the network has 3 classes"),
        (MAPS, np.full((3, 2, 2), 0.5), "the network has 3 classes"),
        (VALUES, np.array([[1, np.inf]]), "infinity"),
        (VALUES, np.zeros(3), r"answers \[n, 2\]"),
    ],
)
def test_labels_that_do_not_fit_the_answers_are_refused(what, labels, said):
    with pytest.raises(InputError, match=said) as error:
        truth_of(what, labels)
    assert error.value.remedy.startswith("write ")


def test_boxes_embeddings_texts_and_metrics_take_no_labels():
    kinds = {kind for kind in TaskKind if takes_labels(task(kind, 4))}
    assert kinds == {TaskKind.MULTI_LABEL, TaskKind.REGRESSION, TaskKind.SEGMENTATION, TaskKind.SEQUENCE}


def test_what_changes_and_is_no_less_right_loses_nothing_by_labels():
    truth = truth_of(LABELS, RNG.integers(0, 2, (300, 4)))
    original, other = truth * 2, truth * 2
    original[:150, 0] *= -1
    other[150:, 0] *= -1
    loss, agreement = loss_of(LABELS, original, other, truth), loss_of(LABELS, original, other)
    assert loss.points.estimate == pytest.approx(0) and loss.points.low < 0 < loss.points.high < 5
    assert loss.of_accuracy and not agreement.of_accuracy and agreement.points.estimate == pytest.approx(25)
    found = accuracy_of(LABELS, other, truth)
    assert (found.percent.estimate, found.correct) == (pytest.approx(87.5), None)


@pytest.mark.parametrize(
    ("what", "labels"),
    [
        (LABELS, RNG.integers(0, 2, (60, 4)) * [1, 1, 0, 1]),
        (MAPS, RNG.choice(3, (60, 2, 2), p=[0.8, 0.1, 0.1])),
        (VALUES, RNG.normal(size=(60, 2)) + 5),
    ],
)
def test_network_that_gives_one_answer_to_everything_has_nothing_to_lose(what, labels):
    truth = truth_of(what, labels)
    constant = np.repeat(best_constant(what, truth), len(truth), 0)
    assert not loss_of(what, constant, constant, truth).above_chance
    assert loss_of(what, truth, constant, truth).above_chance


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.0), (0.1, 0.03), (0.3, 0.3)])
def test_interval_of_a_mean_difference_covers_it(lost: float, gained: float):
    """Shares lost and gained at random: 95% of the intervals hold the true mean."""
    drawn = RNG.random((400, 150))
    sizes = RNG.random((400, 150))
    differences = np.where(drawn < lost, sizes, np.where(drawn > 1 - gained, -sizes, 0.0))
    mean = 100 * (lost - gained) / 2
    covered = [interval.low <= mean <= interval.high for interval in map(mean_difference, differences)]
    assert np.mean(covered) >= 0.92
