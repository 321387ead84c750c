"""Neighbouring sets of blocks, judged on held-out images: known arrays stand for the networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from practise_backends.terms import Interval
from practise_deploy.deployment.frontier import (
    Neighbour,
    evaluation_sample,
    judge_neighbours,
    neighbours_of,
    released_point,
)
from practise_deploy.deployment.verify import Outputs, Runner
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.planning.loss import estimated_points
from practise_deploy.terms import Plan
from samples import plans, releases

CLASSES = 4
RANKED = tuple("abcdefgh")


def interval(estimate: float, half: float = 1.0) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def plan(dropped: int, ranked: int = len(RANKED)) -> Plan:
    names = RANKED[:ranked]
    scores = {name: float(at) for at, name in enumerate(names)}
    return replace(plans.plan(), scores=scores, dropped=names[:dropped])


def held_out(count: int, labels: list[int] | None = None) -> HeldOutImages:
    """Image number n is of class n modulo four, which its pixels say."""
    pixels = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    return HeldOutImages(pixels, None if labels is None else torch.tensor(labels), plans.preprocessing())


def answering(wrong_from: int | None = None) -> Runner:
    """The class of the image; the next class from that image on."""

    def compute(images: Tensor) -> Outputs:
        numbers = images[:, 0, 0, 0].numpy().astype(int)
        late = np.zeros_like(numbers) if wrong_from is None else numbers >= wrong_from
        return (np.eye(CLASSES, dtype=np.float32)[(numbers + late) % CLASSES],)

    return compute


class Screen:
    def __init__(self) -> None:
        self.shown: list[tuple[float, float]] = []

    def advance(self, done: float, total: float, note: str = "") -> None:
        self.shown.append((done, total))


# Which sets.


@pytest.mark.parametrize(
    ("dropped", "ranked", "sizes"),
    [
        (4, 8, [2, 3, 4, 5, 6]),
        (1, 8, [1, 2, 3]),
        (2, 8, [1, 2, 3, 4]),
        (8, 8, [4, 6, 7, 8]),
        (7, 8, [3, 5, 6, 7, 8]),
        (1, 1, [1]),
    ],
)
def test_neighbours_have_up_to_two_blocks_fewer_and_more_and_half(dropped: int, ranked: int, sizes: list[int]):
    found = neighbours_of(plan(dropped, ranked))
    assert [len(names) for names in found] == sizes
    assert all(names == RANKED[: len(names)] for names in found)


def test_what_a_demand_on_the_speed_calls_for_is_a_neighbour_too():
    assert [len(names) for names in neighbours_of(plan(1), needed=7)] == [1, 2, 3, 7]
    assert [len(names) for names in neighbours_of(plan(3), needed=2)] == [1, 2, 3, 4, 5]


# Which images.


def test_few_images_are_judged_all():
    images = held_out(400, [0] * 400)
    assert evaluation_sample(images, seed=0) is images


def test_of_many_images_four_hundred_are_drawn_with_their_labels():
    images = held_out(1000, [n % 7 for n in range(1000)])
    part = evaluation_sample(images, seed=3)
    numbers = part.pixels[:, 0, 0, 0].int().tolist()
    assert len(part) == len(set(numbers)) == 400
    assert numbers == sorted(numbers)
    assert part.labels is not None and part.labels.tolist() == [n % 7 for n in numbers]
    assert part.preprocessing == images.preprocessing
    assert 150 < sum(n < 500 for n in numbers) < 250  # not the first four hundred


def test_seed_decides_which_images_are_drawn():
    images = held_out(1000)
    first, again, other = (evaluation_sample(images, seed).pixels[:, 0, 0, 0].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert evaluation_sample(images, 1).labels is None


# What they still know.


def neighbour(count: int, wrong_from: int | None) -> Neighbour:
    return Neighbour(
        dropped=RANKED[:count],
        recovery="closed form",
        reduction_percent=interval(8.0 * count),
        form=answering(wrong_from),
    )


def test_neighbours_are_judged_against_labels_and_the_original():
    images = held_out(100, [n % CLASSES for n in range(100)])
    neighbours = [neighbour(1, None), neighbour(2, 80), neighbour(3, 50)]
    screen = Screen()
    points = judge_neighbours(answering(), neighbours, RANKED[:2], images, screen)
    assert [point.dropped for point in points] == [RANKED[:1], RANKED[:2], RANKED[:3]]
    assert [point.accuracy.correct if point.accuracy else None for point in points] == [100, 80, 50]
    assert [point.loss.points.estimate if point.loss else None for point in points] == [0.0, 20.0, 50.0]
    assert [point.loss.estimated for point in points if point.loss] == [False] * 3
    assert [point.agreement_percent.estimate for point in points] == [100.0, 80.0, 50.0]
    assert [point.chosen for point in points] == [False, True, False]
    assert [point.reduction_percent.estimate for point in points] == [8.0, 16.0, 24.0]
    assert {point.recovery for point in points} == {"closed form"}
    assert screen.shown[-1] == (100, 100)


def test_loss_is_paired_with_the_original_which_may_be_wrong_itself():
    """The original errs on the last 40, the neighbour on the last 20: it gained."""
    images = held_out(100, [n % CLASSES for n in range(100)])
    (point,) = judge_neighbours(answering(60), [neighbour(1, 80)], (), images, Screen())
    assert point.loss is not None and point.loss.points.estimate == -20.0
    assert point.agreement_percent.estimate == 80.0


def test_without_labels_the_loss_is_estimated_by_the_originals_own_probabilities():
    """Of ten images with another answer: what the original gives its own answer, less what it gives the neighbour's."""
    points = judge_neighbours(answering(), [neighbour(1, 90)], (), held_out(100), Screen())
    assert points[0].accuracy is None and points[0].loss is not None
    assert (points[0].loss.estimated, points[0].loss.images) == (True, 100)
    assert points[0].loss.points.estimate == pytest.approx(
        estimated_points(answering()(held_out(100).pixels)[0], answering(90)(held_out(100).pixels)[0]).estimate
    )
    assert 0 < points[0].loss.points.estimate < 10
    assert points[0].loss.points.low < points[0].loss.points.estimate < points[0].loss.points.high
    assert points[0].loss.agreement_percent == points[0].agreement_percent
    assert points[0].agreement_percent.estimate == 90.0
    assert points[0].agreement_percent.low < 90.0 < points[0].agreement_percent.high


