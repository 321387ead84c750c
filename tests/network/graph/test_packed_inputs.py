"""Networks of several inputs, of whole numbers and masks: packed as one, and what padding has no say in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from practise_deploy.errors import InputError
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.packed import samples_of
from practise_deploy.images.sanity import with_checked_labels
from practise_deploy.images.tiny_set import TinySet, load_images
from practise_deploy.network.graph.activations import forward
from practise_deploy.network.graph.heads import feature_of
from practise_deploy.network.graph.heads import mask_of as mask_in
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.network.graph.packing import mask_of, pack, unpacked
from practise_deploy.network.graph.surgery import drop_blocks, load_weights
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.onnx_import.replacement import replacement
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit.recover import recover
from practise_deploy.run import Silent
from practise_deploy.settings import Settings
from practise_deploy.tasks.answers import answers_of
from practise_deploy.tasks.judging import agreement_of
from practise_deploy.terms import TaskKind
from practise_deploy.training.distillation import distillation_of, find_hints
from practise_deploy.training.schedule import Schedule
from samples.encoders import LENGTH, WORDS, encoder_file, tokens


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_file(tmp_path_factory.mktemp("encoder") / "encoder.onnx")


def opened(file: Path, arrays: dict[str, np.ndarray], folder: Path, **given: object) -> tuple[Network, TinySet]:
    data = folder / "tokens.npz"
    np.savez(data, **arrays)
    settings = Settings(network=str(file), data=data, **given)  # type: ignore[arg-type]
    network = load_network(settings, samples=samples_of(settings))
    return network, load_images(settings, network.summary)


def test_packed_samples_are_what_they_were(file: Path, tmp_path: Path):
    network, _ = opened(file, tokens(40), tmp_path)
    inputs, arrays = network.summary.preprocessing.inputs, tokens(7, seed=3)
    back = unpacked(pack(arrays, inputs), inputs)
    assert all(np.array_equal(back[name], arrays[name]) and back[name].dtype == arrays[name].dtype for name in arrays)
    assert [(spec.name, spec.dtype, spec.is_mask) for spec in inputs] == [
        ("input_ids", "int64", False), ("attention_mask", "int64", True),
    ]  # fmt: skip
    mask = mask_of(torch.from_numpy(pack(arrays, inputs)), network.summary.preprocessing)
    assert mask is not None and np.array_equal(mask.numpy(), arrays["attention_mask"])


def test_encoder_is_judged_by_its_vectors_and_has_a_unit_for_each_branch(file: Path, tmp_path: Path):
    network, images = opened(file, tokens(40), tmp_path)
    assert network.summary.task.kind is TaskKind.EMBEDDING
    assert sum(block.droppable for block in find_blocks(network.traced, network.input_shape)) == 4
    assert len(images.fit) + len(images.held_out) == 40 and images.fit.pixels.shape[1:] == (1, 1, 2 * LENGTH)
    assert any("padding has no say" in note for note in network.summary.notes)


def test_refit_without_a_branch_does_not_depend_on_what_stands_in_the_padding(file: Path, tmp_path: Path):
    """Two sets of texts that differ in their padding alone give the same weights."""
    arrays, found = tokens(60), []
    hidden = arrays["attention_mask"] == 0
    for seed in (0, 1):
        ids = np.where(hidden, np.random.default_rng(seed).integers(0, 40, hidden.shape), arrays["input_ids"])
        network, images = opened(file, {**arrays, "input_ids": ids}, tmp_path)
        dropped = [block for block in find_blocks(network.traced, network.input_shape) if block.droppable][1]
        problem = CalibrationProblem(
            teacher=network.traced, feature=network.summary.feature, images=images.fit, task=network.summary.task
        )
        found.append(recover(problem, [dropped], Silent()).weights)
    original = {name: value.numpy() for name, value in network.traced.state_dict().items()}
    changed = [name for name in found[0] if name in original and not np.array_equal(found[0][name], original[name])]
    assert changed
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-3, atol=1e-4)


def test_file_without_a_branch_takes_the_same_inputs_and_computes_what_the_student_does(file: Path, tmp_path: Path):
    network, images = opened(file, tokens(40), tmp_path)
    dropped = [block for block in find_blocks(network.traced, network.input_shape) if block.droppable][1]
    problem = CalibrationProblem(
        teacher=network.traced, feature=network.summary.feature, images=images.fit, task=network.summary.task
    )
    student = drop_blocks(network.traced, [dropped])
    weights = recover(problem, [dropped], Silent()).weights
    load_weights(student, weights)
    assert network.translation is not None
    model = replacement(network.translation, [dropped], weights)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [(each.name, each.type, each.shape[1]) for each in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", LENGTH), ("attention_mask", "tensor(int64)", LENGTH),
    ]  # fmt: skip
    arrays = tokens(5, seed=9)
    wanted = student.eval()(torch.from_numpy(pack(arrays, network.summary.preprocessing.inputs)))
    np.testing.assert_allclose(session.run(None, arrays)[0], wanted.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention_mask": None}, "has no array 'attention_mask'"),
        ({"input_ids": np.zeros((40, LENGTH + 1), np.int64)}, f"is {LENGTH + 1} for a sample; .* takes {LENGTH}"),
        ({"input_ids": np.zeros((40, LENGTH), np.float32)}, "is float32"),
        ({"input_ids": np.zeros((39, LENGTH), np.int64)}, "are of 39 and 40 samples"),
        ({"input_ids": np.full((40, LENGTH), 1 << 25)}, "whole numbers up to 16,777,216"),
    ],
    ids=["missing", "length", "floats", "counts", "large"],
)
def test_arrays_that_do_not_fit_are_refused(file: Path, tmp_path: Path, change: dict, said: str):
    arrays = {name: array for name, array in {**tokens(40), **change}.items() if array is not None}
    with pytest.raises(InputError, match=said) as error:
        opened(file, arrays, tmp_path)
    assert "an array" in error.value.remedy or "smaller" in error.value.remedy


def test_settings_of_images_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(InputError, match="takes no images, so --mean, --input-size cannot be heeded"):
        opened(file, tokens(40), tmp_path, mean=(0.5,), input_size=8)


def noisy(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The same where positions count, anything else in the padding."""
    return torch.where(counted.unsqueeze(2), values, torch.randn_like(values))


