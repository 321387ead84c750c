"""Samples that are objects in Python, read once: arrays, tensors, pairs of them with labels, data sets, loaders, PIL images.

Dictionaries of arrays, whole or sample by sample, are for networks that take several inputs, or none of images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from practise_backends.interfaces import Progress
from practise_deploy.errors import InputError, first_line
from practise_deploy.images.reading import Listing, channels_first, labelled, list_arrays
from practise_deploy.settings import OF_PYTHON

MOST_READ = 1000
"""Images that are read of a data set or a loader, which may be endless."""
_READINGS = 4
_REMEDY = (
    "give uint8[n, height, width, channels] or uint8[n, channels, height, width], "
    "or float32[n, channels, height, width], normalised"
)
_LABELS_REMEDY = "give a whole number for each image, the number of the network's output (of networks that are no classifiers an array of what they should put out), or the images alone"
_ITEM_REMEDY = "give images or pairs of image and label: [(row['image'], row['label']) for row in rows], for example"

Sample = tuple[Any, Any]
"""An image and its label; None where it has none."""


def place_of(images: object, parameter: str) -> Path | None:
    """What the settings have for these images: their path, or a name that says which object they were."""
    if images is None:
        return None
    if isinstance(images, (str, os.PathLike)):
        return Path(images)
    return Path(f"{OF_PYTHON}{parameter}:{type(images).__name__}")


def list_object(images: Any, parameter: str, seed: int, progress: Progress) -> Listing:
    """Images that are no path. seed: of the draw where there are more than `MOST_READ`.

    Raises: InputError; what the user's own data set raises.
    """
    if _holds_arrays(images):
        return Listing(source=parameter, arrays={name: _array(value) for name, value in images.items()})
    if _is_array(images):
        return replace(_of_array(_array(images), None, parameter), source=parameter)
    if isinstance(images, tuple) and len(images) == 2 and (_is_array(images[0]) or isinstance(images[0], list)):
        return replace(_of_pair(*images, parameter), source=parameter)
    reader = _Reader(parameter, seed, progress)
    if _gives_mappings(images):
        return Listing(
            source=parameter, arrays=_joined(list(reader.mappings(images)), parameter), notes=tuple(reader.notes)
        )
    samples = list(reader.samples(images))
    if not samples:
        raise InputError(
            f"{parameter} holds no images", remedy="give 50 to 500 images; a generator that was read before is empty"
        )
    return replace(_of_samples(samples, parameter), source=parameter, notes=tuple(reader.notes))


def _is_array(value: object) -> bool:
    return isinstance(value, (np.ndarray, Tensor))


def _holds_arrays(value: object) -> bool:
    """Whether a value is a dictionary of arrays by name, numbers and lists of them among them."""
    if not isinstance(value, Mapping) or not value:
        return False
    return any(map(_is_array, value.values())) and all(map(_is_numeric, value.values()))


def _is_numeric(value: object) -> bool:
    return _is_array(value) or (
        isinstance(value, (int, float, list, np.number)) and np.asarray(value).dtype.kind in "biuf"
    )


def _gives_mappings(source: Any) -> bool:
    """Whether the items of a data set or a loader are dictionaries of arrays; an iterator is not asked, as that would take its first."""
    if not isinstance(source, DataLoader):
        return _is_map_style(source) and len(source) > 0 and _holds_arrays(source[0])
    if _is_map_style(source.dataset) and not (len(source.dataset) and isinstance(source.dataset[0], Mapping)):  # type: ignore[arg-type]
        return False
    return _holds_arrays(next(iter(source), None))


def _joined(parts: list[dict[str, np.ndarray]], parameter: str) -> dict[str, np.ndarray]:
    """Batches of samples by name as one. Shapes: [n, ...] each."""
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the samples of {parameter} cannot be put together: {first_line(error)}",
            remedy="give every sample the same names, and arrays of the same shapes: texts padded to one length",
        ) from None


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())
    return np.asarray(value)


def _of_array(images: np.ndarray, labels: np.ndarray | None, parameter: str) -> Listing:
    return list_arrays(images, labels, f"{parameter}: ", (_REMEDY, _LABELS_REMEDY))


def _of_pair(images: Any, labels: Any, parameter: str) -> Listing:
    """Images and their labels."""
    if _is_array(images):
        return _of_array(_array(images), _array(labels), parameter)
    if len(images) != len(labels):
        raise InputError(f"{parameter}: {len(images)} images but {len(labels)} labels", remedy=_LABELS_REMEDY)
    return _of_samples(list(zip(images, labels, strict=True)), parameter)


@dataclass(frozen=True)
class _Reader:
    """Reads samples from a data set, a loader or any other iterable, and notes what is said about it."""

    parameter: str
    seed: int
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def samples(self, source: Any) -> Iterator[Sample]:
        """At most `MOST_READ` of them."""
        inner: Any = source.dataset if isinstance(source, DataLoader) else source
        if _is_map_style(inner) and not isinstance(inner, (list, tuple)) and len(inner) and self._varies(inner):
            self.notes.append(
                f"{self.parameter}: {type(inner).__name__} gives its first image differently from reading to reading, as one with random "
                "augmentation does; every image was read once"
            )
        batched = isinstance(source, DataLoader) and source.batch_sampler is not None
        for number, sample in enumerate(self._all(source, batched)):
            if number == MOST_READ:
                self.notes.append(f"{self.parameter}: the first {MOST_READ:,} images are used, and there are more")
                return
            self.progress.advance(number, MOST_READ)
            yield sample

    def mappings(self, source: Any) -> Iterator[dict[str, np.ndarray]]:
        """Batches of at most `MOST_READ` samples in all, by name; a sample of a data set is a batch of one."""
        batched, count = isinstance(source, DataLoader) and source.batch_sampler is not None, 0
        for item in self._items(source):
            arrays = {name: _array(value) if batched else _array(value)[None] for name, value in item.items()}
            if count >= MOST_READ:
                self.notes.append(f"{self.parameter}: the first {count:,} samples are used, and there are more")
                return
            count += len(next(iter(arrays.values())))
            self.progress.advance(min(count, MOST_READ), MOST_READ)
            yield arrays

    def _varies(self, dataset: Any) -> bool:
        first, *others = (np.asarray(self._split(dataset[0])[0]) for _ in range(_READINGS))
        return not all(np.array_equal(first, other) for other in others)

    def _all(self, source: Any, batched: bool) -> Iterator[Sample]:
        for item in self._items(source):
            image, label = self._split(item)
            if _is_array(image) and (image.ndim == 4 or (batched and image.ndim == 3)):
                image = list(_array(image))
            if isinstance(image, (list, tuple)):
                labels = [None] * len(image) if label is None else list(label)
                if len(labels) != len(image):
                    raise InputError(
                        f"{self.parameter}: a batch of {len(image)} images has {len(labels)} labels",
                        remedy=_LABELS_REMEDY,
                    )
                yield from zip(image, labels, strict=True)
            else:
                yield image, label

    def _items(self, source: Any) -> Iterable[Any]:
        if _is_map_style(source):
            return (source[index] for index in self._indices(len(source)))
        if isinstance(source, (Mapping, bytes)) or not (hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
            raise InputError(
                f"{self.parameter} is {_kind(source)}, which gives no images",
                remedy="give a path, an array or a tensor, a pair of images and labels, a Dataset, a DataLoader or PIL images",
            )
        return iter(source)

    def _indices(self, count: int) -> Iterable[int]:
        """All of them, or a random draw: data sets come class by class."""
        if count <= MOST_READ:
            return range(count)
        self.notes.append(f"{self.parameter}: {MOST_READ:,} of {count:,} images are used, drawn at random")
        return sorted(map(int, np.random.default_rng(self.seed).permutation(count)[:MOST_READ]))

    def _split(self, item: Any) -> Sample:
        """An item's image (or images) and its label (or labels)."""
        if isinstance(item, (tuple, list)) and len(item) in (1, 2):
            image, label = (*item, None)[:2]
        else:
            image, label = item, None
        is_batch = isinstance(image, (tuple, list)) and bool(image) and isinstance(image[0], Image.Image)
        if not (is_batch or _is_array(image) or isinstance(image, Image.Image)):
            raise InputError(
                f"{self.parameter} gives {_kind(item)}, not an image or a pair of image and label", remedy=_ITEM_REMEDY
            )
        return image, label


