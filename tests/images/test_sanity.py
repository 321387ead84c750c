"""What the original says of a few images: which order labels have, what looks wrong, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from practise_deploy.errors import InputError
from practise_deploy.images.sanity import check_judgeable, with_checked_labels
from practise_deploy.images.tiny_set import Images, TinySet, load_images
from practise_deploy.run import Silent
from samples.pictures import facts, numbered, settings

CLASSES = 12
TEXT = sorted(range(CLASSES), key=str)
"""0, 1, 10, 11, 2, ...: the folder of each output, where outputs are numbered in the order of text."""


def by_number(folder: Path) -> Path:
    """A folder for each class; the blue of an image is its folder's number times ten."""
    for name in range(CLASSES):
        numbered(folder / str(name), 4, blue=name * 10)
    return folder


def knowing(output_of: Callable[[int], int]) -> Callable[[Tensor], Tensor]:
    """A network that knows the folder of an image, and answers with its output of it."""

    def network(images: Tensor) -> Tensor:
        blue = (images[:, 2].mean((1, 2)) * 0.25 + 0.5) * 255
        return torch.eye(CLASSES)[[output_of(round(float(each) / 10)) for each in blue]]

    return network


def tiny(folder: Path) -> TinySet:
    return load_images(settings(by_number(folder)), facts(outputs=CLASSES))


def folders_of(images) -> list[int]:
    return [round(int(image[2, 0, 0]) / 10) for image in images.pixels]


def test_original_trained_in_the_order_of_text_gets_labels_in_it(tmp_path: Path):
    found = with_checked_labels(tiny(tmp_path), knowing(TEXT.index))
    for images in (found.fit, found.held_out):
        assert images.labels.tolist() == [TEXT.index(folder) for folder in folders_of(images)]
    (note,) = found.summary.notes
    assert "were taken in the order of text" in note and "right on 36 of 36 images so, on 5 by the numbers" in note


def test_original_trained_by_numbers_keeps_them_without_a_word(tmp_path: Path):
    found = with_checked_labels(tiny(tmp_path), knowing(lambda folder: folder))
    assert found.fit.labels.tolist() == folders_of(found.fit)
    assert not found.summary.notes


def test_evaluation_images_have_an_order_of_their_own(tmp_path: Path):
    listing = settings(numbered(tmp_path / "flat", 12), eval=by_number(tmp_path / "eval"))
    found = with_checked_labels(load_images(listing, facts(outputs=CLASSES)), knowing(TEXT.index))
    assert found.fit.labels is None
    assert found.held_out.labels.tolist() == [TEXT.index(folder) for folder in folders_of(found.held_out)]


def test_original_that_does_not_tell_leaves_numbers_and_is_told_to_be_at_chance(tmp_path: Path):
    found = with_checked_labels(tiny(tmp_path), knowing(lambda folder: (5 * folder + 7) % CLASSES))
    assert found.fit.labels.tolist() == folders_of(found.fit)
    taken, chance = found.summary.notes
    assert "taken for the outputs of those numbers" in taken and "--classes" in taken
    assert "is indistinguishable from chance" in chance and "--mean" in chance


def test_one_answer_for_all_images_is_remarked_on_without_labels_too(tmp_path: Path):
    flat = load_images(settings(numbered(tmp_path)), facts(outputs=CLASSES))
    found = with_checked_labels(flat, lambda images: torch.eye(CLASSES)[[3] * len(images)])
    assert found.fit.labels is None
    assert "one and the same answer, output 3" in found.summary.notes[-1]


def test_images_of_one_class_may_have_one_answer(tmp_path: Path):
    (tmp_path / "names").write_text("\n".join(map(str, range(CLASSES))))
    numbered(tmp_path / "photos" / "3", blue=30)
    one_class = settings(tmp_path / "photos", classes=tmp_path / "names")
    found = with_checked_labels(load_images(one_class, facts(outputs=CLASSES)), knowing(lambda folder: folder))
    assert not found.summary.notes


@pytest.mark.parametrize("shape", [(1,), (CLASSES, 4, 4)], ids=["one number", "a map"])
def test_no_classifier_has_no_answers_to_remark_on(tmp_path: Path, shape: tuple[int, ...]):
    flat = load_images(settings(numbered(tmp_path)), facts(outputs=None))
    assert (
        with_checked_labels(flat, lambda images: torch.zeros(len(images), *shape)).summary.notes == flat.summary.notes
    )


def test_outputs_that_are_no_numbers_for_the_images_are_refused(tmp_path: Path):
    flat = load_images(settings(numbered(tmp_path)), facts(outputs=CLASSES))
    with pytest.raises(InputError, match="NaN or infinity for the images") as refused:
        with_checked_labels(flat, lambda images: torch.full((len(images), CLASSES), torch.nan))
    assert "--mean" in refused.value.remedy


def judge(images: Images, original: Callable[[Tensor], Tensor]) -> int:
    """On how many images the original was run."""
    seen = []

    def counted(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return original(batch)

    check_judgeable(images, counted, 1.5, Silent())
    return sum(seen)


def test_demand_on_accuracy_that_the_labels_can_never_prove_is_refused(tmp_path: Path):
    images = tiny(tmp_path).fit
    with pytest.raises(InputError, match=r"--max-drop 1\.5 .*right on 0 of 36 held-out images.*chance") as refused:
        judge(images, knowing(lambda folder: (folder + 1) % CLASSES))
    assert "--classes" in refused.value.remedy and "--max-drop none" in refused.value.remedy


def test_demand_on_accuracy_stands_where_the_original_knows_the_labels_and_few_images_show_it(tmp_path: Path):
    assert judge(tiny(tmp_path).fit, knowing(lambda folder: folder)) == 16


def test_few_right_answers_among_the_first_images_are_luck(tmp_path: Path):
    """5 of 16 would tell the original from chance, 5 of 36 do not."""
    images = tiny(tmp_path).fit
    answers = torch.cat([images.labels[:5], (images.labels[5:] + 1) % CLASSES])
    outputs = iter(torch.eye(CLASSES)[answers].split(16))
    with pytest.raises(InputError, match="right on 5 of 36"):
        judge(images, lambda batch: next(outputs))


def test_demand_on_accuracy_without_labels_is_estimated_and_stands(tmp_path: Path):
    flat = load_images(settings(numbered(tmp_path)), facts(outputs=CLASSES))
    assert judge(flat.held_out, knowing(lambda folder: 0)) == 0
