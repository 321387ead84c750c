"""Boxes: every form of output that is known is decoded to the same ones, and boxes are matched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from practise_deploy.tasks.answers import answers_of
from practise_deploy.tasks.detection import boxes_of, has_boxes, matched
from practise_deploy.tasks.judging import loss_of
from practise_deploy.terms import Task, TaskKind

BOXES = torch.tensor([[10.0, 10, 50, 50], [100, 100, 180, 160], [12, 12, 52, 52], [300, 300, 310, 310]])
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.1])
CLASSES = torch.tensor([2, 0, 2, 1])
WANTED = [[10, 10, 50, 50, 0.9, 2], [100, 100, 180, 160, 0.8, 0]]
"""The third overlaps the first, the fourth is too unsure."""


def rows(answers: Tensor) -> list[list[float]]:
    found = answers.view(-1, 6)
    return [[round(each, 3) for each in row] for row in found[found[:, 4] >= 0].tolist()]


def places() -> tuple[Tensor, Tensor]:
    """Centres and sizes [places, 4], scores of classes [places, 3]; places beyond the four are empty."""
    centres = torch.cat([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], 1)
    scores = torch.zeros(4, 3)
    scores[torch.arange(4), CLASSES] = SCORES
    return torch.cat([centres, torch.zeros(16, 4)]), torch.cat([scores, torch.zeros(16, 3)])


def by_places() -> list[Tensor]:
    return [torch.cat(places(), 1).T[None]]


def with_objectness() -> list[Tensor]:
    centres, scores = places()
    return [torch.cat([centres, torch.full((20, 1), 0.5), 2 * scores], 1)[None]]


def suppressed() -> list[Tensor]:
    kept = torch.tensor([0, 1, 3])
    return [torch.cat([BOXES[kept], SCORES[kept, None], CLASSES[kept, None].float()], 1)[None]]


def several() -> list[Tensor]:
    return [CLASSES[None].float(), BOXES[None], SCORES[None]]


def several_by_class() -> list[Tensor]:
    scores = torch.zeros(4, 3)
    scores[torch.arange(4), CLASSES] = SCORES
    return [BOXES[None], scores[None]]


@pytest.mark.parametrize("outputs", [by_places, with_objectness, suppressed, several, several_by_class])
def test_every_form_gives_the_same_boxes(outputs):
    assert rows(boxes_of(outputs())) == [pytest.approx(row) for row in WANTED]


def test_output_of_no_known_form_has_no_answers():
    assert answers_of(Task(kind=TaskKind.DETECTION), [torch.zeros(2, 9)]) is None
    assert answers_of(Task(kind=TaskKind.DETECTION), [torch.zeros(2, 9), torch.zeros(2, 3)]) is None


def answer(*found: list[float]) -> np.ndarray:
    whole = np.full((1, 600), -1.0)
    whole[0, : 6 * len(found)] = np.array(found).reshape(-1)
    return whole


FIRST, SECOND = [0, 0, 10, 10, 0.9, 1], [20, 20, 40, 40, 0.8, 2]


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (answer(FIRST, SECOND), 1.0),
        (answer(SECOND, FIRST), 1.0),
        (answer(FIRST), 2 / 3),
        (answer(), 0.0),
        (answer([0, 0, 10, 10, 0.9, 3], SECOND), 0.5),
        (answer([0, 0, 10, 6, 0.5, 1], SECOND), 1.0),  # IoU 0.6
        (answer([0, 0, 10, 4, 0.5, 1], SECOND), 0.5),  # IoU 0.4
        (answer(FIRST, FIRST, SECOND), 0.8),  # a box is matched once
    ],
)
def test_boxes_are_matched_by_overlap_and_class(other: np.ndarray, share: float):
    assert matched(answer(FIRST, SECOND), other).tolist() == [pytest.approx(share)]


def test_images_without_boxes_agree_and_prove_nothing():
    nothing = np.repeat(answer(), 30, 0)
    assert matched(nothing, nothing).tolist() == [1.0] * 30 and not has_boxes(nothing)
    assert not loss_of(Task(kind=TaskKind.DETECTION), nothing, nothing).above_chance
    assert loss_of(Task(kind=TaskKind.DETECTION), np.repeat(answer(FIRST), 30, 0), nothing).points.estimate == 100