def _is_map_style(source: object) -> bool:
    if isinstance(source, (DataLoader, IterableDataset, Mapping, str, bytes)):
        return False
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _kind(value: object) -> str:
    """What an object is, for messages."""
    size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"an object of type {type(value).__name__}{size}"


def _of_samples(samples: list[Sample], parameter: str) -> Listing:
    """Images that came one by one: arrays of one shape as an array, others as files are."""
    labels = _labels([label for _, label in samples], parameter)
    images = [image if isinstance(image, Image.Image) else _array(image) for image, _ in samples]
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    if len(arrays) == len(images) and len({array.shape for array in arrays}) == 1:
        return _of_array(np.stack(arrays), labels, parameter)
    listing = Listing(files=tuple(_picture(image, index, parameter) for index, image in enumerate(images)))
    return listing if labels is None else labelled(listing, labels)


def _labels(labels: list[Any], parameter: str) -> np.ndarray | None:
    """Numbers for all images, or for none. Shapes: [n, ...]."""
    if all(label is None for label in labels):
        return None
    numbers = [_label(label, index, parameter) for index, label in enumerate(labels)]
    if len({each.shape for each in numbers}) > 1:
        shapes = sorted({str(list(each.shape)) for each in numbers})
        raise InputError(f"{parameter}: the labels are of shapes {' and '.join(shapes)}", remedy=_LABELS_REMEDY)
    return np.stack(numbers)


def _label(label: Any, index: int, parameter: str) -> np.ndarray:
    """A number, or an array of several."""
    if isinstance(label, Image.Image) or _is_numeric(label):
        numbers = _array(label)
        if numbers.dtype.kind in "uifb":
            return numbers.reshape(()) if numbers.size == 1 else numbers
    raise InputError(
        f"{parameter}: the label of image {index} is {_kind(label)}, not a number or an array of numbers",
        remedy=_LABELS_REMEDY,
    )


def _picture(image: np.ndarray | Image.Image, index: int, parameter: str) -> Image.Image:
    """A raw image of any size; what is normalised must have the network's."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype == np.uint8 and image.ndim in (2, 3):
        raw = np.moveaxis(image, 0, -1) if image.ndim == 3 and channels_first(image.shape, image.dtype) else image
        if raw.ndim == 2 or raw.shape[-1] in (1, 3):
            return Image.fromarray(raw[..., 0] if raw.shape[-1] == 1 and raw.ndim == 3 else raw)
    raise InputError(
        f"{parameter}: image {index} is {image.dtype}{list(image.shape)}, and the images are of different shapes",
        remedy="give images of one shape, or raw ones (uint8 of 1 or 3 channels, PIL images), which are resized",
    )
