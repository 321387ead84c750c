"""The error of a set, and the sets of least error: pure arithmetic on hand-made records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.planning.choose import predicted_percent
from practise_deploy.planning.interactions import best_sets, candidates_of, exhaustive_search
from practise_deploy.planning.stability import RESAMPLES, selection_frequencies
from practise_deploy.terms import Budget, Recoverabilities, Recoverability
from samples import plans

BASELINE_MS = 10.0


def interval(estimate: float, half: float = 0.0) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def table(ms: Sequence[float], half: float = 0.0, additivity: Interval | None = None) -> LatencyTable:
    """Blocks a, b, c, ... that save so much of ten milliseconds, each of a latency class of its own."""
    savings = tuple(
        Saving(
            block=chr(97 + at), latency_class=at, saving_ms=interval(one, half),
            reduction_percent=interval(100 * one / BASELINE_MS, 100 * half / BASELINE_MS), pooled_with=(),
            distinguishable=True,
        )
        for at, one in enumerate(ms)
    )  # fmt: skip
    return replace(plans.latency(), baseline_ms=interval(BASELINE_MS), savings=savings, additivity=additivity)


def judged(mse: Sequence[float], **interactions: object) -> Recoverabilities:
    """The errors of blocks a, b, c, ... and their interactions by name, of one image or of many."""
    of = tuple(
        Recoverability(
            block=chr(97 + at), mse=interval(one), mse_dropped=2 * one, relative=one, fit_images=8, judged_images=2,
            method="refit",
        )
        for at, one in enumerate(mse)
    )  # fmt: skip
    forms = {name: np.asarray(form, dtype=np.float64) for name, form in interactions.items()}
    return Recoverabilities(of=of, interactions={n: f if f.ndim == 3 else f[None] for n, f in forms.items()})


# a and b are the easiest to lose, but lose the same thing twice; c and d make up for one another.
TWICE = np.array(
    [
        [1.0, 0.9, 0.0, 0.0],
        [0.9, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1.5, -1.0],
        [0.0, 0.0, -1.0, 1.5],
    ]
)
FOUR = table([1.0] * 4)


# Predicting.


def test_error_of_a_set_is_the_sum_over_its_rows_and_columns():
    candidates = candidates_of(FOUR, judged([1.0] * 4, features=TWICE))
    assert candidates.error_of(("a",)) == pytest.approx(1.0)
    assert candidates.error_of(("a", "b")) == pytest.approx(3.8)
    assert candidates.error_of(("c", "d")) == pytest.approx(1.0)
    assert candidates.error_of(("a", "b", "c", "d")) == pytest.approx(TWICE.sum())
    assert candidates.error_of(()) == 0.0


def test_error_is_of_the_mean_image():
    forms = np.stack([np.diag([1.0, 3.0]), np.diag([3.0, 1.0])])
    candidates = candidates_of(table([1.0, 1.0]), judged([1.0, 1.0], features=forms))
    assert candidates.losses.shape == (2, 2, 2)
    assert candidates.error_of(("a",)) == candidates.error_of(("b",)) == pytest.approx(2.0)


def test_without_interactions_the_errors_of_blocks_add_up():
    candidates = candidates_of(FOUR, judged([1.0, 2.0, 3.0, 2.0]))
    assert candidates.error_of(("a", "c")) == pytest.approx(1.0 + 3.0)


def test_interactions_are_found_by_name_whatever_the_order_of_the_table():
    turned = replace(FOUR, savings=FOUR.savings[::-1])
    candidates = candidates_of(turned, judged([1.0] * 4, features=TWICE))
    assert candidates.names == ("d", "c", "b", "a")
    assert candidates.error_of(("a", "b")) == pytest.approx(3.8)


def test_block_without_measurable_saving_is_no_candidate():
    lost = replace(FOUR, savings=(*FOUR.savings[:2], replace(FOUR.savings[2], distinguishable=False)))
    candidates = candidates_of(lost, judged([1.0] * 4, features=TWICE))
    assert candidates.names == ("a", "b") and candidates.losses.shape == (1, 2, 2)


# Searching.


def test_blocks_that_lose_the_same_thing_do_not_go_together():
    candidates = candidates_of(FOUR, judged([1.0] * 4, features=TWICE))
    assert best_sets(candidates, Budget(drop=2), 1) == (("c", "d"),)
    assert best_sets(candidates, Budget(drop=1), 2) == (("a",), ("b",))


def test_sets_of_a_size_come_by_their_predicted_error():
    candidates = candidates_of(FOUR, judged([1.0] * 4, features=TWICE))
    found = best_sets(candidates, Budget(drop=2), 99)
    errors = [candidates.error_of(blocks) for blocks in found]
    assert len(found) == 6 and errors == sorted(errors)


def test_reduction_is_met_at_the_low_end_of_the_prediction():
    latency = table([1.0] * 4, half=0.1, additivity=interval(0.9, 0.1))
    candidates = candidates_of(latency, judged([1.0, 1.1, 1.2, 1.3]))
    surely = predicted_percent(("a", "b"), latency).low
    assert best_sets(candidates, Budget(reduce_percent=surely), 1) == (("a", "b"),)
    assert best_sets(candidates, Budget(reduce_percent=surely + 0.01), 1) == (("a", "b", "c"),)


def test_set_that_holds_a_better_one_is_not_listed():
    candidates = candidates_of(FOUR, judged([1.0, 2.0, 3.0, 4.0]))
    assert best_sets(candidates, Budget(reduce_percent=10.0), 99) == (("a",), ("b",), ("c",), ("d",))


def test_block_that_makes_up_for_another_comes_along_though_nobody_asked():
    candidates = candidates_of(FOUR, judged([1.0] * 4, features=TWICE + np.diag([1.0, 1.0, 0.0, 0.0])))
    assert best_sets(candidates, Budget(reduce_percent=10.0), 1) == (("c", "d"),)


def test_nothing_is_found_beyond_what_all_blocks_save():
    candidates = candidates_of(FOUR, judged([1.0] * 4))
    assert best_sets(candidates, Budget(reduce_percent=40.1), 5) == ()
    assert best_sets(candidates, Budget(reduce_percent=float("inf")), 5) == ()
    assert best_sets(candidates, Budget(reduce_percent=40.0), 5) == (("a", "b", "c", "d"),)


def test_many_blocks_are_searched_as_well_as_few():
    """Twenty-two blocks: a beam by itself, all four million subsets here."""
    rng = np.random.default_rng(5)
    changes = rng.normal(size=(22, 12)) * rng.lognormal(0, 0.7, size=(22, 1)) + 0.3
    candidates = candidates_of(
        table(list(rng.uniform(0.1, 0.4, 22)), half=0.01), judged([1.0] * 22, features=changes @ changes.T)
    )
    for budget in (Budget(reduce_percent=15.0), Budget(drop=7)):
        assert best_sets(candidates, budget, 3)[0] == exhaustive_search(candidates, budget, 1)[0]


# How sure.


def test_choice_that_no_image_and_no_saving_speaks_against_is_certain():
    forms = np.repeat(TWICE[None], 20, axis=0)
    candidates = candidates_of(FOUR, judged([1.0] * 4, features=forms))
    shares, share = selection_frequencies(candidates, Budget(drop=2), ("c", "d"), {})
    assert (shares, share) == ({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0}, 1.0)


def test_blocks_on_which_the_images_disagree_share_the_resamples():
    forms = np.stack([np.diag([1.0, 2.0, 9.0]), np.diag([2.0, 1.0, 9.0])] * 20)
    candidates = candidates_of(table([1.0] * 3), judged([1.0] * 3, features=forms))
    shares, share = selection_frequencies(candidates, Budget(drop=1), ("a",), {})
    assert 0.3 < shares["a"] < 0.7 and shares["c"] == 0.0
    assert share == shares["a"] and sum(shares.values()) == pytest.approx(1.0)
    assert round(share * RESAMPLES) == pytest.approx(share * RESAMPLES)


def test_uncertain_saving_makes_the_choice_uncertain():
    """One block just reaches 10% at its low end: with a saving that is known it is sure, else others come in."""
    known = candidates_of(table([1.0, 1.0, 1.0]), judged([1.0, 2.0, 3.0]))
    assert selection_frequencies(known, Budget(reduce_percent=10.0), ("a",), {})[1] == 1.0
    vague = candidates_of(table([1.0, 1.0, 1.0], half=0.2), judged([1.0, 2.0, 3.0]))
    assert 0.3 < selection_frequencies(vague, Budget(reduce_percent=8.0), ("a",), {})[1] < 0.7


def test_blocks_of_one_latency_class_save_more_or_less_together():
    latency = table([1.0, 1.0, 1.0], half=0.2)
    alike = replace(latency, savings=tuple(replace(one, latency_class=0) for one in latency.savings))
    candidates = candidates_of(alike, judged([1.0, 1.01, 9.0]))
    shares, _ = selection_frequencies(candidates, Budget(reduce_percent=8.0), ("a",), {})
    assert shares["a"] == 1.0  # where a does not reach 8%, b does not either, and both go
    assert 0.3 < shares["b"] < 0.7


def test_uncertain_additivity_makes_the_choice_uncertain():
    latency = table([1.0, 1.0, 1.0], additivity=interval(1.0, 0.1))
    candidates = candidates_of(latency, judged([1.0, 2.0, 3.0]))
    assert 0.3 < selection_frequencies(candidates, Budget(reduce_percent=18.0), ("a", "b"), {})[1] < 0.7


def test_what_was_verified_counts_for_more_than_what_was_predicted():
    candidates = candidates_of(table([1.0] * 3), judged([1.0, 1.1, 9.0]))
    verified = {("a",): np.full(8, 0.5), ("b",): np.full(8, 0.2), ("c",): np.full(8, 3.0)}
    shares, share = selection_frequencies(candidates, Budget(drop=1), ("b",), verified)
    assert (shares["b"], share) == (1.0, 1.0)


def test_images_on_which_the_verified_errors_disagree_make_the_choice_uncertain():
    candidates = candidates_of(table([1.0] * 3), judged([1.0, 1.1, 9.0]))
    one, other = np.array([1.0, 2.0] * 20), np.array([2.0, 1.0] * 20)
    verified = {("a",): one, ("b",): other, ("c",): np.full(40, 9.0)}
    assert 0.3 < selection_frequencies(candidates, Budget(drop=1), ("a",), verified)[1] < 0.7
    together = verified | {("b",): one + 0.01}  # as uncertain each, and always in the same order
    assert selection_frequencies(candidates, Budget(drop=1), ("a",), together)[1] == 1.0


def test_set_that_was_not_verified_may_be_better_by_as_much_as_the_prediction_is_off():
    """Of three that are nearly as good one is unknown; the known ones show how far predictions are off."""
    candidates = candidates_of(table([1.0] * 3), judged([1.0, 1.02, 1.01]))
    close = {("a",): np.full(8, 0.50), ("b",): np.full(8, 0.51)}
    assert 0.2 < selection_frequencies(candidates, Budget(drop=1), ("a",), close)[1] < 0.8
    far = candidates_of(table([1.0] * 3), judged([1.0, 1.02, 9.0]))
    assert selection_frequencies(far, Budget(drop=1), ("a",), close)[1] == 1.0


def test_set_whose_verified_error_is_no_number_is_never_taken():
    candidates = candidates_of(table([1.0] * 3), judged([1.0, 1.1, 1.2]))
    verified = {("a",): np.full(8, np.nan), ("b",): np.full(8, 0.2), ("c",): np.full(8, 0.3)}
    assert selection_frequencies(candidates, Budget(drop=1), ("b",), verified)[1] == 1.0


def test_resampling_gives_the_same_every_time():
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(30, 6, 4))
    candidates = candidates_of(
        table([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], half=0.1),
        judged([1.0] * 6, features=np.einsum("nik,njk->nij", changes, changes)),
    )
    chosen = best_sets(candidates, Budget(reduce_percent=15.0), 1)[0]
    first, again = (selection_frequencies(candidates, Budget(reduce_percent=15.0), chosen, {}) for _ in range(2))
    assert first == again and set(first[0]) == set("abcdef")


@pytest.mark.parametrize("values", [np.zeros(4), np.zeros((2, 3, 3)), np.zeros((2, 2, 2), dtype="datetime64[s]")])
def test_interactions_that_are_not_of_the_blocks_are_no_record(values):
    """As a damaged file may hold; what is read back is then computed again."""
    good = judged([1.0, 2.0], features=np.zeros((2, 2, 2)))
    assert good.is_consistent
    assert not replace(good, interactions={"features": values}).is_consistent
