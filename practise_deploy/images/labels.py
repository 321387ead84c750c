"""Labels: the classes of images, matched to the outputs of a network; of other tasks the true answers."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from practise_backends.errors import about
from practise_backends.files import read_text
from practise_deploy.errors import InputError, reason
from practise_deploy.images.reading import Listing, channels_first
from practise_deploy.settings import ImageSource
from practise_deploy.tasks.truth import takes_labels, truth_of
from practise_deploy.terms import NetworkSummary, TaskKind

TEXT_ORDER = "in the order of text (1, 10, 11, ..., 2), as torchvision's ImageFolder numbers them"
NUMERIC_ORDER_NOTE = f"folders that are named by numbers were taken for the outputs of those numbers, not {TEXT_ORDER}"
_NUMBER = re.compile(r"-?\d+")


def labels_of(
    listing: Listing, settings: ImageSource, network: NetworkSummary, notes: list[str], *, required: bool = False
) -> np.ndarray | None:
    """The images' classes as output numbers of the network, of other tasks the true answers; None where they cannot be matched.

    Shapes: int64[n], or float64[n, numbers] (`tasks.truth`).
    Raises: InputError for labels or a --classes that do not fit the network; without a match where one is required.
    """
    source = settings.eval if required else settings.data
    if network.output_classes is None and (listing.targets is not None or listing.classes is not None):
        return _true_answers(listing, settings, network, notes, str(source))
    if listing.targets is not None:
        raise InputError(
            f"{source}: 'labels' is {listing.targets.dtype}{list(listing.targets.shape)}; expected one whole number for each image",
            remedy="write the number of the image's output for each, or leave the labels out; --task says what the network is judged as",
        )
    if listing.classes is None:
        if required and network.output_classes is not None:
            raise InputError(
                f"{source} has no labels",
                remedy="one folder per class, a list file with labels, or an .npz with 'labels'",
            )
        if settings.classes is not None and settings.eval is None:
            raise InputError(
                f"--classes {settings.classes} names the classes of labels, and {source} has none",
                remedy="leave --classes out, or give labelled images with --data or --eval",
            )
        return None
    names = sorted({str(name) for name in listing.classes})
    outputs = _outputs_by_name(names, settings, network, notes)
    if in_text_order(listing, settings, network):
        notes.append(f"{NUMERIC_ORDER_NOTE} (see --classes)")
    if outputs is None:
        problem = f"the class names in {source} cannot be matched to the network's {network.output_classes} outputs"
        if required:
            raise InputError(problem, remedy="give the outputs' names in order, one a line, with --classes")
        notes.append(f"{problem}: the labels are not used (see --classes)")
        return None
    return np.array([outputs[str(name)] for name in listing.classes], dtype=np.int64)


def _true_answers(
    listing: Listing, settings: ImageSource, network: NetworkSummary, notes: list[str], source: str
) -> np.ndarray | None:
    """The labels as answers to the network's task; None, and a note, where it has none that labels could hold."""
    if settings.classes is not None:
        raise InputError(
            f"--classes {settings.classes} names the classes of a classifier, and the network is judged as {network.task.kind.value}",
            remedy="leave --classes out",
        )
    labels = listing.targets
    if labels is None and not listing.by_folder:
        with suppress(ValueError):  # names are no numbers
            labels = np.array(listing.classes, dtype=np.float64)
    if labels is None or not takes_labels(network.task):
        notes.append(
            f"the network is judged as {network.task.kind.value}, by agreement: the labels in {source} are not used"
        )
        return None
    if network.task.kind is TaskKind.SEGMENTATION and _is_resized(listing, network):
        raise InputError(
            f"{source}: the images are resized to the network's input, and labels of their pixels are not",
            remedy=f"give images of {' x '.join(map(str, network.preprocessing.size))} pixels in an array, with labels of the pixels that the network puts out",
        )
    with about(f"{source}: 'labels'"):
        return truth_of(network.task, labels)


def _is_resized(listing: Listing, network: NetworkSummary) -> bool:
    """Whether any image is of another size than the network's input."""
    array = listing.array
    if array is None:
        return True
    shape = array.shape[1:]
    sides = shape[1:] if len(shape) == 3 and channels_first(shape, array.dtype) else shape[:2]
    return tuple(sides) != network.preprocessing.size


def in_text_order(listing: Listing, settings: ImageSource, network: NetworkSummary) -> dict[int, int]:
    """For folders named by numbers: output in numeric order -> output in text order, as torchvision's ImageFolder numbers
    them. Empty where both are the same, or where folders and outputs differ in number.
    """
    names = sorted({str(name) for name in listing.classes or ()})
    if not listing.by_folder or settings.classes is not None or len(names) != network.output_classes:
        return {}
    if not all(_NUMBER.fullmatch(name) for name in names):
        return {}
    outputs = _numeric_outputs(names, len(names))
    if outputs is None or list(outputs.values()) == list(range(len(names))):
        return {}
    return {output: position for position, output in enumerate(outputs.values())}


def _numeric_outputs(names: list[str], outputs: int) -> dict[str, int] | None:
    """Names that are output numbers, with those numbers; None where one is out of range."""
    numbers = {name: int(name) for name in names}
    return numbers if all(0 <= number < outputs for number in numbers.values()) else None


def _outputs_by_name(
    names: list[str], settings: ImageSource, network: NetworkSummary, notes: list[str]
) -> dict[str, int] | None:
    """Class name -> output, by --classes, by number, by WordNet id of ImageNet-1k, or one folder per output."""
    outputs = network.output_classes or 0
    if settings.classes is not None:
        output_names = _read_output_names(settings.classes, outputs, names)
    elif all(_NUMBER.fullmatch(name) for name in names):  # numbers are output numbers or match nothing
        return _numeric_outputs(names, outputs)
    elif outputs == 1000 and all(name[0] == "n" and name[1:].isdigit() and len(name) == 9 for name in names):
        output_names = (Path(__file__).parent / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    else:
        output_names = names if len(names) == outputs else []
        notes += (
            ["class names were matched to the outputs in alphabetical order (see --classes)"] if output_names else []
        )
    return {name: output_names.index(name) for name in names} if set(names) <= set(output_names) else None


def _read_output_names(file: Path, outputs: int, names: list[str]) -> list[str]:
    """The outputs' names, one per line; an empty line before the last name is an output without a name."""
    try:
        output_names = [line.strip() for line in read_text(file).rstrip().split("\n")]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the class names in {file}: {reason(error)}",
            remedy="give a text file in UTF-8 with --classes: the outputs' names in order, one a line",
        ) from None
    if len(output_names) != outputs:
        raise InputError(
            f"{file} names {len(output_names)} outputs, the network has {outputs}",
            remedy="one line for each output, in their order; for one that has no name an empty line",
        )
    if duplicate := next((name for name in names if output_names.count(name) > 1), None):
        raise InputError(
            f"{file} names '{duplicate}' {output_names.count(duplicate)} times", remedy="give each output its own name"
        )
    return output_names
