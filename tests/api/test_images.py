"""Images that are objects: every form gives what the same images give as an .npz or as files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from practise_deploy.api.images import MOST_READ, list_object, place_of
from practise_deploy.api.session import process_wide
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import TinySet, image_size_of, load_images
from practise_deploy.run import Silent
from practise_deploy.settings import Settings
from practise_deploy.terms import Task, TaskKind
from samples.pictures import facts

LABELS = np.arange(40) % 2


def read(images: Any, seed: int = 0) -> Any:
    with process_wide(seed):
        return list_object(images, "images", seed, Silent())


def tiny_set(images: Any) -> TinySet:
    place = place_of(images, "images")
    settings = Settings(network="x", data=place)
    return load_images(settings, facts(), {} if Path(str(images)[:200]).exists() else {place: read(images)})


def digests(tiny: TinySet) -> tuple[str, str]:
    return tiny.fit.digest(), tiny.held_out.digest()


class Rows(Dataset):
    """Images, with labels where there are any."""

    def __init__(self, images: Any, labels: Any = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = self.images[index]
        return image if self.labels is None else (image, self.labels[index])


class Endless(IterableDataset):
    """Random images for ever."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(1, 8, 8)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


FORMS = {
    "array": lambda p: (p, LABELS),
    "tensor": lambda p: (channels_first(p), torch.from_numpy(LABELS)),
    "pair with a list of labels": lambda p: (p, LABELS.tolist()),
    "pair of lists": lambda p: ([*p], LABELS.tolist()),
    "list of pairs": lambda p: [*zip(p, LABELS, strict=True)],
    "data set": lambda p: Rows(p, LABELS),
    "tensor data set": lambda p: TensorDataset(channels_first(p), torch.from_numpy(LABELS)),
    "loader": lambda p: DataLoader(Rows(p, LABELS), batch_size=7),
    "loader without batches": lambda p: DataLoader(Rows(p, LABELS), batch_size=None),
    "loader of pictures": lambda p: DataLoader(
        Rows([Image.fromarray(image) for image in p], LABELS), batch_size=7, collate_fn=lambda rows: [*zip(*rows, strict=True)]
    ),
    "generator": lambda p: ((image, label) for image, label in zip(p, LABELS, strict=True)),
    "data set of pictures": lambda p: Rows([Image.fromarray(image) for image in p], LABELS),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_the_npz_gives(form: str, pixels: np.ndarray, tmp_path: Path):
    file = tmp_path / "images.npz"
    np.savez(file, images=pixels, labels=LABELS)
    assert digests(tiny_set(FORMS[form](pixels))) == digests(load_images(Settings(network="x", data=file), facts()))


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_labels_come_in_every_form(form: str, pixels: np.ndarray, tmp_path: Path, monkeypatch):
    many = np.stack([LABELS % 2, LABELS % 3 == 0, LABELS > 4], 1).astype(np.float32)
    monkeypatch.setitem(globals(), "LABELS", many)
    file = tmp_path / "images.npz"
    np.savez(file, images=pixels, labels=many)
    network = replace(facts(outputs=None), task=Task(kind=TaskKind.MULTI_LABEL, shapes=((3,),)))
    place = place_of(pixels, "images")
    tiny = load_images(Settings(network="x", data=place), network, {place: read(FORMS[form](pixels))})
    assert digests(tiny) == digests(load_images(Settings(network="x", data=file), network))
    assert tiny.held_out.labels.shape[1:] == (3,)


def test_images_without_labels_have_none(pixels: np.ndarray):
    for images in (
        pixels,
        [*pixels],
        Rows(pixels),
        DataLoader(Rows(pixels), batch_size=8),
        (image for image in pixels),
    ):
        tiny = tiny_set(images)
        assert tiny.fit.labels is None and len(tiny.fit) + len(tiny.held_out) == 40


def test_pictures_are_read_as_files_are(tmp_path: Path):
    rng = np.random.default_rng(3)
    pictures = []
    for number, mode in enumerate(["RGB", "RGBA", "L", "P"] * 4):
        base = Image.fromarray(rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8))
        pictures.append(base.convert(mode))
        pictures[-1].save(tmp_path / f"{number:02}.png")
    from_files = load_images(Settings(network="x", data=tmp_path), facts())
    assert digests(tiny_set(pictures)) == digests(from_files)


