"""Labels: the classes of images, matched to the outputs of a network."""

from __future__ import annotations

import re
from pathlib import Path

from practise_backends.files import read_text
from practise_deploy.errors import InputError, reason
from practise_deploy.images.reading import Listing
from practise_deploy.settings import Settings
from practise_deploy.terms import NetworkFacts

TEXT_ORDER = "in the order of text (1, 10, 11, ..., 2), as torchvision's ImageFolder numbers them"
BY_NUMBER = f"folders that are named by numbers were taken for the outputs of those numbers, not {TEXT_ORDER}"
_NUMBER = re.compile(r"-?\d+")


def labels_of(
    listing: Listing, settings: Settings, network: NetworkFacts, notes: list[str], *, required: bool = False
) -> list[int] | None:
    """Class numbers of the network's outputs, where the images' classes can be matched to them.

    Raises: InputError for a --classes that does not fit the network or has no labels to name; where they are required, for want of a match.
    """
    where = settings.eval if required else settings.data
    if listing.classes is None:
        if required:
            raise InputError(
                f"{where} has no labels",
                remedy="one folder per class, a list file with labels, or an .npz with 'labels'",
            )
        if settings.classes is not None and settings.eval is None:
            raise InputError(
                f"--classes {settings.classes} names the classes of labels, and {where} has none",
                remedy="leave --classes out, or give labelled images with --data or --eval",
            )
        return None
    names = sorted({str(name) for name in listing.classes})
    index = _outputs_by_name(names, settings, network, notes)
    if in_text_order(listing, settings, network):
        notes.append(f"{BY_NUMBER} (see --classes)")
    if index is None and network.output_classes is None:
        problem = (
            f"the labels in {where} say nothing of the network's output, which is no classifier's (images, classes)"
        )
        if required:
            raise InputError(problem, remedy="leave --eval out, or return the logits of every image")
        notes.append(f"{problem}: they are not used")
        return None
    if index is None:
        problem = f"the class names in {where} cannot be matched to the network's {network.output_classes} outputs"
        if required:
            raise InputError(problem, remedy="give the outputs' names in order, one a line, with --classes")
        notes.append(f"{problem}: the labels are not used (see --classes)")
        return None
    return [index[str(name)] for name in listing.classes]


def in_text_order(listing: Listing, settings: Settings, network: NetworkFacts) -> dict[int, int]:
    """Where folders are named by numbers: output of a folder -> its output in the order of text, as torchvision's ImageFolder
    numbers them. Empty where both are the same, or where the folders are not as many as the outputs.
    """
    names = sorted({str(name) for name in listing.classes or ()})
    if not listing.by_folder or settings.classes is not None or len(names) != network.output_classes:
        return {}
    if not all(_NUMBER.fullmatch(name) for name in names):
        return {}
    index = _numbers(names, len(names))
    if index is None or list(index.values()) == list(range(len(names))):
        return {}
    return {output: place for place, output in enumerate(index.values())}


def _numbers(names: list[str], outputs: int) -> dict[str, int] | None:
    """Names that are numbers of outputs, in their order."""
    found = {name: int(name) for name in names}
    return found if all(0 <= number < outputs for number in found.values()) else None


def _outputs_by_name(
    names: list[str], settings: Settings, network: NetworkFacts, notes: list[str]
) -> dict[str, int] | None:
    """Names of outputs from --classes, numbers, WordNet ids of ImageNet-1k, or as many folders as outputs."""
    outputs = network.output_classes or 0
    if settings.classes is not None:
        known = _named_outputs(settings.classes, outputs, names)
    elif all(_NUMBER.fullmatch(name) for name in names):  # they are the outputs' own, or nothing
        return _numbers(names, outputs)
    elif outputs == 1000 and all(name[0] == "n" and name[1:].isdigit() and len(name) == 9 for name in names):
        known = (Path(__file__).parent / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    else:
        known = names if len(names) == outputs else []
        notes += ["class names were matched to the outputs in alphabetical order (see --classes)"] if known else []
    return {name: known.index(name) for name in names} if set(names) <= set(known) else None


def _named_outputs(file: Path, outputs: int, names: list[str]) -> list[str]:
    """The outputs' names, one a line; an empty line before the last name is an output without one."""
    try:
        known = [line.strip() for line in read_text(file).rstrip().split("\n")]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the class names in {file}: {reason(error)}",
            remedy="give a text file in UTF-8 with --classes: the outputs' names in order, one a line",
        ) from None
    if len(known) != outputs:
        raise InputError(
            f"{file} names {len(known)} outputs, the network has {outputs}",
            remedy="one line for each output, in their order; for one that has no name an empty line",
        )
    if double := next((name for name in names if known.count(name) > 1), None):
        raise InputError(f"{file} names '{double}' {known.count(double)} times", remedy="give each output its own name")
    return known
