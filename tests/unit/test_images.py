"""The tiny set: any image that PIL reads, labels where they fit, and a held-out part that nothing else sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from practise_deploy.errors import InputError
from practise_deploy.model.images import augmenter, image_size_of, load_images
from practise_deploy.settings import Settings
from practise_deploy.terms import NetworkFacts, Preprocessing

torch.set_num_threads(1)  # images this small are slower on two
RGB = Preprocessing(
    channels=3,
    size=(16, 16),
    resize=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    interpolation="bilinear",
    augment="crop-flip",
)
GREY = replace(RGB, channels=1, mean=(0.5,), std=(0.25,))


def facts(preprocessing: Preprocessing = RGB, outputs: int = 10) -> NetworkFacts:
    return NetworkFacts(
        name="n",
        weights="",
        sha256="",
        parameters=0,
        macs=0,
        output_classes=outputs,
        feature="f",
        preprocessing=preprocessing,
        notes=(),
    )


def settings(data: Path, **more) -> Settings:
    return Settings(network="torchvision:resnet18", data=data, **more)


def numbered(folder: Path, count: int = 16, name: str = "{:02d}.png", *, blue: int | None = None) -> Path:
    """Images whose grey level (with `blue`, whose red) is their number times ten."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        colour = (n * 10,) * 3 if blue is None else (n * 10, 0, blue)
        Image.new("RGB", (16, 16), colour).save(folder / name.format(n))
    return folder


def numbers(images) -> list[int]:
    return [round(int(image[0, 0, 0]) / 10) for image in images.pixels]


def one(
    folder: Path, image: Image.Image | None = None, *, name: str = "a.png", preprocessing: Preprocessing = RGB, **save
) -> np.ndarray:
    """How one image is read, as [height, width, channels], among black ones."""
    numbered(folder, 16, "b{:02d}.png")
    if image is not None:
        image.save(folder / name, **save)
    listing = folder / "list.txt"
    listing.write_text("\n".join([name, *(f"b{n:02d}.png" for n in range(16))]))
    for seed in range(40):
        tiny = load_images(settings(listing, seed=seed), facts(preprocessing))
        if len(tiny.fit) + len(tiny.held_out) == 17 and tiny.facts.fit:
            both = torch.cat([tiny.fit.pixels, tiny.held_out.pixels])
            plain = {n * 10 for n in range(16)}
            for pixels in both:
                if (
                    pixels.float().std() > 0
                    or int(pixels[0, 0, 0]) not in plain
                    or len(set(pixels[:, 0, 0].tolist())) > 1
                ):
                    return pixels.permute(1, 2, 0).numpy()
    raise AssertionError("the image was not found among the plain ones")


def quadrants() -> np.ndarray:
    """Red, green / blue, white."""
    array = np.zeros((16, 16, 3), np.uint8)
    array[:8, :8], array[:8, 8:], array[8:, :8], array[8:, 8:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    return array


def test_flat_folder_has_no_labels_and_no_image_is_lost(tmp_path: Path):
    tiny = load_images(settings(numbered(tmp_path)), facts())
    assert sorted(numbers(tiny.fit) + numbers(tiny.held_out)) == list(range(16))
    assert (tiny.facts.fit, tiny.facts.held_out, tiny.facts.labelled) == (12, 4, False)
    assert tiny.fit.labels is None and tiny.held_out.labels is None


@pytest.mark.parametrize("seed", range(5))
def test_held_out_images_are_never_among_those_to_fit(tmp_path: Path, seed):
    tiny = load_images(settings(numbered(tmp_path, 25), seed=seed, held_out_percent=40), facts())
    assert not set(numbers(tiny.fit)) & set(numbers(tiny.held_out))
    assert (len(tiny.fit), len(tiny.held_out)) == (15, 10)
    learn, judge = tiny.fit.split(seed)
    assert sorted(numbers(learn) + numbers(judge)) == sorted(numbers(tiny.fit)) and len(judge) == 3


def test_split_depends_on_the_seed_and_on_nothing_else(tmp_path: Path):
    folder = numbered(tmp_path, 25)
    first, again, other = (load_images(settings(folder, seed=seed), facts()) for seed in (1, 1, 2))
    assert first.fit.digest() == again.fit.digest() != other.fit.digest()
    assert first.held_out.digest() == again.held_out.digest() != other.held_out.digest()
    assert torch.equal(first.fit.split(3)[0].pixels, again.fit.split(3)[0].pixels)


def test_limit_on_images_to_fit_leaves_the_held_out_part_alone(tmp_path: Path):
    folder = numbered(tmp_path, 25)
    few, all_of_them = load_images(settings(folder, fit_images=8), facts()), load_images(settings(folder), facts())
    assert len(few.fit) == 8 and few.held_out.digest() == all_of_them.held_out.digest()


@pytest.mark.parametrize("count", [1, 7, 11])
def test_too_few_images_are_an_error_that_says_why(tmp_path: Path, count):
    with pytest.raises(InputError, match="at least 8 are needed to tell a good recovery from a memorised one"):
        load_images(settings(numbered(tmp_path, count)), facts())


def test_digit_folders_are_class_numbers_even_where_some_are_missing(tmp_path: Path):
    for label in (0, 3, 7):
        numbered(tmp_path / str(label), 6, blue=label)
    tiny = load_images(settings(tmp_path), facts())
    assert set(tiny.fit.labels.tolist()) | set(tiny.held_out.labels.tolist()) == {0, 3, 7} and tiny.facts.labelled


def test_wordnet_folders_are_numbered_as_in_imagenet(tmp_path: Path):
    expected = {"n01440764": 0, "n02102040": 217, "n03888257": 701}
    for n, name in enumerate(expected):
        for i in range(6):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (n * 10 + 10, i * 40, 0)).save(tmp_path / name / f"{i}.png")
    tiny = load_images(settings(tmp_path), facts(outputs=1000))
    pairs = set(zip(numbers(tiny.fit), tiny.fit.labels.tolist(), strict=True))
    assert pairs <= {(1, 0), (2, 217), (3, 701)} and len(pairs) >= 2


