"""What a descent learns from: its rates, its batches, and the views that judge it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from practise_deploy.terms import InputSpec
from practise_deploy.training.batches import BatchSampler, are_tokens, augmented_views, mixed
from practise_deploy.training.schedule import Schedule
from samples.lessons import photos

SHORT = Schedule(steps=6, batch_size=8)


def test_rates_are_the_papers():
    schedule = Schedule(steps=1000)
    assert (schedule.momentum, schedule.weight_decay, schedule.batch_size) == (0.9, 1e-4, 64)
    assert [schedule.rate(step) for step in (0, 399)] == [0.02, 0.02]
    assert [schedule.rate(step) for step in (400, 999)] == pytest.approx([0.002, 0.002])


def test_cosine_rates_warm_up_and_fall_to_nothing():
    schedule = Schedule(steps=100, cosine=True, learning_rate=1.0)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(rates[4]) and rates[4] > 0.99
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.parametrize(("count", "size"), [(10, 4), (10, 10), (7, 16), (5, 13)])
def test_every_pass_draws_every_image_once(count, size):
    draw = BatchSampler(photos(count), Schedule(steps=1, batch_size=size))
    drawn = torch.cat([draw.which(step) for step in range(4 * count)])
    assert len(drawn) == 4 * count * size
    passes = drawn[: len(drawn) // count * count].view(-1, count)
    assert all(each.sort().values.tolist() == list(range(count)) for each in passes)
    assert len({tuple(each.tolist()) for each in passes}) > 1  # in fresh orders


def test_batch_of_a_step_is_the_same_whenever_it_is_drawn_and_another_one_at_another_step():
    draw = BatchSampler(photos(10), Schedule(steps=1, batch_size=10))
    first = draw(7)
    draw(8)
    assert torch.equal(draw(7), first)
    assert not torch.equal(draw(8), first)
    assert first.shape == (10, 3, 16, 16) and first.dtype == torch.float32


def test_other_views_are_of_every_image_and_drawn_by_no_step():
    data, schedule = photos(10), Schedule(steps=1, batch_size=10)
    found, draw = augmented_views(data, schedule), BatchSampler(data, schedule)
    assert torch.equal(found.pixels, augmented_views(data, schedule).pixels)
    assert not torch.equal(found.pixels, augmented_views(data, replace(schedule, seed=1)).pixels)
    for step in range(5):
        assert not torch.equal(draw(step)[draw.which(step).argsort()], found.batch(slice(0, 10)))


def test_views_of_images_that_are_not_augmented_are_mixtures_if_the_steps_mix_and_else_the_images():
    data = photos(10, "none")
    assert torch.equal(augmented_views(data, SHORT).pixels, data.pixels)
    found = augmented_views(data, replace(SHORT, mix=1.0)).batch(slice(0, 10))
    assert found.shape == data.pixels.shape and not torch.equal(found, data.batch(slice(0, 10)))


def test_mixed_batch_holds_no_image_of_its_own_unless_the_coin_says_so():
    data = photos(6, "none")
    plain, every = (BatchSampler(data, Schedule(steps=1, batch_size=6, mix=share)) for share in (0.0, 1.0))
    assert torch.equal(plain(2), data.batch(plain.which(2)))
    assert not torch.equal(every(2), plain(2))
    assert torch.equal(every(2), every(2))


def test_mixing_blends_or_pastes_and_invents_nothing():
    torch.manual_seed(0)
    batch = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16)
    kinds = set()
    for _ in range(40):
        found = mixed(batch)
        assert found.shape == batch.shape and found.min() >= 0 and found.max() <= 7
        flat = all(len(image.unique()) == 1 for image in found)
        kinds.add("blended" if flat and not set(found.unique().tolist()) <= set(range(8)) else "pasted")
        assert flat or set(found.unique().tolist()) <= set(range(8))
    assert kinds == {"blended", "pasted"}


def test_batches_without_augmentation_are_the_images_themselves():
    data = photos(6, "none")
    draw = BatchSampler(data, Schedule(steps=1, batch_size=6))
    assert torch.equal(draw(2), data.batch(draw.which(2)))


TOKENS = tuple(InputSpec(name=name, dtype="int64", shape=(10,), is_mask="mask" in name) for name in ("ids", "mask"))


def texts(count: int) -> Tensor:
    """Every text of one word of its own, and its mask, packed."""
    lengths = 3 + torch.arange(count)[:, None] % 8
    mask = (torch.arange(10) < lengths).float()
    return torch.cat([(1 + torch.arange(count)[:, None]) * mask, mask], 1)[:, None, None]


def test_tokens_are_mixed_with_those_of_another_text_and_go_with_their_mask():
    rows = texts(64)
    torch.manual_seed(0)
    kinds = set[tuple[int, bool]]()
    for _ in range(20):
        found = mixed(rows, TOKENS)
        assert found.shape == rows.shape and not torch.equal(found, rows)
        ids, mask = found.flatten(1).split(10, 1)
        assert torch.equal(ids > 0, mask > 0)  # a token comes with its own mask
        for text in ids:
            words = text[text > 0].unique()
            assert len(words) <= 2
            kinds.add((len(words), bool((text[:3] > 0).all())))
    assert len(kinds) > 1


def test_only_whole_numbers_of_one_length_are_tokens():
    floats = InputSpec(name="x", dtype="float32", shape=(10,), is_mask=False)
    longer = InputSpec(name="y", dtype="int64", shape=(12,), is_mask=False)
    several = InputSpec(name="z", dtype="int64", shape=(10, 2), is_mask=False)
    assert are_tokens(TOKENS) and not any(are_tokens((*TOKENS, other)) for other in (floats, longer, several))
    assert not are_tokens(())
