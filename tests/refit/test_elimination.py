"""Races of ways to recover: the best is never lost, and who is surely worse costs no more images."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from practise_deploy.refit.criterion import Errors
from practise_deploy.refit.elimination import comparable, eliminate, paired_error, survivors, winner_of

IMAGES, BATCH = 64, 8


def errors_of(features: Tensor) -> Errors:
    """Errors of images whose features vary by 1."""
    none = features.new_zeros(len(features), 0)
    return Errors(features, torch.ones_like(features), none, none)


def noise(seed: int) -> Tensor:
    return torch.rand(IMAGES, generator=torch.Generator().manual_seed(seed))


class Track:
    """Ways with the errors of every image, and a note of who was looked at how often."""

    def __init__(self, **ways: Tensor) -> None:
        self.ways, self.looked = ways, dict.fromkeys(ways, 0)

    def looks(self) -> Iterator[Callable[[str], Errors]]:
        for begin in range(0, IMAGES, BATCH):

            def look(way: str, begin: int = begin) -> Errors:
                self.looked[way] += 1
                return errors_of(self.ways[way][begin : begin + BATCH])

            yield look


HARD = noise(0)  # some images are harder than others, for every way


def test_who_is_surely_worse_leaves_early_though_images_differ_more_than_ways():
    track = Track(best=HARD + 0.01 * noise(1), worse=HARD + 0.1 + 0.01 * noise(2))
    found = eliminate(track.ways, track.looks(), {})
    assert track.looked == {"best": 8, "worse": 2}
    assert len(found["best"].features) == IMAGES and len(found["worse"].features) == 2 * BATCH
    assert winner_of(found) == "best"


def test_ways_that_cannot_be_told_apart_all_finish():
    track = Track(first=HARD + 0.1 * noise(1), second=HARD + 0.1 * noise(2))
    eliminate(track.ways, track.looks(), {})
    assert track.looked == {"first": 8, "second": 8}


def test_what_is_known_already_takes_part_and_is_not_looked_at_again():
    track = Track(worse=HARD + 0.1 + 0.01 * noise(1))
    eliminate(track.ways, track.looks(), {"known": errors_of(HARD)})
    assert track.looked == {"worse": 2}


def test_way_that_gives_no_numbers_leaves_at_once_and_never_wins():
    broken = HARD.clone()
    broken[3] = math.nan
    track = Track(broken=broken, sound=HARD + 5)
    found = eliminate(track.ways, track.looks(), {})
    assert track.looked == {"broken": 1, "sound": 8}
    assert winner_of(found) == "sound"
    assert comparable(errors_of(broken)) == math.inf
    assert winner_of({"broken": errors_of(broken), "sound": errors_of(HARD + 5)}) == "sound"


def test_nobody_leaves_before_there_are_images_enough_to_know():
    assert survivors({"good": HARD[:15], "bad": HARD[:15] + 10}) == ["good", "bad"]
    assert survivors({"good": HARD[:16], "bad": HARD[:16] + 10}) == ["good"]


@pytest.mark.parametrize("seed", range(20))
def test_winner_of_a_race_is_the_best_of_all_or_as_good(seed):
    """Against judging everybody on all images, on draws in which the ways are close."""
    ways = {str(n): HARD + 0.02 * n + 0.1 * noise(100 * seed + n) for n in range(10)}
    found = eliminate(ways, Track(**ways).looks(), {})
    best = min(float(each.mean()) for each in ways.values())
    assert float(ways[winner_of(found)].mean()) <= best + 0.01


def test_error_of_who_left_is_told_beside_the_winners():
    winner, left = errors_of(HARD), errors_of(HARD[:8] + 0.25)
    assert paired_error(winner, left) == pytest.approx(winner.relative + 0.25)
    assert paired_error(winner, winner) == pytest.approx(winner.relative)
    assert paired_error(winner, errors_of(HARD[:8] - 0.25)) == winner.relative  # it left before the winner led