def test_raw_images_of_several_sizes_are_resized_as_files_are():
    images = [np.full((side, side, 3), side, np.uint8) for side in range(10, 26)]
    tiny = tiny_set(images)
    assert tiny.fit.pixels.shape[1:] == (3, *facts().preprocessing.size)
    assert sorted(int(image.float().mean()) for image in (*tiny.fit.pixels, *tiny.held_out.pixels)) == [*range(10, 26)]


def test_floats_are_taken_as_normalised_and_give_the_size_of_the_input():
    images = torch.randn(12, 3, 20, 24, dtype=torch.bfloat16)
    listing, place = read(images), place_of(images, "images")
    assert listing.array.dtype == np.float32
    assert image_size_of(Settings(data=place), {place: listing}) == (20, 24)
    assert image_size_of(Settings(data=place), {place: read([Image.new("RGB", (9, 9))])}) is None


def test_endless_loader_is_read_so_far_and_that_is_said():
    listing = read(DataLoader(Endless(), batch_size=64))
    assert len(listing) == MOST_READ and listing.notes == (
        "images: the first 1,000 images are used, and there are more",
    )


def test_large_data_set_is_drawn_from_at_random_and_that_is_said():
    images = np.arange(3 * MOST_READ, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 8, 8), np.float32)
    listing, again = read(Rows(images)), read(Rows(images))
    assert listing.notes == ("images: 1,000 of 3,000 images are used, drawn at random",)
    drawn = listing.array[:, 0, 0, 0]
    assert (
        len(set(drawn)) == MOST_READ
        and drawn.max() > 2.5 * MOST_READ
        and np.array_equal(drawn, again.array[:, 0, 0, 0])
    )


def test_shuffled_loader_gives_the_same_images_again_and_leaves_the_generators_alone(pixels: np.ndarray):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    state = random.getstate()
    first, again, other = (read(DataLoader(Rows(pixels), batch_size=8, shuffle=True), seed) for seed in (0, 0, 1))
    assert np.array_equal(first.array, again.array) and not np.array_equal(first.array, other.array)
    assert torch.equal(torch.rand(1), expected) and random.getstate() == state


def test_data_set_that_augments_is_told(pixels: np.ndarray):
    class Flipping(Rows):
        def __getitem__(self, index: int) -> Any:
            return torch.from_numpy(self.images[index]) + (torch.rand(1) * 200).byte()

    class Wrapped(Rows):
        pass

    for images in (Flipping(pixels), DataLoader(Flipping(pixels), batch_size=4)):
        assert "Flipping gives its first image differently" in " ".join(read(images).notes)
    assert read(Wrapped(pixels)).notes == ()