def test_network_that_gives_maps_has_no_accuracy_though_there_are_labels():
    def maps(images: Tensor) -> Outputs:
        return (answering()(images)[0][:, :, None, None].repeat(2, axis=2),)

    one = replace(neighbour(1, None), form=maps)
    (point,) = judge_neighbours(maps, [one], (), held_out(40, [0] * 40), Screen())
    assert (point.accuracy, point.loss, point.agreement_percent) == (None, None, None)


# The release among them.


def test_release_is_a_point_by_what_was_measured_and_verified():
    bench = replace(releases.comparison(), speedup=Interval(estimate=1.25, low=1.0, high=2.0, confidence=0.9))
    verification = releases.verification()
    found = released_point(plans.plan(), bench, verification)
    assert found.dropped == plans.DROPPED and found.recovery == "finetuned" and found.chosen
    reduction = found.reduction_percent
    assert (reduction.low, reduction.estimate, reduction.high) == pytest.approx((0.0, 20.0, 50.0))
    assert reduction.confidence == 0.9
    assert found.accuracy == verification.accuracy["engine"]
    assert found.agreement_percent == verification.links[-1].agreement_percent
    assert found.loss == verification.loss


def test_release_without_labels_has_no_accuracy_and_its_estimated_loss():
    verification = releases.unlabelled().verification
    found = released_point(plans.plan(), releases.comparison(), verification)
    assert found.accuracy is None and found.loss == verification.loss
    assert found.loss is not None and found.loss.estimated
