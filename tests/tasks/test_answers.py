"""Answers of networks: what of their outputs a task is about."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from practise_deploy.tasks.answers import answers_of
from practise_deploy.terms import Scores, Task, TaskKind

PROBABILITIES = {"scores": Scores.PROBABILITIES}


def answers(kind: TaskKind, output: Tensor, **fields) -> Tensor | None:
    return answers_of(Task(kind=kind, **fields), [output])


def test_probabilities_of_classes_become_logits_that_give_them_back():
    shares = torch.softmax(torch.randn(5, 4), 1)
    found = answers(TaskKind.CLASSIFICATION, shares, **PROBABILITIES)
    assert found is not None and torch.allclose(torch.softmax(found, 1), shares, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1), (3,), (3, 2, 4), (3, 5, 2, 2)])
def test_classes_are_never_told_of_what_is_no_row_of_scores(shape: tuple[int, ...]):
    assert answers(TaskKind.CLASSIFICATION, torch.randn(shape)) is None


def test_classes_of_a_convolution_that_ends_in_one_place_are_scores():
    assert answers(TaskKind.CLASSIFICATION, torch.randn(3, 7, 1, 1)).shape == (3, 7)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1, 1)])
def test_one_logit_says_yes_above_zero_and_one_probability_above_a_half(shape: tuple[int, ...]):
    logits = torch.tensor([-3.0, -0.1, 0.1, 3.0]).view(shape)
    for output, fields in ((logits, {}), (torch.sigmoid(logits), PROBABILITIES)):
        found = answers(TaskKind.BINARY, output, **fields)
        assert found.shape == (4, 2) and found.argmax(1).tolist() == [0, 0, 1, 1]
        assert torch.allclose(torch.softmax(found, 1)[:, 1], torch.sigmoid(logits).flatten(), atol=1e-5)


def test_certain_probabilities_have_finite_logits():
    found = answers(TaskKind.BINARY, torch.tensor([0.0, 1.0]), **PROBABILITIES)
    assert bool(torch.isfinite(found).all()) and found.argmax(1).tolist() == [0, 1]


def test_two_numbers_are_not_one_logit():
    assert answers(TaskKind.BINARY, torch.randn(4, 2)) is None


def test_pixels_are_of_the_best_class_and_a_single_map_is_split_at_a_half():
    scores = torch.randn(2, 3, 4, 5)
    assert torch.equal(answers(TaskKind.SEGMENTATION, scores), scores.argmax(1).flatten(1).float())
    single = torch.rand(2, 1, 4, 5)
    assert torch.equal(answers(TaskKind.SEGMENTATION, single, **PROBABILITIES), (single > 0.5).flatten(1).float())


def test_large_maps_are_looked_at_in_places_of_every_column():
    columns = torch.arange(512.0).expand(1, 1, 512, 512) % 2
    found = answers(TaskKind.SEGMENTATION, columns - 0.5)
    assert found.shape[1] <= 1 << 16
    assert 0.45 < float(found.mean()) < 0.55  # a step of four would see even columns alone


def test_positions_are_of_the_best_class():
    scores = torch.randn(2, 6, 9)
    assert torch.equal(answers(TaskKind.SEQUENCE, scores), scores.argmax(2).float())
    assert answers(TaskKind.CTC, torch.randn(2, 9)) is None


def test_output_that_the_task_names_is_judged():
    outputs = [torch.randn(2, 3), torch.randn(2, 4)]
    assert torch.equal(answers_of(Task(output=1), outputs), outputs[1])