def test_scores_of_tokens_are_compared_and_judged_without_padding(tmp_path: Path):
    network, images = opened(encoder_file(tmp_path / "tagger.onnx", classes=5), tokens(40), tmp_path, task="sequence")
    packed, feature = images.fit.batch(slice(None)), feature_of(network.traced)
    counted = mask_of(packed, network.summary.preprocessing) > 0
    assert (~counted).any() and mask_in(network.traced) is not None
    (features,) = forward(network.traced, packed, [feature])
    assert features.ndim == 3 and not features[~counted].any() and features[counted].all(1).any()
    (scores,) = forward(network.traced, packed, outputs_of(network.traced))
    teacher = answers_of(network.summary.task, [scores], counted.float())
    student = answers_of(network.summary.task, [noisy(scores, counted)], counted.float())
    assert agreement_of(network.summary.task, teacher.numpy(), student.numpy()).estimate == 100
    unmasked = (answers_of(network.summary.task, [each]).numpy() for each in (scores, noisy(scores, counted)))
    assert agreement_of(network.summary.task, *unmasked).estimate < 100
    shuffled = torch.where(
        counted.unsqueeze(2), scores.flip(2), scores
    )  # wrong wherever it counts, right in all of the padding
    wrong = answers_of(network.summary.task, [shuffled], counted.float())
    assert agreement_of(network.summary.task, teacher.numpy(), wrong.numpy()).estimate < 50


def test_hints_of_finetuning_leave_padding_out(tmp_path: Path):
    network, images = opened(encoder_file(tmp_path / "tagger.onnx", classes=5), tokens(40), tmp_path, task="sequence")
    blocks, packed = find_blocks(network.traced, network.input_shape), images.fit.batch(slice(None))
    dropped = [next(block for block in blocks if block.droppable)]
    student = drop_blocks(network.traced, dropped)
    hints = find_hints(student, blocks, dropped, network.summary.feature)
    pair = distillation_of(student, network.traced, network.summary.feature, dropped, hints=hints)
    schedule = Schedule(steps=1, hints=3.0, scaled=True)
    assert hints and pair.loss(packed, schedule) > 0
    other = packed.clone().flatten(1)
    padding = mask_of(packed, network.summary.preprocessing) <= 0
    other[:, :LENGTH][padding] = WORDS - 1 - other[:, :LENGTH][padding]  # other words in the padding
    assert torch.allclose(pair.loss(packed, schedule), pair.loss(other[:, None, None], schedule), rtol=1e-4)


@pytest.mark.parametrize("wrong", [WORDS, -WORDS - 1])
def test_tokens_that_the_network_does_not_know_are_refused_wherever_they_stand(file: Path, tmp_path: Path, wrong: int):
    arrays = tokens(300)
    arrays["input_ids"][217, 1] = wrong
    network, images = opened(file, arrays, tmp_path)
    with pytest.raises(
        InputError, match=r"does not run on the samples \(input_ids -?\d+ to \d+, attention_mask 0 to 1\)"
    ) as error:
        with_checked_labels(images, network.traced, network.summary.task)
    assert "below the size of its vocabulary" in error.value.remedy
