"""Feature mimicking: repeatable, resumable to the bit, and never worse than its start where the best is kept."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from networks import tiny_resnet
from practise_deploy import finetune as finetuning
from practise_deploy.model import mimic as mimicking
from practise_deploy.model.blocks import find_blocks
from practise_deploy.model.draws import other_views
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.mimic import mimic
from practise_deploy.model.pair import Pair, divergence, pair_of, relative_error
from practise_deploy.model.schedule import Schedule
from practise_deploy.model.surgery import drop_blocks, weights_of
from practise_deploy.model.trace import trace
from practise_deploy.model.values import find_feature, forward, named
from practise_deploy.store import read_arrays
from practise_deploy.terms import Student
from unit.lessons import Silent, photos

SHAPE = (1, 3, 16, 16)


class Interrupted(Exception):
    """What a closed laptop looks like to a descent."""


class Interrupting:
    """Ends the descent at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def advance(self, done: float, total: float, note: str = "") -> None:
        if done == self.at:
            raise Interrupted


@pytest.fixture(scope="module")
def original():
    traced, _ = trace(tiny_resnet(), SHAPE)
    blocks = {block.name: block for block in find_blocks(traced, SHAPE)}
    return traced, drop_blocks(traced, [blocks["layer2.1"]]), find_feature(traced).name, blocks["layer2.1"]


def small_pair(original) -> Pair:
    teacher, student, feature, block = original
    traced, _ = trace(tiny_resnet(), SHAPE)
    networks = copy.deepcopy(student), copy.deepcopy(teacher).requires_grad_(False)
    return pair_of(*networks, feature, [block], blocks=find_blocks(traced, SHAPE))


def descend(original, schedule: Schedule, *, partial=None, progress=None, count: int = 20):
    pair = small_pair(original)
    learn, judge = photos(count).split(0)
    reached = [p for name, p in pair.student.named_parameters() if not name.startswith("fc")]
    course = mimic(pair, reached, (learn, judge), schedule, progress or Silent(), partial)
    return pair, course, weights_of(pair.student)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


SHORT = Schedule(steps=6, batch_size=8)


# Resuming.


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize(
    "schedule",
    [
        SHORT,
        Schedule(steps=6, batch_size=8, norms="trained", keep_best=True),
        Schedule(steps=6, batch_size=8, optimiser="adamw", learning_rate=1e-3, mix=0.5, scaled=True, average=0.9),
        Schedule(steps=6, batch_size=8, exits=3.0, scaled=True, learning_rate=1e-3),
        Schedule(steps=6, batch_size=8, norms="re-estimated", logits=0.1, pull=0.1, learning_rate=1e-4),
    ],
)
def test_interrupted_and_resumed_descent_ends_with_the_same_bits(original, schedule, at, tmp_path, monkeypatch):
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    _, whole, wanted = descend(original, schedule)
    partial = tmp_path / "partial.npz"
    with pytest.raises(Interrupted):
        descend(original, schedule, partial=partial, progress=Interrupting(at))
    assert int(read_arrays(partial)["steps"][0]) == at - 1
    _, resumed, found = descend(original, schedule, partial=partial)
    assert same(wanted, found)
    assert (resumed.history, resumed.step, resumed.best_step) == (whole.history, whole.step, whole.best_step)


def test_resumed_descent_does_not_start_over(original, tmp_path, monkeypatch):
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    partial, seen = tmp_path / "partial.npz", []

    class Noting:
        def advance(self, done: float, total: float, note: str = "") -> None:
            seen.append(done)

    with pytest.raises(Interrupted):
        descend(original, SHORT, partial=partial, progress=Interrupting(4))
    descend(original, SHORT, partial=partial, progress=Noting())
    assert seen == [4, 5, 6]


def test_nothing_is_saved_before_it_is_time(original, tmp_path):
    descend(original, SHORT, partial=tmp_path / "partial.npz")
    assert not (tmp_path / "partial.npz").exists()


# Repeatability.


