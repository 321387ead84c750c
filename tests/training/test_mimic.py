"""Feature mimicking: repeatable, and what every part of a schedule does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.settings import RecoveryRecipe
from practise_deploy.training.distillation import relative_error
from practise_deploy.training.finetune import schedule_for
from practise_deploy.training.schedule import MAX_RESTARTS, RATE_DIVISOR, Schedule
from samples.descents import SHORT, descend, original, same, small_pair
from samples.lessons import features_of, photos


def test_descent_is_the_same_each_time_whatever_torchs_generator_holds():
    torch.manual_seed(1)
    _, first, weights = descend(SHORT)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    _, second, again = descend(SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.history == second.history
    assert same(weights, again)


def test_another_seed_draws_other_batches():
    _, _, first = descend(SHORT)
    _, _, second = descend(Schedule(steps=6, batch_size=8, seed=1))
    assert not same(first, second)


def test_error_falls():
    _, course, _ = descend(Schedule(steps=20, batch_size=16))
    assert course.history[-1][1] < 0.9 * course.history[0][1]
    assert course.history[0][0] == 0 and course.history[-1][0] == 20


def test_last_weights_stay():
    pair, course, _ = descend(Schedule(steps=5, batch_size=8, learning_rate=0.3))
    _, judge = photos(20).split(0)
    assert pair.error(judge, 8) == pytest.approx(course.history[-1][1], rel=1e-6)


def norms_of(network) -> list:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_mimicking_the_exits_brings_them_nearer():
    def apart(weight: float) -> float:
        schedule = Schedule(steps=40, batch_size=16, optimiser="adamw", learning_rate=2e-3, scaled=True, hints=weight)
        pair, _, _ = descend(schedule)
        x = photos(20).batch(slice(0, 20))
        both = ((pair.student, 0), (pair.teacher, 1))
        with torch.no_grad():
            found, wanted = (
                forward(net, x, [node_by_name(net, each[side]) for each in pair.hints]) for net, side in both
            )
        return float(sum(relative_error(*each) for each in zip(found, wanted, strict=True)))

    assert apart(3.0) < 0.9 * apart(0.0)


def test_frozen_norms_keep_their_statistics_and_learn_scale_and_shift():
    pair, _, _ = descend(SHORT)
    pairs = list(zip(norms_of(original()[1]), norms_of(pair.student), strict=True))
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in pairs)
    assert all(torch.equal(a.running_var, b.running_var) for a, b in pairs)
    assert any(not torch.equal(a.weight, b.weight) for a, b in pairs)


def test_trained_norms_follow_the_images_and_the_teachers_do_not():
    pair, _, _ = descend(Schedule(steps=2, batch_size=8, norms="trained"))
    student = zip(norms_of(original()[1]), norms_of(pair.student), strict=True)
    teacher = zip(norms_of(original()[0]), norms_of(pair.teacher), strict=True)
    assert all(not torch.equal(a.running_mean, b.running_mean) for a, b in student)
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in teacher)
    assert not pair.student.training


def test_average_of_the_weights_is_kept_and_judged():
    pair, course, weights = descend(Schedule(steps=20, batch_size=8, ema_decay=0.5, learning_rate=0.1))
    _, _, last = descend(Schedule(steps=20, batch_size=8, learning_rate=0.1))
    assert not same(weights, last)
    _, judge = photos(20).split(0)
    assert pair.error(judge, 8) == pytest.approx(course.history[-1][1], rel=1e-6)


def test_scaled_error_does_not_depend_on_the_features_scale():
    pair, x = small_pair(), photos(8).batch(slice(0, 8))
    wanted, found = features_of(pair, x)
    expected = (wanted - found).square().mean() / wanted.var()
    torch.testing.assert_close(pair.loss(x, Schedule(steps=1, scaled=True)), expected)


def test_first_and_last_step_are_judged_and_every_fifth_part_and_the_one_that_tells_of_the_rate():
    _, course, _ = descend(Schedule(steps=25, batch_size=2))
    assert [step for step, _ in course.history] == [0, 5, 8, 10, 15, 20, 25]


def test_error_is_the_mean_over_images_whatever_the_batches():
    pair = small_pair()
    data = photos(10)
    assert pair.error(data, 3) == pytest.approx(pair.error(data, 10), rel=1e-6)
    wanted, found = features_of(pair, data.batch(slice(0, 10)))
    assert pair.error(data, 10) == pytest.approx((wanted - found).square().mean().item(), rel=1e-6)


# The rate.

RETREATING = Schedule(steps=24, batch_size=8, optimiser="adamw", learning_rate=0.02, scaled=True, restart_ratio=1.25)


def test_rate_that_leads_away_is_quartered_and_the_descent_begun_anew():
    _, course, _ = descend(RETREATING)
    _, steady, _ = descend(replace(RETREATING, restart_ratio=0.0))
    assert course.restarts > 0
    (note,) = course.notes
    assert note.startswith(f"the rate was lowered from 0.02 to {0.02 / 4**course.restarts:g}: at ")
    assert [step for step, _ in course.history] == sorted({step for step, _ in course.history}) and course.step == 24
    assert course.history[-1][1] < steady.history[-1][1]


def test_descent_after_a_retreat_is_the_one_of_the_lower_rate():
    _, course, weights = descend(RETREATING)
    lower = RETREATING.learning_rate / RATE_DIVISOR**course.restarts
    _, again, same_weights = descend(replace(RETREATING, learning_rate=lower))
    assert (again.restarts, again.history) == (0, course.history)
    assert same(weights, same_weights)


def test_rate_that_brings_nearer_is_kept():
    schedule = replace(RETREATING, learning_rate=1e-5)
    assert descend(schedule)[1].history == descend(replace(schedule, restart_ratio=0.0))[1].history


def test_descent_that_has_lowered_nothing_after_a_fifth_ends_and_says_so():
    upwards = replace(RETREATING, steps=50, restart_ratio=0.0, early_end=True)
    _, course, _ = descend(upwards)
    (note,) = course.notes
    assert course.step == 10 and note.startswith("finetuning ended after 10 of 50 steps")
    _, whole, _ = descend(replace(upwards, learning_rate=1e-4))
    assert whole.step == 50 and not whole.notes and whole.history[-1][1] < whole.history[0][1]


def test_asked_for_steps_are_all_done():
    assert schedule_for(RecoveryRecipe(), 32, torch.float32).early_end
    assert not schedule_for(RecoveryRecipe(iterations=300), 32, torch.float32).early_end


def test_retreats_end():
    _, course, _ = descend(replace(RETREATING, learning_rate=1e6, keep_start=True))
    assert course.restarts == MAX_RESTARTS and course.step == 24
