"""Finding and decoding images: folders, list files, .npz; any format that Pillow reads, upright, without alpha."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from practise_backends.errors import about, lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, reason
from practise_deploy.run import read_arrays
from practise_deploy.settings import OF_PYTHON
from practise_deploy.terms import Preprocessing

_SUFFIXES = set(Image.registered_extensions())
_MAX_SUFFIXES = 5
_MAX_QUOTED = 200
_LIST_REMEDY = "write one image a line, in UTF-8; lines that begin with # are passed over"
_NPZ_REMEDY = "write one with numpy.savez(path, images=..., labels=...); labels may be left out"
_LABELS_REMEDY = "write as many labels as images, numbers or arrays of them, or leave them out"
MODES = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "nearest": v2.InterpolationMode.NEAREST,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """Images before decoding: files or an array, with class names or numbers where there are any.

    files: or images that are open already. arrays: of a network that takes no images, by its inputs, not packed yet. source: the path that they are listed from. by_folder: the classes are names of folders. targets: labels that are no classes, [n, ...]. notes: what was left out, and why.
    """

    source: str = ""
    files: tuple[Path | Image.Image, ...] = ()
    array: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[str | int, ...] | None = None
    by_folder: bool = False
    targets: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files) if self.array is None else len(self.array)

    def place_of(self, index: int) -> str:
        """Where an image is, for messages."""
        file = self.files[index] if self.array is None else None
        return str(file) if isinstance(file, Path) else f"{self.source}: image {index}"


Listings = Mapping[Path, Listing]
"""Images that were listed before, by the place that settings have for them."""


def list_images(path: Path) -> Listing:
    if path.is_dir():
        return replace(_list_folder(path), source=str(path))
    if str(path).startswith(OF_PYTHON):
        raise InputError(
            f"{path} was an object in Python, which no command line can read",
            remedy="call practise_deploy from Python again, or give a folder of images, a list file or an .npz with --data",
        )
    if problem := why_no_file(path, "folder or file"):
        raise InputError(problem, remedy="give a folder of images, a list file or an .npz")
    return replace(_list_npz(path) if path.suffix == ".npz" else _list_file(path), source=str(path))


def _list_folder(folder: Path) -> Listing:
    images, subfolders = _images_in(folder), [path for path in _visible(folder) if path.is_dir()]
    labelled = [(file, subfolder.name) for subfolder in subfolders for file in _images_in(subfolder)]
    if images and labelled:
        raise InputError(
            f"{folder} holds images ({images[0].name}) beside folders of images ({labelled[0][1]})",
            remedy="use a flat folder, or one folder per class and nothing beside them",
        )
    notes = _omission_notes(folder, [folder] if images else [folder, *subfolders])
    if images:
        return Listing(files=tuple(images), notes=notes)
    if not labelled:
        raise InputError(
            f"{folder} holds no images, nor do the folders in it{': ' + '; '.join(notes) if notes else ''}",
            remedy="known endings: .jpg, .png, .webp, .bmp, .tiff and what else Pillow reads",
        )
    classes = tuple(name for _, name in labelled)
    return Listing(files=tuple(file for file, _ in labelled), classes=classes, by_folder=True, notes=notes)


def _visible(folder: Path) -> list[Path]:
    """A folder's entries, without those whose names begin with a dot."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if _is_image(path)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _omission_notes(folder: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    """Notes on a folder's files that are not read, with the reason. folders: those whose images are read."""
    rest = [path for parent in folders for path in _visible(parent) if not _is_image(path) and path not in folders]
    broken_links = [path for path in rest if not path.exists()]
    files = [path for path in rest if path.is_file()]
    nested_images = [path for parent in rest if parent.is_dir() for path in parent.rglob("*") if _is_image(path)]
    suffixes = Counter(path.suffix.lower() or "no ending" for path in files)
    kinds = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common(_MAX_SUFFIXES))
    reasons = (
        (len(broken_links), "{} lead nowhere", "links"),
        (len(files), f"{{}} are of kinds that are not read: {kinds}", "files"),
        (len(nested_images), "{} lie in deeper folders", "images"),
    )
    return tuple(
        f"{folder}: {message.format(f'{count} {noun}')}, and are left out" for count, message, noun in reasons if count
    )


def _list_file(path: Path) -> Listing:
    """One image a line, relative to the list; after a tab (or the last space) a label, on every line or on none."""
    try:
        lines = [
            line.strip()
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip() and line[0] != "#"
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the list file {path}: {reason(error)}",
            remedy=f"{_LIST_REMEDY}; images go into a folder, arrays into an .npz",
        ) from None
    rows = [
        line.split("\t") if "\t" in line else [line] if os.path.isfile(path.parent / line) else line.rsplit(" ", 1)
        for line in lines
    ]
    labelled = bool(rows) and len(rows[0]) == 2
    seen: set[Path] = set()
    for number, row in enumerate(rows, 1):
        file = path.parent / row[0]
        if not os.path.isfile(file):  # which takes any text for a name
            raise InputError(
                f"{path}, line {number}: no such image: {row[0][:_MAX_QUOTED]}", remedy=_line_remedy(row[0])
            )
        if len(row) != len(rows[0]) or len(row) > 2:
            raise InputError(f"{path}, line {number}: a label on every line or on none", remedy="IMAGE, a tab, LABEL")
        if file in seen:
            raise InputError(
                f"{path}, line {number}: {row[0]} is listed twice",
                remedy="it could be fitted and held out at once",
            )
        seen.add(file)
    if not rows:
        raise InputError(f"{path} lists no images", remedy=_LIST_REMEDY)
    return Listing(
        files=tuple(path.parent / row[0] for row in rows),
        classes=tuple(row[1].strip() for row in rows) if labelled else None,
    )


def _line_remedy(text: str) -> str:
    """The remedy for a line that names no image."""
    if "," in text:
        return "write a tab between image and label, not a comma, and no line of headings"
    if "\\" in text:
        return "write paths with / between folders"
    return "paths are relative to the list; after a tab, or the last space, comes the label"


def read_npz(path: Path, images: str = "images") -> dict[str, np.ndarray]:
    try:
        arrays = read_arrays(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}", remedy=_NPZ_REMEDY) from None
    except ValueError as error:
        cause = "it holds pickled objects, or is no archive at all" if "pickle" in str(error) else str(error)
        raise InputError(f"{path} is no usable .npz file: {cause}", remedy=_NPZ_REMEDY) from None
    if images not in arrays:
        raise InputError(f"{path} has no array '{images}'; it has: {', '.join(arrays) or 'none'}", remedy=_NPZ_REMEDY)
    return arrays


def _list_npz(path: Path) -> Listing:
    arrays = read_npz(path)
    return list_arrays(arrays["images"], arrays.get("labels"), f"{path}: ", (_NPZ_REMEDY, _LABELS_REMEDY))


def list_arrays(images: np.ndarray, labels: np.ndarray | None, place: str, remedies: tuple[str, str]) -> Listing:
    """Images in an array, with their labels. place: begins messages. remedies: for images, and for labels.

    Raises: InputError.
    """
    if images.ndim not in (3, 4) or not len(images) or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise InputError(
            f"{place}'images' is {images.dtype}{list(images.shape)}; expected uint8[n, height, width, channels] "
            "or float32[n, channels, height, width]",
            remedy=remedies[0],
        )
    if labels is None:
        return Listing(array=images)
    if not labels.ndim or labels.dtype.kind not in "uifb":
        raise InputError(
            f"{place}'labels' is {labels.dtype}{list(labels.shape)}; expected numbers for each image",
            remedy=remedies[1],
        )
    if len(labels) != len(images):
        raise InputError(f"{place}{len(images)} images but {len(labels)} labels", remedy=remedies[1])
    return labelled(Listing(array=images), labels)


def labelled(listing: Listing, labels: np.ndarray) -> Listing:
    """With one whole number for each image as its class, or with other labels as targets. Shapes: labels [n, ...]."""
    if labels.ndim == 1 and labels.dtype.kind in "ui":
        return replace(listing, classes=tuple(int(label) for label in labels))
    return replace(listing, targets=labels)


class Reader:
    """Reads listed images into one tensor; broken ones are an error, or are skipped and appended to `skipped`."""

    def __init__(self, preprocessing: Preprocessing, skip_bad: bool, skipped: list[str]) -> None:
        self.preprocessing = preprocessing
        self.skip_bad = skip_bad
        self.skipped = skipped
        self.mode = MODES[preprocessing.interpolation]
        self.crop = v2.CenterCrop(preprocessing.size)

    def __call__(
        self, listing: Listing, labels: np.ndarray | None, indices: Sequence[int] | range
    ) -> tuple[Tensor, Tensor | None]:
        """Shapes: labels [listed, ...] or None -> (pixels [n, channels, height, width], labels [n, ...] or None)."""
        shape = (len(indices), self.preprocessing.channels, *self.preprocessing.size)
        is_float = listing.array is not None and listing.array.dtype.kind == "f"
        pixels = torch.empty(shape, dtype=torch.float32 if is_float else torch.uint8)
        read: list[int] = []
        for index in indices:
            image = (
                self._read_file(listing.files[index], listing.place_of(index))
                if listing.array is None
                else self._read_array(listing.array, index, listing.source)
            )
            if image is not None:
                pixels[len(read)] = image
                read.append(index)
        targets = None if labels is None else torch.from_numpy(labels[read])
        return pixels if len(read) == len(indices) else pixels[: len(read)].clone(), targets

    def _read_file(self, file: Path | Image.Image, place: str) -> Tensor | None:
        if self.preprocessing.channels not in (1, 3):
            raise InputError(
                f"{place}: the network takes {self.preprocessing.channels} channels, which image files do not have",
                remedy="give an .npz with images float32[n, channels, height, width], normalised",
            )
        try:
            with Image.open(file) if isinstance(file, Path) else nullcontext(file) as opened:
                image = _eight_bits(ImageOps.exif_transpose(opened), opened.format)
                if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
                image = image.convert("L" if self.preprocessing.channels == 1 else "RGB")
                return self._resize_and_crop(v2.functional.pil_to_tensor(image))
        except Exception as error:  # decoders raise whatever they like
            if lacks_memory(error):
                raise
            problem = f"{place}: {error}"
        if not self.skip_bad:
            raise InputError(f"broken image {problem}", remedy="remove it, or give --skip-bad-images")
        self.skipped.append(problem)
        return None

    def _read_array(self, images: np.ndarray, index: int, source: str) -> Tensor:
        with about(source), about(f"image {index}"):
            return self._decode_array(images[index])

    def _decode_array(self, array: np.ndarray) -> Tensor:
        channels, (height, width) = self.preprocessing.channels, self.preprocessing.size
        image = array[:, :, None] if array.ndim == 2 else array
        if array.ndim == 2 or not channels_first(image.shape, image.dtype):
            image = np.moveaxis(image, -1, 0)
        if image.shape[0] != channels:
            image = np.repeat(image, channels, 0) if image.shape[0] == 1 else image
        if image.shape[0] != channels:
            raise InputError(
                f"it has {image.shape[0]} channels, the network takes {channels}",
                remedy=f"give images of {channels} channels, or --mean and --std {image.shape[0]} numbers each where the network takes as many",
            )
        if image.dtype.kind == "f":
            if image.shape[1:] != self.preprocessing.size:
                raise InputError(
                    f"normalised images are taken as they are: it is {image.shape[1]}x{image.shape[2]}, the network takes {height}x{width}",
                    remedy="give images of that size, or raw ones as uint8, which are resized",
                )
            if not np.isfinite(image).all():
                raise InputError(
                    f"it holds {np.size(image) - np.isfinite(image).sum()} values that are NaN or infinity",
                    remedy="leave such images out: images[numpy.isfinite(images).all(axis=(1, 2, 3))]",
                )
            return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        return self._resize_and_crop(torch.from_numpy(np.ascontiguousarray(image.astype(np.uint8))))

    def _resize_and_crop(self, image: Tensor) -> Tensor:
        """Resize to cover the enlarged input (`Preprocessing`), then crop the centre; an image of the input's size is returned as it is.

        Shapes: [channels, any height, any width] -> [channels, height, width].
        """
        if tuple(image.shape[-2:]) == self.preprocessing.size:
            return image
        sides = _covering_size(tuple(image.shape[-2:]), self.preprocessing)
        return self.crop(v2.functional.resize(image, sides, interpolation=self.mode, antialias=True))


def _covering_size(sides: tuple[int, ...], preprocessing: Preprocessing) -> list[int]:
    """(height, width) of an image with these sides after resizing: the longer side is rounded down, as torchvision does."""
    box = preprocessing.enlarged
    if preprocessing.squash:
        return list(box)
    filled = max(range(2), key=lambda axis: box[axis] / sides[axis])  # the axis that is filled exactly
    scaled = [int(box[filled] * side / sides[filled]) for side in sides]
    return [max(length, least) for length, least in zip(scaled, box, strict=True)]


def channels_first(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether an array's image is [channels, height, width]: by its shape, else floats are and bytes are not."""
    first, last = shape[0] in (1, 3), shape[-1] in (1, 3)
    return first if first != last else dtype.kind == "f"


def _eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """16-bit grey images scaled to bytes; PIL's own conversion would clip them at 255.

    Raises: ValueError for other depths, whose white level is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8))
    if image.mode[0] in "IF":
        raise ValueError(f"its levels are {image.mode} (32 bits), whose white is unknown: save it with 8 or 16 bits")
    return image