def test_names_of_classes_come_from_the_file_in_the_order_of_the_outputs(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    (tmp_path / "names.txt").write_text("cat\ndog\nant\n")
    tiny = load_images(settings(tmp_path / "d", classes=tmp_path / "names.txt"), facts())
    assert set(tiny.fit.labels.tolist()) == {0, 2}


def test_as_many_folders_as_outputs_are_numbered_by_name(tmp_path: Path):
    numbered(tmp_path / "cat", 8), numbered(tmp_path / "ant", 8)
    assert set(load_images(settings(tmp_path), facts(outputs=2)).fit.labels.tolist()) == {0, 1}


def test_classes_that_do_not_match_are_left_unused_for_fitting_and_an_error_for_evaluation(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    tiny = load_images(settings(tmp_path / "d"), facts())
    assert tiny.fit.labels is None and "--classes" in tiny.facts.notes[0] and "10 outputs" in tiny.facts.notes[0]
    with pytest.raises(InputError, match="cannot be matched") as error:
        load_images(settings(tmp_path / "d", eval=tmp_path / "d"), facts())
    assert "--classes" in error.value.remedy


def test_evaluation_images_are_all_held_out_and_all_others_are_fitted(tmp_path: Path):
    fit = numbered(tmp_path / "fit", 9)
    for label in (0, 1):
        numbered(tmp_path / "eval" / str(label), 3, blue=1 + label)
    tiny = load_images(settings(fit, eval=tmp_path / "eval"), facts())
    assert (len(tiny.fit), len(tiny.held_out)) == (9, 6) and tiny.held_out.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_evaluation_images_without_labels_are_an_error(tmp_path: Path):
    fit, flat = numbered(tmp_path / "fit", 9), numbered(tmp_path / "eval", 4)
    with pytest.raises(InputError, match="no labels"):
        load_images(settings(fit, eval=flat), facts())


@pytest.mark.parametrize("between", ["\t", " "])
def test_list_file_gives_images_and_labels(tmp_path: Path, between):
    numbered(tmp_path / "im", 16, "an image {:02d}.png")
    lines = ["# a comment", "", *(f"im/an image {n:02d}.png{between}{n % 10}" for n in range(16))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    tiny = load_images(settings(tmp_path / "list.txt"), facts())
    assert tiny.fit.labels.tolist() == [n % 10 for n in numbers(tiny.fit)]


@pytest.mark.parametrize(
    "line, message",
    [
        ("none.png\t1", "line 4: no such image: none.png"),
        ("05.png", "line 4: a label on every line"),
        ("00.png\t1", "line 4: 00.png is listed twice"),
    ],
)
def test_wrong_line_of_a_list_is_an_error_that_gives_its_number(tmp_path: Path, line, message):
    numbered(tmp_path)
    (tmp_path / "list.txt").write_text("\n".join([f"{n:02d}.png\t1" for n in range(3)] + [line]))
    with pytest.raises(InputError, match=message):
        load_images(settings(tmp_path / "list.txt"), facts())


@pytest.mark.parametrize("what", ["missing", "empty folder", "empty list"])
def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path: Path, what):
    place = tmp_path / "place"
    if what == "empty folder":
        place.mkdir()
    elif what == "empty list":
        place.write_text("\n")
    with pytest.raises(InputError, match="place"):
        load_images(settings(place), facts())


def test_missing_data_is_an_error_except_for_the_embedded_network():
    with pytest.raises(InputError) as error:
        load_images(Settings(network="torchvision:resnet18"), facts())
    assert "--data" in error.value.remedy
    tiny = load_images(Settings(fit_images=50), facts(replace(GREY, size=(28, 28))))
    assert (len(tiny.fit), len(tiny.held_out), tiny.facts.labelled) == (50, 500, True)


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
        ({"images": np.zeros((12, 3, 8, 8), np.float32)}, "normalised images are 8x8"),
        ({"images": np.zeros((12, 16, 16), np.uint8), "labels": np.zeros(11, int)}, "12 images but 11 labels"),
        (
            {"images": np.zeros((12, 16, 16), np.uint8), "labels": np.zeros((12, 10), int)},
            "one whole number for each image",
        ),
        (
            {"images": np.zeros((12, 16, 16), np.uint8), "labels": np.array(["cat"] * 12)},
            "one whole number for each image",
        ),
    ],
)
def test_npz_of_another_form_is_an_error_that_says_what_was_found(tmp_path: Path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
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
    assert len(tiny.facts.skipped) == 2 and any("05b.jpg" in problem for problem in tiny.facts.skipped)


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
    with pytest.raises(InputError, match="could be read; at least 8"):
        load_images(settings(tmp_path, skip_bad_images=True), facts())


def test_batch_is_normalised_by_channel(tmp_path: Path):
    tiny = load_images(settings(numbered(tmp_path)), facts(replace(RGB, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))))
    value = tiny.fit.pixels[0, 0, 0, 0].item() / 255
    found = tiny.fit.batch(slice(1))[0, :, 0, 0].tolist()
    assert found == pytest.approx([value, (value - 0.5) / 0.5, (value - 1) / 0.25], abs=1e-6)


