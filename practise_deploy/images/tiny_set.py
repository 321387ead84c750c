"""The tiny set. `FitImages` and `HeldOutImages` are different types: only verification takes the held-out ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from practise_deploy.embedded import digits
from practise_deploy.errors import InputError
from practise_deploy.images.labels import in_text_order, labels_of
from practise_deploy.images.packed import list_packed, packed_arrays, samples_of
from practise_deploy.images.reading import MODES, Listing, Listings, Reader, channels_first, list_images, read_npz
from practise_deploy.settings import EMBEDDED, ImageSource
from practise_deploy.terms import DatasetSummary, NetworkSummary, Preprocessing, Task

MIN_IMAGES = 8
_MAX_NORMALISED = 16.0
"""Images normalised by their own mean and deviation lie within a few units."""
FOLDS = 5
_NO_LISTINGS: Listings = {}


def _sha256(pixels: Tensor) -> hashlib._Hash:
    """The hash of the pixels' bytes, without a copy."""
    return hashlib.sha256(pixels.contiguous().numpy().data)


@dataclass(frozen=True, slots=True)
class Images:
    """Decoded once, kept as bytes.

    Shapes: pixels uint8[n, channels, height, width], or float32 of the same shape where they came normalised;
    labels int64[n] of classes, float64[n, numbers] of other true answers (`tasks.truth`), or None.
    """

    pixels: Tensor
    labels: Tensor | None
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: slice | Tensor) -> Tensor:
        """Network inputs: float32[k, channels, height, width], normalised."""
        return normalise(self.pixels[indices], self.preprocessing).contiguous(memory_format=torch.channels_last)

    def subset(self, indices: Tensor) -> Self:
        """The images at these indices. Shapes: indices [k]."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def subsample(self, most: int, seed: int) -> Self:
        """At most `most` images, drawn at random, in their original order."""
        if len(self) <= most:
            return self
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:most].sort().values)

    def digest(self) -> str:
        """sha256 of pixels and labels."""
        digest = _sha256(self.pixels)
        digest.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        return digest.hexdigest()


_MOST_TO_CHOOSE_BY = 400


@dataclass(frozen=True, slots=True)
class FitImages(Images):
    """Images to fit, score and finetune with; nothing is fitted to their labels, which only measure lost accuracy.

    cross_validate_below: fewer images are cross-validated, in `FOLDS` folds.
    """

    cross_validate_below: int = 200

    def digest(self) -> str:
        """sha256 of the pixels."""
        return _sha256(self.pixels).hexdigest()

    def to(self, device: torch.device) -> FitImages:
        """The same on a device, where they are normalised too."""
        return replace(self, pixels=self.pixels.to(device))

    @property
    def validation_size(self) -> int:
        """How many images suffice to estimate an error."""
        return 64 if self.pixels.shape[-1] > 64 else 100

    def split(self, seed: int) -> tuple[FitImages, FitImages]:
        """Four fifths to fit, one fifth to validate (at least 2 and at most 100 images, 64 large ones).

        The validation images are in random order, so that the first of them are a fair sample: files come class by class.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        validation_count = min(max(2, len(self) // 5), self.validation_size)
        return self.subset(order[validation_count:].sort().values), self.subset(order[:validation_count])

    def folds(self, seed: int) -> list[tuple[FitImages, FitImages]]:
        """(fit, validation) pairs: k-fold cross-validation of fewer than `cross_validate_below` images, else one split."""
        if len(self) >= self.cross_validate_below:
            return [self.split(seed)]
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        folds = [order[fold::FOLDS] for fold in range(FOLDS)]
        indices = torch.arange(len(self))
        return [(self.subset(indices[~torch.isin(indices, fold)]), self.subset(fold)) for fold in folds]

    def choice_split(self, seed: int) -> tuple[FitImages, FitImages]:
        """Two thirds to fit (at most `cross_validate_below`), and the rest (at most 400) to choose by, in random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        fit_count = min(len(self) - max(2, len(self) // 3), self.cross_validate_below)
        return self.subset(order[:fit_count].sort().values), self.subset(order[fit_count:][:_MOST_TO_CHOOSE_BY])

    def comparison_folds(self, seed: int) -> list[tuple[FitImages, FitImages]]:
        """(fit, validation) pairs whose fits take at most as many images as a fold of `cross_validate_below` does.

        All others validate, up to 200 (64 large ones), as the differences between sets of blocks are small; where too few
        are left, a subset is cross-validated.
        """
        fit_count = self.cross_validate_below * (FOLDS - 1) // FOLDS
        if len(self) < fit_count + self.validation_size:
            return self.subsample(self.cross_validate_below - 1, seed).folds(seed)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        validation_limit = self.validation_size if self.pixels.shape[-1] > 64 else 2 * self.validation_size
        return [(self.subset(order[-fit_count:].sort().values), self.subset(order[:-fit_count][:validation_limit]))]


@dataclass(frozen=True, slots=True)
class HeldOutImages(Images):
    """Images that nothing but verification sees."""


@dataclass(frozen=True, slots=True)
class TinySet:
    """All images of a build, and a summary of reading them.

    text_orders: for --data, and for --eval where given, with folders named by numbers: label -> label in text order
    (`labels.in_text_order`).
    """

    fit: FitImages
    held_out: HeldOutImages
    summary: DatasetSummary
    text_orders: tuple[Mapping[int, int], ...] = ({},)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bytes to normalised float32, in the network's order of channels; float32 pixels are taken as the network's input already.

    Shapes: [n, channels, height, width]. mean and std are in the network's order of channels.
    """
    if pixels.dtype != torch.uint8:
        return pixels
    if preprocessing.channel_order == "bgr":
        pixels = pixels.flip(1)
    mean, std = (
        torch.tensor(channels, device=pixels.device).view(1, -1, 1, 1)
        for channels in (preprocessing.mean, preprocessing.std)
    )
    return (pixels.float() / 255 - mean) / std


def image_size_of(settings: ImageSource, listings: Listings = _NO_LISTINGS) -> tuple[int, int] | None:
    """(height, width) of the images in an array; None for files, which are resized."""
    if settings.data is None or (settings.data.suffix != ".npz" and settings.data not in listings):
        return None
    if settings.data not in listings and "images" not in samples_of(settings).shapes:
        return None  # arrays of other inputs, or an error that is told later
    array = _listed(settings.data, listings).array
    if array is None:
        return None
    image_shape = array.shape[1:]
    return image_shape[1:3] if len(image_shape) == 3 and channels_first(image_shape, array.dtype) else image_shape[:2]


def _listed(place: Path, listings: Listings, preprocessing: Preprocessing | None = None) -> Listing:
    inputs = () if preprocessing is None else preprocessing.inputs
    if place not in listings:
        return list_packed(place, preprocessing) if preprocessing is not None and inputs else list_images(place)
    listing = listings[place]
    if preprocessing is None:
        return listing
    if bool(inputs) != bool(listing.arrays):
        raise _of_other_kind(listing, preprocessing)
    return packed_arrays(listing.source, listing.arrays, preprocessing) if inputs else listing


def _of_other_kind(listing: Listing, preprocessing: Preprocessing) -> InputError:
    """The error for images where a network takes none, and for arrays by name where it takes images."""
    if listing.arrays:
        return InputError(
            f"{listing.source} holds arrays by name ({', '.join(listing.arrays)}), and the network takes images",
            remedy="give the images alone, or a module whose forward has parameters of these names",
        )
    names = ", ".join(spec.name for spec in preprocessing.inputs)
    return InputError(
        f"{listing.source} holds images, and the network takes {names}",
        remedy="give a dictionary with an array for each of them, samples along the first axis",
    )


def load_images(settings: ImageSource, network: NetworkSummary, listings: Listings = _NO_LISTINGS) -> TinySet:
    """The tiny set and the held-out images that the settings name.

    Raises: InputError for missing, broken or too few images.
    """
    if settings.data is None:
        if network.name != EMBEDDED:
            raise InputError(
                f"{network.name} is given no images: the tiny set is missing (--data)",
                remedy="give a folder, a list file or an .npz with --data",
            )
        return _embedded(settings, network.preprocessing, network.task)
    listing = _listed(settings.data, listings, network.preprocessing)
    notes = list(listing.notes)
    labels = labels_of(listing, settings, network, notes)
    sample = network.task.sample
    fit_indices, held_out_indices = _random_split(len(listing), settings, sample)
    skipped: list[str] = []
    read = Reader(network.preprocessing, settings.skip_bad_images, skipped)
    fit_images = FitImages(*read(listing, labels, fit_indices), network.preprocessing)
    test, test_labels, test_indices = listing, labels, held_out_indices
    if settings.eval:
        test = _listed(settings.eval, listings, network.preprocessing)
        notes += test.notes
        test_labels, test_indices = labels_of(test, settings, network, notes, required=True), list(range(len(test)))
    held_out = HeldOutImages(*read(test, test_labels, test_indices), network.preprocessing)
    if len(listing) - len(held_out_indices) > len(fit_indices):
        notes.append(
            f"{len(fit_indices)} of {len(listing) - len(held_out_indices)} {sample}s are used to fit (--fit-images)"
        )
    notes += [note for images in (fit_images, held_out) if (note := _raw_pixels_note(images))]
    notes += _dtype_notes(fit_images, held_out)
    fit_images = _without_duplicates(fit_images, held_out, notes)
    tiny_set = _tiny_set(fit_images, held_out, str(settings.data), tuple(skipped), tuple(dict.fromkeys(notes)))
    sources = (listing, test) if settings.eval else (listing,)
    return replace(tiny_set, text_orders=tuple(in_text_order(source, settings, network) for source in sources))


def _random_split(count: int, settings: ImageSource, sample: str) -> tuple[list[int], list[int]]:
    """Indices of the images to fit and of those held out for verification, drawn at random.

    Raises: InputError.
    """
    shuffled = np.random.default_rng(settings.seed).permutation(count)
    held_out = [] if settings.eval else list(shuffled[: max(4, round(count * settings.held_out_percent / 100))])
    fit = list(shuffled[len(held_out) :])[: settings.fit_images]
    if len(fit) < MIN_IMAGES:
        raise InputError(
            f"{settings.data} gives {len(fit)} {sample}s to fit ({len(held_out)} more are held out for verification); "
            f"at least {MIN_IMAGES} are needed to tell a good recovery from a memorised one",
            remedy=f"add {sample}s; 50 to 500 are a good number",
        )
    return sorted(fit), sorted(held_out)


def _dtype_notes(fit: FitImages, held_out: HeldOutImages) -> list[str]:
    """A note where the images to fit and the held-out ones are of different types."""
    if fit.pixels.dtype == held_out.pixels.dtype:
        return []
    kinds = {True: "floats, taken as normalised", False: "bytes, which are normalised here"}
    fit_kind, held_out_kind = (kinds[images.pixels.is_floating_point()] for images in (fit, held_out))
    return [f"the images to fit are {fit_kind}; those held out are {held_out_kind}"]


def _raw_pixels_note(images: Images) -> str:
    """A note where float images look raw; else empty."""
    if not images.pixels.is_floating_point() or not len(images) or images.preprocessing.inputs:
        return ""
    low, high = float(images.pixels.min()), float(images.pixels.max())
    if low < 0 or 1 < high <= _MAX_NORMALISED:
        return ""
    span = "0 to 1" if high <= 1 else f"{low:g} to {high:g}"
    return f"the images are numbers from {span} and taken as normalised, as all floats are; give raw ones as uint8"


def _without_duplicates(fit: FitImages, held_out: HeldOutImages, notes: list[str]) -> FitImages:
    """The images to fit without exact copies of held-out ones; appends a note."""
    held_out_digests = {_sha256(image).digest() for image in held_out.pixels}
    kept = [index for index, image in enumerate(fit.pixels) if _sha256(image).digest() not in held_out_digests]
    if len(kept) == len(fit):
        return fit
    notes.append(
        f"{len(fit) - len(kept)} images are the same, pixel by pixel, as some that are held out for verification, "
        "and are not used to fit"
    )
    return fit.subset(torch.tensor(kept, dtype=torch.int64))


def _tiny_set(
    fit: FitImages, held_out: HeldOutImages, source: str, skipped: tuple[str, ...], notes: tuple[str, ...]
) -> TinySet:
    if len(fit) < MIN_IMAGES or not len(held_out):
        reasons = [*(f"{len(skipped)} images could not be read" for _ in skipped[:1]), *notes]
        raise InputError(
            f"{source}: {len(fit)} images to fit and {len(held_out)} held out are left; at least {MIN_IMAGES} to fit are "
            f"needed{': ' + '; '.join(reasons) if reasons else ''}",
            remedy="give more images, or others: frames of a video are often the same, pixel by pixel",
        )
    summary = DatasetSummary(
        fit=len(fit),
        held_out=len(held_out),
        labelled=held_out.labels is not None,
        source=source,
        skipped=skipped,
        notes=notes,
    )
    return TinySet(fit, held_out, summary)


def _embedded(settings: ImageSource, preprocessing: Preprocessing, task: Task) -> TinySet:
    unused = [f"--{name}" for name in ("eval", "classes") if getattr(settings, name) is not None]
    if unused:
        raise InputError(
            f"{' and '.join(unused)} without --data: the embedded images bring their own labelled held-out ones",
            remedy=f"give --data too, or leave {' and '.join(unused)} out",
        )
    arrays = read_npz(digits.IMAGES, images="fit_images")
    if arrays["fit_images"].shape[1:] != preprocessing.size:
        height, width = arrays["fit_images"].shape[1:]
        raise InputError(
            f"the embedded images are {height}x{width}, the input is {preprocessing.size[0]}x{preprocessing.size[1]}",
            remedy="leave --input-size out, or give images with --data",
        )
    pixels = torch.from_numpy(arrays["fit_images"])[:, None][: settings.fit_images]
    labels = [
        torch.from_numpy(arrays[name]).long() if task.has_accuracy else None
        for name in ("fit_labels", "held_out_labels")
    ]
    fit = FitImages(pixels, None if labels[0] is None else labels[0][: len(pixels)], preprocessing)
    held_out = HeldOutImages(torch.from_numpy(arrays["held_out_images"])[:, None], labels[1], preprocessing)
    return _tiny_set(fit, held_out, "embedded digits", (), ())


def augmenter(preprocessing: Preprocessing) -> v2.Transform:
    """Label-free augmentation: random crops (as in the paper; small inputs are padded and shifted) and flips."""
    height, width = preprocessing.size
    if preprocessing.augment == "none":
        return v2.Identity()
    mode = MODES[preprocessing.interpolation]
    crop: v2.Transform = v2.RandomResizedCrop((height, width), scale=(0.08, 1.0), interpolation=mode, antialias=True)
    if height <= 64:
        crop = v2.RandomCrop((height, width), padding=max(1, height // 8))
    return v2.Compose([crop, v2.RandomHorizontalFlip()]) if preprocessing.augment == "crop-flip" else crop
