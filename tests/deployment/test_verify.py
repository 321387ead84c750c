"""Do all forms of the network compute the same? Known arrays, and a real network with a broken weight."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, TensorSpec
from practise_deploy.deployment import verify as verification
from practise_deploy.deployment.export import write_onnx
from practise_deploy.deployment.verify import (
    Runners,
    compare,
    engine_runner,
    torch_runner,
    verify,
)
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.tracing.trace import trace
from practise_deploy.planning.loss import paired_difference
from practise_deploy.tasks.judging import accuracy_of
from practise_deploy.terms import CLASSES, Preprocessing, Task

SHAPE = (1, 3, 8, 8)


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


def held_out(count: int, labels: list[int] | None = None) -> HeldOutImages:
    pixels = torch.randn((count, *SHAPE[1:]), generator=torch.Generator().manual_seed(0))
    prepared = Preprocessing(
        channels=3, size=(8, 8), resize=8, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", augment="none"
    )
    return HeldOutImages(pixels, None if labels is None else torch.tensor(labels), prepared)


# Numbers.


def test_comparison_of_known_arrays():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [5.0, 1.0]], np.float32)
    second = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0], [5.0, 3.0]], np.float32)
    link = compare("a", "b", (first,), (second,))
    assert (link.before, link.after, link.images) == ("a", "b", 4)
    assert link.max_abs == 2.0
    assert link.rms == pytest.approx((6 / 8) ** 0.5)
    assert link.cosine == pytest.approx(0.0)  # the lowest, of the second image
    assert link.agreement_percent.estimate == 75.0


def test_cosine_is_of_the_worst_image():
    first = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    second = np.array([[2.0, 0.0], [1.0, 1.0]], np.float32)
    assert compare("a", "b", (first,), (second,)).cosine == pytest.approx(0.5**0.5)


def test_outputs_that_are_equal_agree_in_everything():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    link = compare("a", "b", (x,), (x.copy(),))
    assert (link.max_abs, link.rms, link.agreement_percent.estimate) == (0.0, 0.0, 100.0)
    assert link.cosine == pytest.approx(1.0)


def test_two_outputs_of_nothing_but_zeros_agree():
    assert compare("a", "b", (np.zeros((2, 3)),), (np.zeros((2, 3)),)).cosine == 1.0


def test_zeros_in_place_of_an_answer_do_not_agree():
    """An engine that computes nothing has no direction to be right in."""
    first = np.array([[2.0, 1.0]], np.float32)
    assert compare("a", "b", (first,), (np.zeros((1, 2)),)).cosine == 0.0


def test_feature_maps_are_compared_as_vectors():
    first = np.ones((2, 3, 4, 4), np.float32)
    link = compare("a", "b", (first,), (first + 0.5,))
    assert link.rms == pytest.approx(0.5)
    assert link.cosine == pytest.approx(1.0)


def test_accuracy_counts_correct_answers():
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    found = accuracy_of(CLASSES, logits, np.array([0, 1, 2, 2]))
    assert (found.correct, found.images, found.percent.estimate) == (3, 4, 75.0)


# Engines of a fixed batch.


class FixedBatch:
    """Takes batches of four alone; each output is its image's sum."""

    inputs = (TensorSpec(name="images", shape=(4, 3, 8, 8), dtype="float32"),)
    outputs = (TensorSpec(name="sums", shape=(4, 1), dtype="float32"),)

    def __init__(self) -> None:
        self.fed: list[np.ndarray] = []

    def run(self, tensors):
        (x,) = tensors.values()
        assert x.shape == (4, 3, 8, 8) and x.flags["C_CONTIGUOUS"]
        self.fed.append(x)
        return {"sums": x.reshape(4, -1).sum(1, keepdims=True)}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 10])