def test_digest_sees_pixels_and_of_held_out_images_the_labels(tmp_path: Path):
    tiny = load_images(settings(numbered(tmp_path)), facts())
    for images, sees in ((tiny.fit, False), (tiny.held_out, True)):
        labelled = replace(images, labels=torch.zeros(len(images), dtype=torch.int64))
        assert (labelled.digest() != images.digest()) == sees
        assert replace(images, pixels=images.pixels + 1).digest() != images.digest()


def test_images_that_are_held_out_too_are_not_used_to_fit_and_that_is_said(tmp_path: Path):
    fit = numbered(tmp_path / "fit", 12)
    numbered(tmp_path / "eval" / "0", 3)
    tiny = load_images(settings(fit, eval=tmp_path / "eval"), facts())
    assert (len(tiny.fit), len(tiny.held_out)) == (9, 3) and set(numbers(tiny.fit)) == set(range(3, 12))
    assert "3 images are held out for verification too, and are not used to fit" in tiny.facts.notes


def test_evaluation_on_the_images_to_fit_is_an_error(tmp_path: Path):
    numbered(tmp_path / "0", 12)
    with pytest.raises(InputError, match="only 0 images to fit"):
        load_images(settings(tmp_path, eval=tmp_path), facts())


@pytest.mark.parametrize("first", [1, -1])
def test_labels_outside_the_outputs_are_never_renumbered(tmp_path: Path, first: int):
    images = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 10 + first)
    tiny = load_images(settings(tmp_path / "a.npz"), facts(outputs=10))
    assert tiny.held_out.labels is None and "cannot be matched" in tiny.facts.notes[0]


@pytest.mark.parametrize("augment", ["crop-flip", "crop", "none"])
def test_augmentation_keeps_the_size_and_none_keeps_the_image(augment):
    pixels = torch.arange(3 * 256, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    found = augmenter(replace(RGB, augment=augment))(pixels)
    assert found.shape == pixels.shape and (augment != "none" or torch.equal(found, pixels))


def test_values_that_are_no_numbers_are_an_error(tmp_path: Path):
    images = np.zeros((20, 3, 16, 16), np.float32)
    images[3, 1, 2, 2] = np.nan
    np.savez(tmp_path / "a.npz", images=images + np.arange(20, dtype=np.float32)[:, None, None, None])
    with pytest.raises(InputError, match="no numbers"):
        load_images(settings(tmp_path / "a.npz"), facts())


def test_images_beside_folders_of_images_are_an_error(tmp_path: Path):
    numbered(tmp_path, 1), numbered(tmp_path / "cat", 12)
    with pytest.raises(InputError, match="beside folders of images"):
        load_images(settings(tmp_path), facts())


def test_some_images_are_a_random_part_in_its_order(tmp_path: Path):
    whole = load_images(settings(numbered(tmp_path, 24)), facts()).fit
    some = whole.some(8, 0)
    assert len(some) == 8 and numbers(some) == sorted(set(numbers(some))) and numbers(some) != numbers(whole)[:8]
    assert torch.equal(some.pixels, whole.some(8, 0).pixels) and not torch.equal(some.pixels, whole.some(8, 1).pixels)
    assert whole.some(100, 0) is whole
