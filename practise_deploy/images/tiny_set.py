"""The tiny set. `FitImages` and `HeldOutImages` are different types: only verification takes the held-out ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from practise_deploy.embedded import digits
from practise_deploy.errors import InputError
from practise_deploy.images.labels import in_text_order, labels_of
from practise_deploy.images.reading import MODES, Reader, channels_first, list_images, read_npz
from practise_deploy.settings import EMBEDDED, Settings
from practise_deploy.terms import DataFacts, NetworkFacts, Preprocessing

LEAST = 8
_MOST_NORMALISED = 16.0
"""Images normalised by their own mean and deviation lie within a few units."""
FEW, FOLDS = 200, 5
"""Fewer images are judged in turns, and in how many."""


def _sha256(pixels: Tensor) -> hashlib._Hash:
    """Of their bytes, without a copy of them."""
    return hashlib.sha256(pixels.contiguous().numpy().data)


@dataclass(frozen=True, slots=True)
class Images:
    """Decoded once, kept as bytes.

    Shapes: pixels uint8[n, channels, height, width], or float32 of the same shape where they came normalised;
    labels int64[n] or None.
    """

    pixels: Tensor
    labels: Tensor | None
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, which: slice | Tensor) -> Tensor:
        """Network inputs: float32[k, channels, height, width], normalised."""
        return normalise(self.pixels[which], self.preprocessing).contiguous(memory_format=torch.channels_last)

    def part(self, which: Tensor) -> Self:
        """Those at these places."""
        labels = None if self.labels is None else self.labels[which]
        return replace(self, pixels=self.pixels[which], labels=labels)

    def some(self, most: int, seed: int) -> Self:
        """At most so many, drawn at random, in their order."""
        if len(self) <= most:
            return self
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.part(order[:most].sort().values)

    def digest(self) -> str:
        """sha256 of pixels and labels."""
        total = _sha256(self.pixels)
        total.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class FitImages(Images):
    """Images to fit, score and finetune with; nothing learns from their labels, which only tell what a set lost."""

    def digest(self) -> str:
        """sha256 of the pixels."""
        return _sha256(self.pixels).hexdigest()

    def labels_digest(self) -> str:
        """sha256 of the labels; empty where there are none."""
        return "" if self.labels is None else hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def to(self, device: torch.device) -> FitImages:
        """The same, where they are to be normalised and computed with."""
        return FitImages(self.pixels.to(device), self.labels, self.preprocessing)

    @property
    def enough(self) -> int:
        """How many images tell an error well enough."""
        return 64 if self.pixels.shape[-1] > 64 else 100

    def split(self, seed: int) -> tuple[FitImages, FitImages]:
        """Four fifths to learn from, one fifth to judge with (at least 2 and at most 100 images, 64 large ones).

        Those that judge are in random order, so that the first of them are a fair sample: files come class by class.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        judges = min(max(2, len(self) // 5), self.enough)
        return self.part(order[judges:].sort().values), self.part(order[:judges])

    def folds(self, seed: int) -> list[tuple[FitImages, FitImages]]:
        """(learn, judge) pairs: of fewer than FEW images all are judged, in turns; else one split is enough."""
        if len(self) >= FEW:
            return [self.split(seed)]
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        turns = [order[turn::FOLDS] for turn in range(FOLDS)]
        every = torch.arange(len(self))
        return [(self.part(every[~torch.isin(every, turn)]), self.part(turn)) for turn in turns]

    def comparing_folds(self, seed: int) -> list[tuple[FitImages, FitImages]]:
        """(learn, judge) pairs that learn from as many images at most as the turns of FEW do.

        All others judge, up to 200 (64 large ones), for sets of blocks differ by less than a few judges can tell; where too
        few others are left, fewer than FEW are judged in turns.
        """
        learned = FEW * (FOLDS - 1) // FOLDS
        if len(self) < learned + self.enough:
            return self.some(FEW - 1, seed).folds(seed)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        most = self.enough if self.pixels.shape[-1] > 64 else 2 * self.enough
        return [(self.part(order[-learned:].sort().values), self.part(order[:-learned][:most]))]


@dataclass(frozen=True, slots=True)
class HeldOutImages(Images):
    """Images that nothing but verification sees."""


@dataclass(frozen=True, slots=True)
class TinySet:
    """All images of a build, and what was found while reading them.

    text_orders: of --data, and of --eval where it is given: where folders are named by numbers, label -> label in the order of
    text (`labels.in_text_order`).
    """

    fit: FitImages
    held_out: HeldOutImages
    facts: DataFacts
    text_orders: tuple[Mapping[int, int], ...] = ({},)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bytes to normalised float32; float32 pixels are taken as normalised already."""
    if pixels.dtype != torch.uint8:
        return pixels
    mean, std = (
        torch.tensor(each, device=pixels.device).view(1, -1, 1, 1) for each in (preprocessing.mean, preprocessing.std)
    )
    return (pixels.float() / 255 - mean) / std


def image_size_of(settings: Settings) -> tuple[int, int] | None:
    """(height, width) of the images in an .npz; None for files, which are resized."""
    if settings.data is None or settings.data.suffix != ".npz":
        return None
    array = list_images(settings.data).array
    assert array is not None
    of_one = array.shape[1:]
    return of_one[1:3] if len(of_one) == 3 and channels_first(of_one, array.dtype) else of_one[:2]


def load_images(settings: Settings, network: NetworkFacts) -> TinySet:
    """The tiny set and the held-out images that the settings name.

    Raises: InputError for missing, broken or too few images.
    """
    if settings.data is None:
        if settings.network != EMBEDDED:
            raise InputError(
                f"{settings.network} is given no images: the tiny set is missing (--data)",
                remedy="give a folder, a list file or an .npz with --data",
            )
        return _embedded(settings, network.preprocessing)
    listing = list_images(settings.data)
    notes = list(listing.notes)
    labels = labels_of(listing, settings, network, notes)
    fit, held = _drawn(len(listing), settings)
    skipped: list[str] = []
    read = Reader(network.preprocessing, settings.skip_bad_images, skipped)
    fit_images = FitImages(*read(listing, labels, fit), network.preprocessing)
    test, truth, which = listing, labels, held
    if settings.eval:
        test = list_images(settings.eval)
        notes += test.notes
        truth, which = labels_of(test, settings, network, notes, required=True), list(range(len(test)))
    held_out = HeldOutImages(*read(test, truth, which), network.preprocessing)
    if len(listing) - len(held) > len(fit):
        notes.append(f"{len(fit)} of {len(listing) - len(held)} images are used to fit (--fit-images)")
    notes += [note for images in (fit_images, held_out) if (note := _doubt(images))]
    notes += _unlike(fit_images, held_out)
    fit_images = _apart(fit_images, held_out, notes)
    found = _tiny_set(fit_images, held_out, str(settings.data), tuple(skipped), tuple(dict.fromkeys(notes)))
    sources = (listing, test) if settings.eval else (listing,)
    return replace(found, text_orders=tuple(in_text_order(source, settings, network) for source in sources))


def _drawn(count: int, settings: Settings) -> tuple[list[int], list[int]]:
    """Which of the images fit, and which are held out for verification, drawn at random.

    Raises: InputError.
    """
    mixed = np.random.default_rng(settings.seed).permutation(count)
    held = [] if settings.eval else list(mixed[: max(4, round(count * settings.held_out_percent / 100))])
    fit = list(mixed[len(held) :])[: settings.fit_images]
    if len(fit) < LEAST:
        raise InputError(
            f"{settings.data} gives {len(fit)} images to fit ({len(held)} more are held out for verification); "
            f"at least {LEAST} are needed to tell a good recovery from a memorised one",
            remedy="add images; 50 to 500 are a good number",
        )
    return sorted(fit), sorted(held)


def _unlike(fit: FitImages, held_out: HeldOutImages) -> list[str]:
    """What is said of images to fit and held-out ones of different kinds."""
    if fit.pixels.dtype == held_out.pixels.dtype:
        return []
    kinds = {True: "floats, taken as normalised", False: "bytes, which are normalised here"}
    of_fit, of_test = (kinds[images.pixels.is_floating_point()] for images in (fit, held_out))
    return [f"the images to fit are {of_fit}; those held out are {of_test}"]


def _doubt(images: Images) -> str:
    """What floats that look raw are said to be."""
    if not images.pixels.is_floating_point() or not len(images):
        return ""
    low, high = float(images.pixels.min()), float(images.pixels.max())
    if low < 0 or 1 < high <= _MOST_NORMALISED:
        return ""
    span = "0 to 1" if high <= 1 else f"{low:g} to {high:g}"
    return f"the images are numbers from {span} and taken as normalised, as all floats are; give raw ones as uint8"


def _apart(fit: FitImages, held_out: HeldOutImages, notes: list[str]) -> FitImages:
    """The images to fit without those that are held out too, pixel by pixel."""
    known = {_sha256(image).digest() for image in held_out.pixels}
    fresh = [place for place, image in enumerate(fit.pixels) if _sha256(image).digest() not in known]
    if len(fresh) == len(fit):
        return fit
    notes.append(
        f"{len(fit) - len(fresh)} images are the same, pixel by pixel, as some that are held out for verification, "
        "and are not used to fit"
    )
    return fit.part(torch.tensor(fresh, dtype=torch.int64))


def _tiny_set(
    fit: FitImages, held_out: HeldOutImages, source: str, skipped: tuple[str, ...], notes: tuple[str, ...]
) -> TinySet:
    if len(fit) < LEAST or not len(held_out):
        why = [*(f"{len(skipped)} images could not be read" for _ in skipped[:1]), *notes]
        raise InputError(
            f"{source}: {len(fit)} images to fit and {len(held_out)} held out are left; at least {LEAST} to fit are "
            f"needed{': ' + '; '.join(why) if why else ''}",
            remedy="give more images, or others: frames of a video are often the same, pixel by pixel",
        )
    facts = DataFacts(
        fit=len(fit),
        held_out=len(held_out),
        labelled=held_out.labels is not None,
        source=source,
        skipped=skipped,
        notes=notes,
    )
    return TinySet(fit, held_out, facts)


def _embedded(settings: Settings, preprocessing: Preprocessing) -> TinySet:
    useless = [f"--{name}" for name in ("eval", "classes") if getattr(settings, name) is not None]
    if useless:
        raise InputError(
            f"{' and '.join(useless)} without --data: the embedded images bring their own labelled held-out ones",
            remedy=f"give --data too, or leave {' and '.join(useless)} out",
        )
    arrays = read_npz(digits.IMAGES, images="fit_images")
    if arrays["fit_images"].shape[1:] != preprocessing.size:
        height, width = arrays["fit_images"].shape[1:]
        raise InputError(
            f"the embedded images are {height}x{width}, the input is {preprocessing.size[0]}x{preprocessing.size[1]}",
            remedy="leave --input-size out, or give images with --data",
        )
    pixels = torch.from_numpy(arrays["fit_images"])[:, None][: settings.fit_images]
    fit = FitImages(pixels, torch.from_numpy(arrays["fit_labels"]).long()[: settings.fit_images], preprocessing)
    held_out = HeldOutImages(
        torch.from_numpy(arrays["held_out_images"])[:, None],
        torch.from_numpy(arrays["held_out_labels"]).long(),
        preprocessing,
    )
    return _tiny_set(fit, held_out, "embedded digits", (), ())


def augmenter(preprocessing: Preprocessing, least: float = 0.08) -> v2.Transform:
    """Label-free augmentation: random crops (as in the paper; small inputs are padded and shifted) and flips.

    least: the share of the picture that a crop holds at least; small inputs keep theirs whole.
    """
    height, width = preprocessing.size
    if preprocessing.augment == "none":
        return v2.Identity()
    mode = MODES[preprocessing.interpolation]
    crop: v2.Transform = v2.RandomResizedCrop((height, width), scale=(least, 1.0), interpolation=mode, antialias=True)
    if height <= 64:
        crop = v2.RandomCrop((height, width), padding=max(1, height // 8))
    return v2.Compose([crop, v2.RandomHorizontalFlip()]) if preprocessing.augment == "crop-flip" else crop