def test_descent_is_the_same_each_time_whatever_torchs_generator_holds(original):
    torch.manual_seed(1)
    _, first, weights = descend(original, SHORT)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    _, second, again = descend(original, SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.history == second.history
    assert same(weights, again)


def test_another_seed_draws_other_batches(original):
    _, _, first = descend(original, SHORT)
    _, _, second = descend(original, Schedule(steps=6, batch_size=8, seed=1))
    assert not same(first, second)


# What it descends to.


def test_error_falls(original):
    _, course, _ = descend(original, Schedule(steps=20, batch_size=16))
    assert course.history[-1][1] < 0.9 * course.history[0][1]
    assert course.history[0][0] == 0 and course.history[-1][0] == 20


@pytest.mark.parametrize("rate", [0.02, 500.0])
def test_best_weights_are_never_worse_than_the_start(original, rate):
    schedule = Schedule(steps=5, batch_size=8, learning_rate=rate, keep_best=True)
    pair, course, _ = descend(original, schedule)
    _, judge = photos(20).split(0)
    error = pair.error(judge, 8)
    assert error == pytest.approx(min(e for _, e in course.history if e == e), rel=1e-6)
    assert error <= course.history[0][1] * (1 + 1e-6)


def test_descent_that_diverges_keeps_the_start(original):
    _, course, weights = descend(original, Schedule(steps=5, batch_size=8, learning_rate=500.0, keep_best=True))
    assert course.best_step == 0
    assert same(weights, weights_of(original[1]))


def test_without_keeping_the_best_the_last_weights_stay(original):
    pair, course, _ = descend(original, Schedule(steps=5, batch_size=8, learning_rate=0.3))
    _, judge = photos(20).split(0)
    assert pair.error(judge, 8) == pytest.approx(course.history[-1][1], rel=1e-6)


def norms_of(network) -> list:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_mimicking_the_exits_brings_them_nearer(original):
    def apart(weight: float) -> float:
        schedule = Schedule(steps=40, batch_size=16, optimiser="adamw", learning_rate=2e-3, scaled=True, exits=weight)
        pair, _, _ = descend(original, schedule)
        x = photos(20).batch(slice(0, 20))
        both = ((pair.student, 0), (pair.teacher, 1))
        with torch.no_grad():
            found, wanted = (forward(net, x, [named(net, each[side]) for each in pair.exits]) for net, side in both)
        return float(sum(relative_error(*each) for each in zip(found, wanted, strict=True)))

    assert apart(3.0) < 0.9 * apart(0.0)


def test_frozen_norms_keep_their_statistics_and_learn_scale_and_shift(original):
    pair, _, _ = descend(original, SHORT)
    pairs = list(zip(norms_of(original[1]), norms_of(pair.student), strict=True))
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in pairs)
    assert all(torch.equal(a.running_var, b.running_var) for a, b in pairs)
    assert any(not torch.equal(a.weight, b.weight) for a, b in pairs)


def test_trained_norms_follow_the_images_and_the_teachers_do_not(original):
    pair, _, _ = descend(original, Schedule(steps=2, batch_size=8, norms="trained"))
    student = zip(norms_of(original[1]), norms_of(pair.student), strict=True)
    teacher = zip(norms_of(original[0]), norms_of(pair.teacher), strict=True)
    assert all(not torch.equal(a.running_mean, b.running_mean) for a, b in student)
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in teacher)
    assert not pair.student.training


def test_re_estimated_norms_describe_the_images_and_stay(original):
    pair, _, _ = descend(original, Schedule(steps=2, batch_size=8, norms="re-estimated", learning_rate=1e-12))
    learn, _ = photos(20).split(0)
    first = next(m for m in pair.student.modules() if isinstance(m, nn.BatchNorm2d))
    given = pair.student.get_submodule("conv1")(learn.batch(slice(0, len(learn))))
    torch.testing.assert_close(first.running_mean, given.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, given.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert first.momentum == 0.1


def test_average_of_the_weights_is_kept_and_judged(original):
    pair, course, weights = descend(original, Schedule(steps=20, batch_size=8, average=0.5, learning_rate=0.1))
    _, _, last = descend(original, Schedule(steps=20, batch_size=8, learning_rate=0.1))
    assert not same(weights, last)
    _, judge = photos(20).split(0)
    assert pair.error(judge, 8) == pytest.approx(course.history[-1][1], rel=1e-6)


def test_pull_keeps_the_weights_nearer_to_the_start(original):
    def distance(pull: float) -> float:
        _, _, weights = descend(original, Schedule(steps=20, batch_size=8, learning_rate=0.1, pull=pull))
        start = weights_of(original[1])
        return sum(float(((weights[name] - start[name]) ** 2).sum()) for name in start)

    assert distance(1.0) < 0.8 * distance(0.0)


def test_logits_teach_too(original):
    def divergence_after(weight: float) -> float:
        pair, _, _ = descend(original, Schedule(steps=20, batch_size=16, logits=weight))
        x = photos(20).batch(slice(0, 20))
        with torch.no_grad():
            return float(divergence(pair.teacher(x), pair.student(x)))

    assert divergence_after(1.0) < divergence_after(0.0)


def test_scaled_error_does_not_depend_on_the_features_scale(original):
    pair, x = small_pair(original), photos(8).batch(slice(0, 8))
    wanted, found = pair.features(x)
    expected = (wanted - found).square().mean() / wanted.var()
    torch.testing.assert_close(pair.loss(x, Schedule(steps=1, scaled=True)), expected)


def test_divergence_is_that_of_the_classes_in_nats():
    teacher, student = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]).log()
    uneven = torch.tensor([[0.25, 0.75]]).log()
    assert float(divergence(teacher, teacher)) == pytest.approx(0.0, abs=1e-7)
    assert float(divergence(teacher, uneven)) == pytest.approx(-0.5 * math.log(0.75) - math.log(2) + 0.5 * math.log(4))
    assert float(divergence(teacher, student)) > 10


# The stage around it.