def test_last_batch_is_padded_and_the_padding_does_not_come_back(count):
    engine = FixedBatch()
    x = held_out(count).pixels.contiguous(memory_format=torch.channels_last)
    (found,) = engine_runner(engine, 4)(x)
    assert found.shape == (count, 1)
    np.testing.assert_allclose(found[:, 0], x.sum((1, 2, 3)).numpy(), rtol=1e-4, atol=1e-4)
    assert len(engine.fed) == -(-count // 4)
    if count % 4:
        assert all(np.array_equal(row, engine.fed[-1][count % 4 - 1]) for row in engine.fed[-1][count % 4 :])


# A real chain.


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A small network, and the same as ONNX."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    traced, _ = trace(network.eval(), SHAPE)
    path = tmp_path_factory.mktemp("verify") / "model.onnx"
    write_onnx(to_onnx(traced, (2, 3, 8, 8)), path, dynamic_batch=False)
    return traced, path


def engine_of(model, batch: int = 2):
    conditions = Conditions(batch=batch)
    return OrtBackend().open(OrtBackend().compile(model, conditions), conditions)


def corrupted(path, change) -> bytes:
    """The model with one change to its largest weight."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda each: numpy_helper.to_array(each).size)
    value = numpy_helper.to_array(weight).copy()
    change(value)
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    return model.SerializeToString()


def forms(chain, onnx_model=None, engine_model=None) -> Runners:
    traced, path = chain
    form = torch_runner(traced)
    return Runners(
        teacher=form, student=form, onnx=engine_runner(engine_of(onnx_model or path), 2),
        engine=engine_runner(engine_of(engine_model or path), 2),
    )  # fmt: skip


def test_sound_chain_is_faithful(chain):
    found = verify(forms(chain), held_out(35), Silent())  # odd, and more than one pass of 32
    assert found.faithful and found.problems == () and found.images == 35
    assert [(link.before, link.after) for link in found.links] == [
        ("teacher", "student"), ("student", "ONNX"), ("ONNX", "engine"), ("teacher", "engine"),
    ]  # fmt: skip
    assert all(link.max_abs < 1e-4 and link.images == 35 for link in found.links)


def spoil_one_row(value: np.ndarray) -> None:
    value.reshape(len(value), -1)[0] += 5.0


def spoil_with_nan(value: np.ndarray) -> None:
    value.reshape(-1)[0] = np.nan


def spoil_all(value: np.ndarray) -> None:
    value[...] = 0.0


@pytest.mark.parametrize("change", [spoil_one_row, spoil_with_nan, spoil_all])
def test_corrupted_weight_of_the_engine_is_found_in_its_link(chain, change):
    found = verify(forms(chain, engine_model=corrupted(chain[1], change)), held_out(20), Silent())
    assert not found.faithful
    assert found.problems and all(problem.startswith("ONNX -> engine:") for problem in found.problems)


def test_corrupted_weight_of_the_onnx_file_is_found_where_it_entered(chain):
    broken = corrupted(chain[1], spoil_one_row)
    found = verify(forms(chain, broken, broken), held_out(20), Silent())
    assert not found.faithful
    assert found.problems and all(problem.startswith("student -> ONNX:") for problem in found.problems)


def test_numbers_that_are_none_are_named(chain):
    found = verify(forms(chain, engine_model=corrupted(chain[1], spoil_with_nan)), held_out(20), Silent())
    assert "ONNX -> engine: outputs that are no numbers" in found.problems


def test_student_may_differ_from_its_teacher(chain):
    """That is what pruning does; only what follows the student must be faithful."""
    sound = forms(chain)
    found = verify(
        Runners(lambda x: (-sound.teacher(x)[0],), sound.student, sound.onnx, sound.engine), held_out(20), Silent()
    )
    assert found.faithful
    assert found.links[0].cosine == pytest.approx(-1.0, abs=1e-5)
    assert found.links[-1].agreement_percent.estimate < 50


def test_labels_give_the_accuracy_of_both_ends(chain):
    traced, _ = chain
    images = held_out(20)
    truth = torch_runner(traced)(images.batch(slice(0, 20)))[0].argmax(1)
    truth[:5] = (truth[:5] + 1) % 5
    found = verify(forms(chain), held_out(20, truth.tolist()), Silent())
    assert list(found.accuracy) == ["teacher", "engine"]
    assert {each.correct for each in found.accuracy.values()} == {15}
    assert found.loss is not None and found.loss.points == paired_difference(0, 0, 20)
    assert (found.loss.estimated, found.loss.images, found.loss.agreement_percent.estimate) == (False, 20, 100.0)


def test_many_images_judge_the_ends_and_some_of_them_the_forms_between(chain, monkeypatch):
    monkeypatch.setattr(verification, "MOST_ALONG_THE_CHAIN", 6)
    found = verify(forms(chain), held_out(20), Silent())
    assert [(link.before, link.after, link.images) for link in found.links] == [
        ("teacher", "student", 6),
        ("student", "ONNX", 6),
        ("ONNX", "engine", 6),
        ("teacher", "engine", 20),
    ]
    assert found.faithful and found.images == 20


def test_output_that_is_no_number_is_found_on_any_image(chain, monkeypatch):
    """The engine fails on one image, which is not among those that the forms between are compared on."""
    monkeypatch.setattr(verification, "MOST_ALONG_THE_CHAIN", 6)
    images, sound = held_out(20), forms(chain)
    seen = images.subsample(6, 0).pixels
    (spoiled,) = [n for n in range(20) if not any(torch.equal(images.pixels[n], each) for each in seen)][:1]
    bad = images.batch(slice(spoiled, spoiled + 1))[0]

    def failing(x):
        (output,) = sound.engine(x)
        return (np.where([[torch.equal(each, bad)] for each in x], np.nan, output),)

    found = verify(replace(sound, engine=failing), images, Silent())
    assert found.problems == ("teacher -> engine: outputs that are no numbers",) and not found.faithful


def test_loss_is_of_the_last_form_against_the_teacher(chain):
    """The teacher is right on all twenty images; a student that answers one class more is right on none."""
    sound = forms(chain)
    truth = sound.teacher(held_out(20).batch(slice(0, 20)))[0].argmax(1)

    def turned(x):
        return (np.roll(sound.teacher(x)[0], 1, axis=1),)

    found = verify(Runners(sound.teacher, turned, turned, turned), held_out(20, truth.tolist()), Silent())
    assert found.loss is not None and found.loss.points == paired_difference(20, 0, 20)
    assert found.loss.agreement_percent.estimate == 0.0


def test_without_labels_there_is_no_accuracy_and_the_loss_is_an_estimate(chain):
    found = verify(forms(chain), held_out(20), Silent())
    assert found.accuracy == {} and found.loss is not None
    assert (found.loss.estimated, found.loss.images, found.loss.agreement_percent.estimate) == (True, 20, 100.0)
    assert found.loss.points.estimate == 0.0 and found.loss.points.high > 10
    assert found.links[-1].agreement_percent.estimate == 100.0


@pytest.mark.parametrize("labels", [None, [0] * 20])
def test_what_is_no_classifier_has_neither_accuracy_nor_loss(chain, labels: list[int] | None):
    sound = forms(chain)

    def summed(x):
        return (sound.teacher(x)[0].sum(1, keepdims=True),)

    found = verify(Runners(summed, summed, summed, summed, original=summed), held_out(20, labels), Silent())
    assert found.faithful and found.accuracy == {} and found.loss is None
    assert found.original is not None and found.original.accuracy is None and found.original.loss is None


@pytest.mark.parametrize("labelled", [True, False])
def test_what_another_precision_costs_the_original_is_a_loss_of_its_own(chain, labelled: bool):
    sound = forms(chain)
    truth = sound.teacher(held_out(20).batch(slice(0, 20)))[0].argmax(1)
    images = held_out(20, truth.tolist() if labelled else None)

    def coarse(x):
        return (np.roll(sound.teacher(x)[0], 1, axis=1),)

    found = verify(Runners(sound.teacher, sound.student, sound.onnx, sound.engine, original=coarse), images, Silent())
    assert found.loss is not None and found.loss.points.estimate == 0.0
    assert found.original is not None and found.original.loss is not None
    assert found.original.loss.estimated is not labelled and found.original.loss.points.estimate > 1
    assert (found.original.accuracy is not None) is labelled


def test_outputs_that_are_no_scores_of_classes_have_no_agreement():
    """One number a image, or a map: there is no answer that two networks could share."""
    rng = np.random.default_rng(0)
    for shape in ((20, 1), (20, 4, 4)):
        first = rng.normal(size=shape).astype(np.float32)
        assert compare("a", "b", (first,), (-first,)).agreement_percent is None
    first, second = rng.normal(size=(2, 20, 2))
    assert compare("a", "b", (first,), (second,)).agreement_percent is not None


def test_of_several_outputs_the_worst_counts():
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(20, 3)), 1000 * rng.normal(size=(20, 8))
    link = compare("a", "b", (large, small), (large + 1, -small))
    assert link.cosine == pytest.approx(-1.0) and link.relative_rms == pytest.approx(2.0)
    assert link.max_abs == pytest.approx(2 * np.abs(small).max())


def test_agreement_is_of_the_output_that_the_task_judges():
    rng = np.random.default_rng(0)
    values, logits = rng.normal(size=(2, 20, 4))
    task = Task(output=1, names=("values", "logits"), shapes=((4,), (4,)))
    link = compare("a", "b", (values, logits), (-values, logits), task)
    assert link.agreement_percent is not None and link.agreement_percent.estimate == 100.0


def test_outputs_that_an_engine_has_in_another_order_are_put_in_the_networks(chain):
    class Turned:
        inputs = (TensorSpec(name="images", shape=(2, 3, 8, 8), dtype="float32"),)
        outputs = tuple(TensorSpec(name=name, shape=(2, 1), dtype="float32") for name in ("second", "first"))

        def run(self, tensors):
            return {"second": np.full((2, 1), 2.0), "first": np.full((2, 1), 1.0)}

    x = held_out(3).pixels
    assert [found[0, 0] for found in engine_runner(Turned(), 2, None, ("first", "second"))(x)] == [1.0, 2.0]
    assert [found[0, 0] for found in engine_runner(Turned(), 2)(x)] == [2.0, 1.0]
