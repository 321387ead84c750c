"""The tiny set: labels where they fit, and a held-out part that nothing else sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import load_images
from practise_deploy.network.loading.load import load_network
from practise_deploy.settings import Settings
from practise_deploy.terms import NetworkSummary, Task, TaskKind
from samples.pictures import GREY, RGB, facts, numbered, numbers, settings

torch.set_num_threads(1)  # images this small are slower on two


def test_flat_folder_has_no_labels_and_no_image_is_lost(tmp_path: Path):
    tiny = load_images(settings(numbered(tmp_path)), facts())
    assert sorted(numbers(tiny.fit) + numbers(tiny.held_out)) == list(range(16))
    assert (tiny.summary.fit, tiny.summary.held_out, tiny.summary.labelled) == (12, 4, False)
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
    assert set(tiny.fit.labels.tolist()) | set(tiny.held_out.labels.tolist()) == {0, 3, 7} and tiny.summary.labelled


def test_hidden_folders_are_no_classes(tmp_path: Path):
    numbered(tmp_path / "0"), numbered(tmp_path / "1", blue=9), numbered(tmp_path / ".ipynb_checkpoints", blue=99)
    tiny = load_images(settings(tmp_path), facts())
    assert tiny.summary.fit + tiny.summary.held_out == 32


def test_embedded_images_have_their_own_size():
    network = load_network(Settings(network="digits", input_size=64))
    with pytest.raises(InputError, match="28x28, the input is 64x64"):
        load_images(Settings(network="digits", input_size=64), network.summary)


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
    tiny = load_images(settings(tmp_path / "d", classes=tmp_path / "names.txt"), facts(outputs=3))
    assert set(tiny.fit.labels.tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("background\ncat\ndog\nant\n", "names 4 outputs, the network has 3"),
        ("cat\nant\n", "names 2 outputs, the network has 3"),
        ("cat\nant\ncat\n", "names 'cat' 2 times"),
    ],
)
def test_names_of_classes_that_do_not_fit_the_network_are_refused(tmp_path: Path, names: str, said: str):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises(InputError, match=said):
        load_images(settings(tmp_path / "d", classes=tmp_path / "names.txt"), facts(outputs=3))


def test_output_without_a_name_is_an_empty_line(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    (tmp_path / "names.txt").write_text("\ncat\nant\n")
    tiny = load_images(settings(tmp_path / "d", classes=tmp_path / "names.txt"), facts(outputs=3))
    assert set(tiny.fit.labels.tolist()) == {1, 2}


def test_as_many_folders_as_outputs_are_numbered_by_name(tmp_path: Path):
    numbered(tmp_path / "cat", 8), numbered(tmp_path / "ant", 8)
    assert set(load_images(settings(tmp_path), facts(outputs=2)).fit.labels.tolist()) == {0, 1}


def test_classes_that_do_not_match_are_left_unused_for_fitting_and_an_error_for_evaluation(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    tiny = load_images(settings(tmp_path / "d"), facts())
    assert tiny.fit.labels is None and "--classes" in tiny.summary.notes[0] and "10 outputs" in tiny.summary.notes[0]
    with pytest.raises(InputError, match="cannot be matched") as error:
        load_images(settings(tmp_path / "d", eval=tmp_path / "d"), facts())
    assert "--classes" in error.value.remedy


def test_labels_for_an_output_that_is_no_classifiers_are_told_so(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    tiny = load_images(settings(tmp_path / "d"), facts(outputs=None))
    assert tiny.fit.labels is None and tiny.summary.notes[0].endswith(f"the labels in {tmp_path / 'd'} are not used")
    numbered(tmp_path / "eval" / "cat", 4, blue=1), numbered(tmp_path / "flat", 4, blue=2)
    for held_out in ("eval", "flat"):
        tiny = load_images(settings(tmp_path / "d", eval=tmp_path / held_out), facts(outputs=None))
        assert (len(tiny.held_out), tiny.held_out.labels) == (4, None)


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
    embedded = replace(facts(replace(GREY, size=(28, 28))), name="digits")
    tiny = load_images(Settings(fit_images=50), embedded)
    assert (len(tiny.fit), len(tiny.held_out), tiny.summary.labelled) == (50, 500, True)


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
    assert any(note.startswith("3 images are the same, pixel by pixel") for note in tiny.summary.notes)


def test_evaluation_on_the_images_to_fit_is_an_error(tmp_path: Path):
    numbered(tmp_path / "0", 12)
    with pytest.raises(InputError, match="0 images to fit"):
        load_images(settings(tmp_path, eval=tmp_path), facts())


@pytest.mark.parametrize("first", [1, -1])
def test_labels_outside_the_outputs_are_never_renumbered(tmp_path: Path, first: int):
    images = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 10 + first)
    tiny = load_images(settings(tmp_path / "a.npz"), facts(outputs=10))
    assert tiny.held_out.labels is None and "cannot be matched" in tiny.summary.notes[0]


def test_images_beside_folders_of_images_are_an_error(tmp_path: Path):
    numbered(tmp_path, 1), numbered(tmp_path / "cat", 12)
    with pytest.raises(InputError, match="beside folders of images"):
        load_images(settings(tmp_path), facts())


def test_some_images_are_a_random_part_in_its_order(tmp_path: Path):
    whole = load_images(settings(numbered(tmp_path, 24)), facts()).fit
    some = whole.subsample(8, 0)
    assert len(some) == 8 and numbers(some) == sorted(set(numbers(some))) and numbers(some) != numbers(whole)[:8]
    assert torch.equal(some.pixels, whole.subsample(8, 0).pixels) and not torch.equal(
        some.pixels, whole.subsample(8, 1).pixels
    )
    assert whole.subsample(100, 0) is whole


@pytest.mark.parametrize(("most", "span"), [(1.0, "0 to 1"), (255.0, "0 to 255")])
@pytest.mark.parametrize("of", ["data", "eval"])
def test_floats_that_look_raw_are_doubted_wherever_they_are(tmp_path: Path, most: float, span: str, of: str):
    rng = np.random.default_rng(0)
    normalised, raw = rng.normal(size=(16, 3, 16, 16)), rng.uniform(0, most, size=(16, 3, 16, 16))
    raw[0, 0, 0, :2] = (0, most)
    labels = np.arange(16) % 10
    for name in ("data", "eval"):
        images = (raw if name == of else normalised).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    tiny = load_images(settings(tmp_path / "data.npz", eval=tmp_path / "eval.npz"), facts())
    assert [note for note in tiny.summary.notes if "taken as normalised" in note] == [
        f"the images are numbers from {span} and taken as normalised, as all floats are; give raw ones as uint8"
    ]


def test_bytes_beside_floats_are_told(tmp_path: Path):
    rng, labels = np.random.default_rng(0), np.arange(16) % 10
    np.savez(tmp_path / "fit.npz", images=rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8), labels=labels)
    np.savez(tmp_path / "eval.npz", images=rng.normal(size=(16, 3, 16, 16)).astype(np.float32), labels=labels)
    tiny = load_images(settings(tmp_path / "fit.npz", eval=tmp_path / "eval.npz"), facts())
    assert any("to fit are bytes" in note and "held out are floats" in note for note in tiny.summary.notes)


def test_files_that_are_no_images_are_counted_with_their_endings(tmp_path: Path):
    numbered(tmp_path, 12)
    for name in ("a.CR3", "b.cr3", "notes", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = load_images(settings(tmp_path), facts()).summary.notes
    assert note == f"{tmp_path}: 3 files are of kinds that are not read: .cr3 (2), no ending (1), and are left out"


def test_links_that_lead_nowhere_and_deeper_folders_are_counted(tmp_path: Path):
    numbered(tmp_path, 12)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "moved.jpg")
    numbered(tmp_path / "more" / "deep", 2)
    notes = load_images(settings(tmp_path), facts()).summary.notes
    assert any("1 links lead nowhere" in note for note in notes)
    assert any("2 images lie in deeper folders" in note for note in notes)


def test_folders_of_classes_are_all_taken_and_what_is_deeper_is_counted(tmp_path: Path):
    for blue, name in ((1, "cat"), (2, "dog")):
        numbered(tmp_path / name, 6, blue=blue)
    numbered(tmp_path / "dog" / "puppies", 3, blue=3)
    notes = load_images(settings(tmp_path), facts(outputs=2)).summary.notes
    assert [note for note in notes if "left out" in note] == [
        f"{tmp_path}: 3 images lie in deeper folders, and are left out"
    ]


@pytest.mark.parametrize(("count", "said"), [(12, True), (10, False)])
def test_numbers_for_folders_are_said_to_be_taken_so_where_text_sorts_otherwise(tmp_path: Path, count: int, said: bool):
    for name in range(count):
        numbered(tmp_path / str(name), 2, blue=name)
    notes = load_images(settings(tmp_path), facts(outputs=count)).summary.notes
    assert any("(1, 10, 11, ..., 2)" in note and "--classes" in note for note in notes) == said


@pytest.mark.parametrize(
    ("line", "remedy"),
    [("00.png,3", "not a comma"), ("photos\\00.png", "with / between"), ("gone.png", "relative to the list")],
)
def test_line_that_names_no_image_is_told_what_to_do(tmp_path: Path, line: str, remedy: str):
    numbered(tmp_path, 12)
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match="line 1: no such image") as refused:
        load_images(settings(tmp_path / "list.txt"), facts())
    assert remedy in refused.value.remedy


def test_list_with_a_byte_order_mark_is_read(tmp_path: Path):
    numbered(tmp_path, 12)
    (tmp_path / "list.txt").write_text("".join(f"{n:02d}.png\n" for n in range(12)), encoding="utf-8-sig")
    assert len(load_images(settings(tmp_path / "list.txt"), facts()).fit) == 8


def judged_as(kind: TaskKind, *shape: int) -> NetworkSummary:
    return replace(facts(outputs=None), task=Task(kind=kind, shapes=(shape,)))


def test_labels_of_other_tasks_go_with_their_images(tmp_path: Path):
    pixels = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.stack([np.arange(40) * 0.5, -np.arange(40)], 1))
    tiny = load_images(settings(tmp_path / "a.npz"), judged_as(TaskKind.REGRESSION, 2))
    for part in (tiny.fit, tiny.held_out):
        assert part.labels.dtype == torch.float64
        assert part.labels[:, 0].tolist() == [value * 0.5 for value in part.pixels[:, 0, 0, 0].tolist()]
    assert tiny.summary.labelled and not tiny.summary.notes


def test_numbers_in_a_list_file_are_values(tmp_path: Path):
    numbered(tmp_path / "im", 16)
    files = sorted((tmp_path / "im").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(f"im/{file.name}\t{n / 8}" for n, file in enumerate(files)))
    tiny = load_images(settings(tmp_path / "list.txt"), judged_as(TaskKind.REGRESSION, 1))
    assert tiny.fit.labels[:, 0].tolist() == [n / 8 for n in numbers(tiny.fit)]


def test_labels_of_pixels_are_refused_where_the_images_are_resized(tmp_path: Path):
    labels = np.zeros((20, 16, 16), int)
    for side in (16, 20):
        np.savez(tmp_path / f"{side}.npz", images=np.zeros((20, side, side, 3), np.uint8), labels=labels)
    network = judged_as(TaskKind.SEGMENTATION, 3, 16, 16)
    with pytest.raises(InputError, match="labels of their pixels are not"):
        load_images(settings(tmp_path / "20.npz"), network)
    with pytest.raises(InputError, match="to fit"):  # twenty black images are one; the labels were taken
        load_images(settings(tmp_path / "16.npz"), network)


def test_labels_of_a_classifier_are_one_number_each(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 16, 16, 3), np.uint8), labels=np.zeros((20, 10)))
    with pytest.raises(InputError, match=r"float64\[20, 10\]; expected one whole number") as error:
        load_images(settings(tmp_path / "a.npz"), facts())
    assert "--task" in error.value.remedy


def test_names_of_classes_are_refused_for_what_is_no_classifier(tmp_path: Path):
    numbered(tmp_path / "d" / "cat", 8), numbered(tmp_path / "d" / "ant", 8)
    (tmp_path / "names.txt").write_text("cat\nant\n")
    with pytest.raises(InputError, match="judged as embedding"):
        load_images(settings(tmp_path / "d", classes=tmp_path / "names.txt"), judged_as(TaskKind.EMBEDDING, 8))