def start_of(original) -> Student:
    teacher, _, feature, block = original
    return finetuning.drop_only(Lesson(teacher=teacher, feature=feature, images=photos(20)), [block])


def tuned(original, schedule: Schedule):
    teacher, student, feature, _ = original
    start = start_of(original)
    network = copy.deepcopy(student)
    pair = Pair(network, copy.deepcopy(teacher), feature, feature)
    result = finetuning.finetune(pair, start, photos(20), schedule, Silent())
    return start, network, result


def test_classifier_is_not_touched_and_everything_else_may_be(original):
    _, network, result = tuned(original, SHORT)
    before = original[1].state_dict()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith("fc")}
    assert {name for name, _ in network.named_parameters() if not name.startswith("fc")} == changed
    assert same(result.weights, weights_of(network))


def test_plain_drop_is_where_the_papers_finetuning_starts(original):
    aside = replace(SHORT, keep_best=True)  # judged by images kept aside, as the plain drop is
    start, _, result = tuned(original, aside)
    assert start.mse == start.mse_before == pytest.approx(result.mse_before, rel=1e-6)
    assert start.judged_on == result.judged_on == "4 images kept aside"
    assert same(start.weights, weights_of(original[1]))
    assert (start.method, start.steps, start.dropped) == ("plain drop (the paper's start)", 0, ("layer2.1",))
    assert (result.dropped, result.steps) == (("layer2.1",), 6)


@pytest.mark.parametrize("rate", [500.0, 1e-4])
def test_finetuning_that_ends_worse_than_it_began_keeps_the_start_and_says_so(original, rate):
    start, _, result = tuned(original, Schedule(steps=5, batch_size=8, learning_rate=rate, keep_start=True))
    worse = rate > 1
    assert same(result.weights, start.weights) == worse
    assert any("the weights before it are kept" in note for note in result.notes) == worse
    assert result.mse == result.mse_before if worse else result.mse < result.mse_before


@pytest.mark.parametrize("keep_best", [True, False])
def test_start_is_kept_only_where_no_weights_are_better(original, keep_best):
    """With the best kept, the last error does not matter: the rate grows until the descent is lost again."""
    schedule = Schedule(
        steps=20, batch_size=20, learning_rate=0.5, decay_at=1.0, momentum=0.99, keep_best=keep_best, keep_start=True
    )
    start, _, result = tuned(original, schedule)
    ended = next(error for step, error in result.history if step == 20)
    best = min(error for _, error in result.history)
    assert not ended <= result.mse_before  # it is lost in the end
    assert result.mse == (best if keep_best else result.mse_before)
    assert same(result.weights, start.weights) == (not keep_best or best == result.mse_before)


@pytest.mark.parametrize("keep_best", [True, False])
def test_error_told_is_that_of_the_weights_kept(original, keep_best):
    schedule = Schedule(steps=5, batch_size=8, learning_rate=0.1, keep_best=keep_best)
    teacher, _, feature, _ = original
    _, network, result = tuned(original, schedule)
    judge = photos(20).split(0)[1] if keep_best else other_views(photos(20), schedule)
    assert result.mse == pytest.approx(Pair(network, teacher, feature, feature).error(judge, 8), rel=1e-6)
    assert ("kept" in result.method) == keep_best
    assert result.judged_on == (
        "4 images kept aside" if keep_best else "random views of 20 images that were learned from"
    )
    assert result.history[0] == (0, result.mse_before)


def test_first_and_last_step_are_judged_and_every_tenth_part(original):
    _, course, _ = descend(original, Schedule(steps=25, batch_size=2))
    assert [step for step, _ in course.history] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25]


def test_error_is_the_mean_over_images_whatever_the_batches(original):
    pair = small_pair(original)
    data = photos(10)
    assert pair.error(data, 3) == pytest.approx(pair.error(data, 10), rel=1e-6)
    wanted, found = pair.features(data.batch(slice(0, 10)))
    assert pair.error(data, 10) == pytest.approx((wanted - found).square().mean().item(), rel=1e-6)


def test_start_that_knows_the_images_by_heart_does_not_win_by_it(original):
    """A refit fits the few images themselves; only views of them that it has not seen say how good it is."""
    pair, data = small_pair(original), photos(20)
    as_they_are = replace(data, preprocessing=replace(data.preprocessing, augment="none"))
    by_heart = Schedule(steps=50, batch_size=20, optimiser="adamw", learning_rate=1e-2, cosine=True)
    mimic(pair, list(pair.student.parameters()), (as_they_are, data), by_heart, Silent())
    known = pair.error(data, 20)
    start = replace(start_of(original), weights=weights_of(pair.student))
    augmented = Schedule(steps=20, batch_size=20, optimiser="adamw", learning_rate=2e-3, keep_start=True)
    result = finetuning.finetune(pair, start, data, augmented, Silent())
    assert pair.error(data, 20) > known  # judged by the images themselves, the start would have been kept
    assert result.notes == () and result.mse < result.mse_before
