"""Any image that PIL reads, any npz of images; what cannot be read is named."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from practise_deploy.errors import InputError
from practise_deploy.images import reading
from practise_deploy.images.tiny_set import augmenter, image_size_of, load_images
from samples.pictures import GREY, RGB, facts, numbered, numbers, one, quadrants, settings

torch.set_num_threads(1)  # images this small are slower on two


@pytest.mark.parametrize("shape", [(20, 16, 16), (20, 16, 16, 3), (20, 3, 16, 16), (20, 16, 16, 1)])
def test_bytes_of_an_npz_are_understood_in_every_layout(tmp_path: Path, shape):
    values = np.arange(20, dtype=np.uint8).reshape(20, *[1] * (len(shape) - 1)) * 10
    np.savez(tmp_path / "a.npz", images=np.broadcast_to(values, shape), labels=np.arange(20) % 10)
    tiny = load_images(settings(tmp_path / "a.npz"), facts())
    assert tiny.fit.pixels.shape[1:] == (3, 16, 16) and tiny.fit.pixels.dtype == torch.uint8
    assert tiny.fit.labels.tolist() == [n % 10 for n in numbers(tiny.fit)]
    assert image_size_of(settings(tmp_path / "a.npz")) == (16, 16)


def test_floats_of_an_npz_are_taken_as_normalised_already(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(12, 3, 16, 16))
    np.savez(tmp_path / "a.npz", images=values)
    tiny = load_images(settings(tmp_path / "a.npz"), facts())
    assert tiny.fit.pixels.dtype == torch.float32 and torch.equal(tiny.fit.batch(slice(2)), tiny.fit.pixels[:2])
    found = torch.cat([tiny.fit.pixels, tiny.held_out.pixels]).numpy().sum((1, 2, 3))
    assert np.allclose(np.sort(found), np.sort(values.sum((1, 2, 3))), atol=1e-3)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"pictures": np.zeros((12, 16, 16), np.uint8)}, "has no array 'images'; it has: pictures"),
        ({"images": np.zeros((12, 16), np.uint8)}, r"uint8\[12, 16\]"),
        ({"images": np.zeros((12, 16, 16), np.uint16)}, "uint16"),
        ({"images": np.zeros((12, 16, 16), np.int64)}, "int64"),
        ({"images": np.zeros((12, 16, 16, 4), np.uint8)}, "4 channels, the network takes 3"),
        ({"images": np.zeros((12, 3, 8, 8), np.float32)}, "it is 8x8, the network takes 16x16"),
        ({"images": np.zeros((12, 16, 16), np.uint8), "labels": np.zeros(11, int)}, "12 images but 11 labels"),
        (
            {"images": np.zeros((12, 16, 16), np.uint8), "labels": np.zeros((12, 10), int)},
            "one whole number for each image",
        ),
        (
            {"images": np.zeros((12, 16, 16), np.uint8), "labels": np.array(["cat"] * 12)},
            "expected numbers for each image",
        ),
    ],
)
def test_npz_of_another_form_is_an_error_that_says_what_was_found(tmp_path: Path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_images(settings(tmp_path / "a.npz"), facts())


def test_member_of_an_npz_that_is_no_array_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", b"text")
    with pytest.raises(InputError, match=r"a\.npz is no usable \.npz file: 'images' in it is no array"):
        load_images(settings(tmp_path / "a.npz"), facts())


def test_broken_npz_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InputError, match=r"a\.npz"):
        load_images(settings(tmp_path / "a.npz"), facts())


def test_photo_is_turned_as_its_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    found = one(tmp_path, Image.fromarray(quadrants()), exif=exif)
    assert np.array_equal(found, np.rot90(quadrants(), -1))


def test_transparent_pixels_are_white_and_the_others_keep_their_colour(tmp_path: Path):
    array = np.dstack([quadrants(), np.full((16, 16), 255, np.uint8)])
    array[:8, :8, 3] = 0
    found = one(tmp_path, Image.fromarray(array))
    assert (found[0, 0] == 255).all() and (found[0, 15] == (0, 255, 0)).all()


@pytest.mark.parametrize(
    "mode, suffix", [("P", "gif"), ("P", "png"), ("RGB", "bmp"), ("RGB", "tiff"), ("RGB", "webp"), ("RGB", "PNG")]
)
def test_colours_survive_in_every_lossless_format(tmp_path: Path, mode, suffix):
    image = Image.fromarray(quadrants())
    image = image.quantize(8) if mode == "P" else image
    save = {"lossless": True} if suffix == "webp" else {}
    assert np.abs(one(tmp_path, image, name=f"a.{suffix}", **save).astype(int) - quadrants()).max() <= 1


def test_cmyk_jpeg_is_read_in_colour(tmp_path: Path):
    found = one(tmp_path, Image.fromarray(quadrants()).convert("CMYK"), name="a.jpg", quality=95, subsampling=0).astype(
        int
    )
    assert np.abs(found[2, 2] - (255, 0, 0)).max() < 30 and np.abs(found[12, 2] - (0, 0, 255)).max() < 30


@pytest.mark.parametrize("preprocessing", [RGB, GREY], ids=["colour", "grey"])
def test_grey_image_fills_the_networks_channels(tmp_path: Path, preprocessing):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = one(tmp_path, Image.fromarray(ramp), preprocessing=preprocessing)
    assert found.shape == (16, 16, preprocessing.channels) and (found == ramp[:, :, None]).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_image_is_scaled_and_not_clipped(tmp_path: Path, suffix):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    found = one(tmp_path, Image.fromarray(ramp), name=f"a.{suffix}")
    assert (found[:, :, 0] == np.arange(256).reshape(16, 16)).all()


def test_dark_sixteen_bit_image_is_as_dark_as_it_says(tmp_path: Path):
    found = one(tmp_path, Image.fromarray(np.full((16, 16), 250, np.uint16)))
    assert (found == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_grey_levels_of_unknown_white_are_an_error_rather_than_a_guess(tmp_path: Path, dtype):
    numbered(tmp_path)
    Image.fromarray(np.full((16, 16), 1, dtype)).save(tmp_path / "deep.tiff")
    with pytest.raises(InputError, match=r"deep\.tiff: .*white is unknown"):
        load_images(settings(tmp_path), facts())


def test_whatever_a_decoder_raises_is_a_broken_image(tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to decode image")

    monkeypatch.setattr(reading.ImageOps, "exif_transpose", fail)
    with pytest.raises(InputError, match=r"broken image .*Failed to decode"):
        load_images(settings(numbered(tmp_path)), facts())


def test_images_of_four_channels_come_as_an_array_alone(tmp_path: Path):
    four = replace(RGB, channels=4, mean=(0.5,) * 4, std=(0.25,) * 4)
    values = np.random.default_rng(0).normal(size=(12, 4, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=values)
    assert load_images(settings(tmp_path / "a.npz"), facts(four)).fit.pixels.shape[1:] == (4, 16, 16)
    assert image_size_of(settings(tmp_path / "a.npz")) == (16, 16)
    with pytest.raises(InputError, match="4 channels, which image files do not have"):
        load_images(settings(numbered(tmp_path / "files")), facts(four))


def test_colour_image_for_a_grey_network_is_its_luminance(tmp_path: Path):
    found = one(tmp_path, Image.fromarray(quadrants()), preprocessing=GREY)
    assert found[0, 0, 0] == 76 and found[15, 15, 0] == 255


def test_larger_image_is_resized_by_its_shorter_side_and_cropped_in_the_middle(tmp_path: Path):
    array = np.zeros((32, 64, 3), np.uint8)
    array[:, 16:48] = quadrants().repeat(2, 0).repeat(2, 1)
    found = one(tmp_path, Image.fromarray(array))
    assert np.array_equal(found[[2, 2, 13, 13], [2, 13, 2, 13]], quadrants()[[2, 2, 13, 13], [2, 13, 2, 13]])


def truncated(folder: Path, name: str) -> None:
    path = folder / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["broken.jpg", "broken.png", "broken.tiff", "empty.png", "text.jpg"])
def test_broken_image_is_named_in_the_error(tmp_path: Path, name):
    numbered(tmp_path)
    truncated(tmp_path, name)
    if name.startswith(("empty", "text")):
        (tmp_path / name).write_text("not an image" * name.startswith("text"))
    with pytest.raises(InputError, match=f"broken image .*{name}") as error:
        load_images(settings(tmp_path), facts())
    assert "--skip-bad-images" in error.value.remedy


def test_broken_images_are_skipped_and_counted_where_asked(tmp_path: Path):
    numbered(tmp_path, 18)
    truncated(tmp_path, "05b.jpg"), truncated(tmp_path, "11b.png")
    tiny = load_images(settings(tmp_path, skip_bad_images=True), facts())
    assert sorted(numbers(tiny.fit) + numbers(tiny.held_out)) == list(range(18))
    assert len(tiny.summary.skipped) == 2 and any("05b.jpg" in problem for problem in tiny.summary.skipped)


def test_skipped_image_takes_its_label_along(tmp_path: Path):
    for n in range(16):
        numbered(tmp_path / f"{n % 4}", blue=1 + n % 4)
    truncated(tmp_path / "0", "00.png"), truncated(tmp_path / "2", "07.png")
    by_class = {label: [n for n in range(16)] for label in range(4)}
    by_class[0].remove(0), by_class[2].remove(7)
    tiny = load_images(settings(tmp_path, skip_bad_images=True), facts())
    found = [
        *zip(tiny.fit.labels.tolist(), numbers(tiny.fit), strict=True),
        *zip(tiny.held_out.labels.tolist(), numbers(tiny.held_out), strict=True),
    ]
    assert sorted(found) == [(label, n) for label in range(4) for n in by_class[label]]


def test_too_few_images_after_skipping_are_an_error(tmp_path: Path):
    numbered(tmp_path, 8)
    for n in range(8):
        truncated(tmp_path, f"x{n}.png")
    with pytest.raises(InputError, match="could not be read"):
        load_images(settings(tmp_path, skip_bad_images=True), facts())


@pytest.mark.parametrize("augment", ["crop-flip", "crop", "none"])
def test_augmentation_keeps_the_size_and_none_keeps_the_image(augment):
    pixels = torch.arange(3 * 256, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    found = augmenter(replace(RGB, augment=augment))(pixels)
    assert found.shape == pixels.shape and (augment != "none" or torch.equal(found, pixels))


def test_values_that_are_no_numbers_are_an_error(tmp_path: Path):
    images = np.zeros((20, 3, 16, 16), np.float32)
    images[3, 1, 2, 2] = np.nan
    np.savez(tmp_path / "a.npz", images=images + np.arange(20, dtype=np.float32)[:, None, None, None])
    with pytest.raises(InputError, match="image 3: it holds 1 values that are NaN or infinity"):
        load_images(settings(tmp_path / "a.npz"), facts())


@pytest.mark.parametrize("sides", [(20, 37), (37, 20), (16, 16), (100, 33), (18, 17), (8, 9)])
def test_square_input_is_scaled_as_torchvision_scales(sides: tuple[int, int]):
    pixels = torch.randint(0, 256, (3, *sides), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    prepared = replace(RGB, size=(16, 16), resize=18)
    usual = v2.Compose([v2.Resize(18, interpolation=v2.InterpolationMode.BILINEAR, antialias=True), v2.CenterCrop(16)])
    found = reading.Reader(prepared, False, [])._resize_and_crop(pixels)
    assert torch.equal(found, pixels if sides == (16, 16) else usual(pixels))


@pytest.mark.parametrize("sides", [(128, 64), (64, 32), (300, 150)])
def test_picture_of_the_inputs_own_shape_is_seen_whole(sides: tuple[int, int]):
    """Rows and columns from 0 to 255: what is cut off is missing from the ends."""
    rows, columns = (torch.linspace(0, 255, side) for side in sides)
    pixels = torch.stack([rows[:, None].expand(sides), columns.expand(sides), torch.zeros(sides)]).to(torch.uint8)
    found = reading.Reader(replace(RGB, size=(96, 48), resize=48), False, [])._resize_and_crop(pixels)
    assert found.shape == (3, 96, 48)
    assert found[:2].amin((1, 2)).max() <= 6 and found[:2].amax((1, 2)).min() >= 249


def test_squashed_picture_is_seen_whole_whatever_its_shape():
    columns = torch.linspace(0, 255, 80).to(torch.uint8).expand(3, 20, 80)
    found = reading.Reader(replace(RGB, size=(16, 16), resize=16, squash=True), False, [])._resize_and_crop(columns)
    assert found.shape == (3, 16, 16) and found.min() <= 10 and found.max() >= 245
