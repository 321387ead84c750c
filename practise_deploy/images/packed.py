"""Samples of networks that take no images: arrays by name from an .npz, or lines of text; packed as `network.graph.packing` says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from practise_backends.files import read_text, why_no_file
from practise_deploy.errors import InputError, reason
from practise_deploy.images.reading import Listing, Listings, labelled
from practise_deploy.network.graph.packing import LARGEST, pack
from practise_deploy.network.loading.hugging_face import load_encoder, tokens_of
from practise_deploy.network.loading.samples import Samples
from practise_deploy.run import read_arrays
from practise_deploy.settings import ImageSource
from practise_deploy.terms import InputSpec, Preprocessing

_NPZ = "write one with numpy.savez(path, NAME=array, ...), an array for every input, samples along the first axis"
_NO_LISTINGS: Listings = {}
_TEXT = "write one text a line, in UTF-8"


def samples_of(settings: ImageSource, listings: Listings = _NO_LISTINGS) -> Samples:
    """What --data holds for a network that takes no images; nothing where there is none."""
    path = settings.data
    if path is not None and path in listings:
        return _described(listings[path].arrays)
    if path is None or path.is_dir() or not path.exists():
        return Samples()
    if path.suffix != ".npz":
        with suppress(InputError):  # of images there is no text, and what is wrong with a text is told when it is read
            return Samples(lines=tuple(_lines(path)[0]))
        return Samples()
    return _described(_arrays(path))


def _described(arrays: Mapping[str, np.ndarray]) -> Samples:
    return Samples(
        shapes={name: array.shape[1:] for name, array in arrays.items() if array.ndim},
        dtypes={name: str(array.dtype) for name, array in arrays.items()},
    )


def list_packed(path: Path, preprocessing: Preprocessing) -> Listing:
    """The samples as rows of numbers.

    Raises: InputError for arrays that are missing, of other shapes or numbers than the inputs take, or for what is no text.
    """
    if problem := why_no_file(path):
        raise InputError(problem, remedy=_TEXT if preprocessing.tokenizer else _NPZ)
    if preprocessing.tokenizer and path.suffix != ".npz":
        lines, repeated = _lines(path)
        encoder = load_encoder(Path(preprocessing.tokenizer), tokenizer_only=True)
        arrays = dict(tokens_of(encoder, lines, preprocessing.inputs[0].shape[0]))
        long = sum(len(ids) > preprocessing.inputs[0].shape[0] for ids in encoder.tokenizer(lines)["input_ids"])
        notes: tuple[str, ...] = ()
        if long:
            notes += (f"{long} of {len(lines)} texts are cut to {preprocessing.inputs[0].shape[0]} tokens",)
        if repeated:
            notes += (f"{repeated} texts are there already, and left out",)
        return Listing(source=str(path), array=pack(arrays, preprocessing.inputs), notes=notes)
    return packed_arrays(str(path), _arrays(path), preprocessing)


def packed_arrays(place: str, arrays: Mapping[str, np.ndarray], preprocessing: Preprocessing) -> Listing:
    """Arrays by name as rows of numbers. place: where they are, for messages.

    Raises: InputError for arrays that are missing, of other shapes or numbers than the inputs take.
    """
    for spec in preprocessing.inputs:
        _check_array(place, arrays, spec)
    counts = {len(arrays[spec.name]) for spec in preprocessing.inputs}
    if len(counts) > 1:
        raise InputError(f"the arrays in {place} are of {' and '.join(map(str, sorted(counts)))} samples", remedy=_NPZ)
    labels = arrays.get("labels")
    usable = labels is not None and labels.ndim > 0 and labels.dtype.kind in "uifb" and {len(labels)} == counts
    unread = sorted(arrays.keys() - {spec.name for spec in preprocessing.inputs} - ({"labels"} if usable else set()))
    notes = (f"{place}: {', '.join(unread)}: no input of the network, and not read",) if unread else ()
    listing = Listing(source=place, array=pack(arrays, preprocessing.inputs), notes=notes)
    return labelled(listing, labels) if usable and labels is not None else listing


def _lines(path: Path) -> tuple[list[str], int]:
    """The texts of a file, without empty lines and repetitions, and how many repetitions there were."""
    try:
        written = [line for each in read_text(path).splitlines() if (line := each.strip())]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the texts in {path}: {reason(error)}", remedy=_TEXT) from None
    lines = list(dict.fromkeys(written))
    if not lines:
        raise InputError(f"{path} holds no text", remedy=_TEXT)
    return lines, len(written) - len(lines)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_arrays(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no usable .npz file: {reason(error)}", remedy=_NPZ) from None


def _check_array(place: str, arrays: Mapping[str, np.ndarray], spec: InputSpec) -> None:
    array = arrays.get(spec.name)
    if array is None:
        raise InputError(
            f"{place} has no array '{spec.name}', which the network takes; it has: {', '.join(arrays) or 'none'}",
            remedy=_NPZ,
        )
    wanted = f"{spec.dtype}[n, {', '.join(map(str, spec.shape))}]"
    if array.shape[1:] != spec.shape or array.dtype.kind not in ("fiub" if spec.dtype == "float32" else "iub"):
        raise InputError(
            f"the array '{spec.name}' in {place} is {array.dtype}{list(array.shape)}; the network takes {wanted}",
            remedy=_NPZ,
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"the array '{spec.name}' in {place} holds NaN or infinity", remedy="leave such samples out")
    if array.dtype.kind in "iu" and array.size and np.abs(array).max() > LARGEST:
        raise InputError(
            f"the array '{spec.name}' in {place} holds {np.abs(array).max()}; whole numbers up to {LARGEST:,} can be kept",
            remedy="give smaller numbers",
        )