@pytest.mark.parametrize(
    ("images", "message", "remedy"),
    [
        (np.zeros((9, 8, 8, 3), np.int64), r"images: 'images' is int64\[9, 8, 8, 3\]", "float32"),
        (np.zeros((9, 8)), r"'images' is float64\[9, 8\]", "uint8"),
        ((np.zeros((9, 8, 8), np.uint8), np.array(["cat"] * 9)), "'labels' is <U3", "whole number"),
        ((np.zeros((9, 8, 8), np.uint8), np.zeros(8, int)), "9 images but 8 labels", "whole number"),
        (([np.zeros((8, 8), np.uint8)] * 3, [1]), "3 images but 1 labels", "whole number"),
        ([], "images holds no images", "50 to 500"),
        (iter(()), "images holds no images", "read before"),
        (7, "images is an object of type int, which gives no images", "a Dataset"),
        ({"images": 3}, "images is an object of type dict", "a Dataset"),
        ([{"image": 1}], "gives an object of type dict, not an image", "row"),
        ([(np.zeros((8, 8)), 1, 2)], "gives an object of type tuple of 3", "row"),
        ([(np.zeros((8, 8)), "cat")], "the label of image 0 is an object of type str", "whole number"),
        ([(np.zeros((8, 8)), np.zeros(n)) for n in (2, 3)], "the labels are of shapes .2. and .3.", "alone"),
        ([np.zeros((3, 8, 8)), np.zeros((3, 9, 9))], "image 0 is float64.*of different shapes", "one shape"),
        ([(np.zeros((4, 3, 8, 8)), [0, 1])], "a batch of 4 images has 2 labels", "whole number"),
    ],
)
def test_what_gives_no_images_is_an_error_with_a_remedy(images: Any, message: str, remedy: str):
    with pytest.raises(InputError, match=message) as refused:
        read(images)
    assert remedy in refused.value.remedy


def test_value_that_is_no_number_is_an_error_that_names_the_image():
    images = np.random.default_rng(0).normal(size=(20, 3, *facts().preprocessing.size)).astype(np.float32)
    images[7, 0, 3, 3] = np.nan
    with pytest.raises(InputError, match="images: image 7: it holds 1 values that are NaN") as refused:
        tiny_set(images)
    assert "numpy.isfinite" in refused.value.remedy


def test_what_the_users_own_data_set_raises_is_raised(pixels: np.ndarray):
    class Broken(Rows):
        def __getitem__(self, index: int) -> Any:
            raise ZeroDivisionError("in a transform")

    with pytest.raises(ZeroDivisionError, match="in a transform"):
        read(Broken(pixels))


class Tokenised(Dataset):
    """Dictionaries of arrays, numbers among them."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: array[index].tolist() if name == "label" else array[index] for name, array in self.arrays.items()}


ARRAYS = {"input_ids": np.arange(40 * 6).reshape(40, 6), "attention_mask": np.ones((40, 6), int), "label": LABELS}


@pytest.mark.parametrize("form", [dict, Tokenised, lambda a: DataLoader(Tokenised(a), batch_size=7)])
def test_dictionaries_of_arrays_are_read_by_name_whole_or_sample_by_sample(form):
    listing = read(form(ARRAYS))
    assert listing.array is None and not listing.files and listing.arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(listing.arrays[name], array) for name, array in ARRAYS.items())


def test_large_data_set_of_dictionaries_is_drawn_from_and_that_is_said():
    ids = np.arange(2 * MOST_READ)[:, None]
    listing = read(Tokenised({"input_ids": ids}))
    drawn = listing.arrays["input_ids"][:, 0].tolist()
    assert len(set(drawn)) == MOST_READ and drawn == sorted(drawn) and max(drawn) > MOST_READ
    assert listing.notes == (f"images: {MOST_READ:,} of {2 * MOST_READ:,} images are used, drawn at random",)
    of_loader = read(DataLoader(Tokenised({"input_ids": ids}), batch_size=100))
    assert len(of_loader.arrays["input_ids"]) == MOST_READ and "there are more" in of_loader.notes[0]


@pytest.mark.parametrize(
    "samples",
    [
        [{"a": np.zeros(3)}, {"b": np.zeros(3)}],
        [{"a": np.zeros(3)}, {"a": np.zeros(4)}],
    ],
)
def test_dictionaries_that_do_not_belong_together_are_refused(samples):
    with pytest.raises(InputError, match="the samples of images cannot be put together") as error:
        read(samples)
    assert "padded to one length" in error.value.remedy


def test_arrays_by_name_for_a_network_of_images_are_refused():
    with pytest.raises(
        InputError, match=r"holds arrays by name \(input_ids, attention_mask, label\), and the network takes images"
    ):
        tiny_set(ARRAYS)
