"""The tiny set. `FitImages` and `HeldOutImages` are different types: only verification takes the held-out ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from practise_deploy.embedded import digits
from practise_deploy.errors import InputError
from practise_deploy.settings import EMBEDDED, Settings
from practise_deploy.terms import DataFacts, NetworkFacts, Preprocessing

_SUFFIXES = set(Image.registered_extensions())
_MODES = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC, "nearest": v2.InterpolationMode.NEAREST}
LEAST = 8


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

    def digest(self) -> str:
        """sha256 of pixels and labels."""
        total = hashlib.sha256(self.pixels.numpy().tobytes())
        total.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class FitImages(Images):
    """Images to fit, score and finetune with."""

    def part(self, which: Tensor) -> FitImages:
        """Some of the images."""
        return FitImages(self.pixels[which], None if self.labels is None else self.labels[which], self.preprocessing)

    def split(self, seed: int) -> tuple[FitImages, FitImages]:
        """Four fifths to learn from, one fifth to judge with (at least 2 and at most 200 images)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        judges = min(max(2, len(self) // 5), 200)
        return self.part(order[judges:].sort().values), self.part(order[:judges].sort().values)


@dataclass(frozen=True, slots=True)
class HeldOutImages(Images):
    """Images that nothing but verification sees."""


@dataclass(frozen=True, slots=True)
class TinySet:
    """All images of a build, and what was found while reading them."""

    fit: FitImages
    held_out: HeldOutImages
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class _Listing:
    """Images as found: files or arrays, with class names or numbers where there are any."""

    files: tuple[Path, ...] = ()
    array: np.ndarray | None = None
    classes: tuple[str | int, ...] | None = None

    def __len__(self) -> int:
        return len(self.files) if self.array is None else len(self.array)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bytes to normalised float32; float32 pixels are taken as normalised already."""
    if pixels.dtype != torch.uint8:
        return pixels
    mean = torch.tensor(preprocessing.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, -1, 1, 1)
    return (pixels.float() / 255 - mean) / std


def image_size_of(settings: Settings) -> tuple[int, int] | None:
    """(height, width) of the images in an .npz; None for files, which are resized."""
    if settings.data is None or settings.data.suffix != ".npz":
        return None
    shape = _read_npz(settings.data)["images"].shape
    channels_first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
    return (shape[2], shape[3]) if channels_first else (shape[1], shape[2])


def load_images(settings: Settings, network: NetworkFacts) -> TinySet:
    """The tiny set and the held-out images that the settings name.

    Raises: InputError for missing, broken or too few images.
    """
    if settings.data is None:
        if settings.network != EMBEDDED:
            raise InputError("no images: the tiny set is missing", remedy="give a folder, a list file or an .npz with --data")
        return _embedded(settings, network.preprocessing)
    order = np.random.default_rng(settings.seed)
    listing = _list(settings.data)
    notes: list[str] = []
    labels = _labels(listing, settings, network, notes)
    mixed = order.permutation(len(listing))
    held = [] if settings.eval else list(mixed[: max(4, round(len(mixed) * settings.held_out_percent / 100))])
    fit = list(mixed[len(held) :])[: settings.fit_images]
    if len(fit) < LEAST:
        raise InputError(
            f"{settings.data} gives {len(fit)} images to fit ({len(held)} more are held out for verification); "
            f"at least {LEAST} are needed to tell a good recovery from a memorised one",
            remedy="add images; 50 to 500 are a good number",
        )
    skipped: list[str] = []
    read = _Reader(network.preprocessing, settings.skip_bad_images, skipped)
    fit_images = FitImages(*read(listing, labels, sorted(fit)), network.preprocessing)
    if settings.eval:
        test = _list(settings.eval)
        truth = _labels(test, settings, network, notes, required=True)
        held_out = HeldOutImages(*read(test, truth, range(len(test))), network.preprocessing)
    else:
        held_out = HeldOutImages(*read(listing, labels, sorted(held)), network.preprocessing)
    return _tiny_set(fit_images, held_out, str(settings.data), tuple(skipped), tuple(dict.fromkeys(notes)))


def _tiny_set(fit: FitImages, held_out: HeldOutImages, source: str, skipped: tuple[str, ...], notes: tuple[str, ...]) -> TinySet:
    if len(fit) < LEAST or not len(held_out):
        raise InputError(f"{source}: only {len(fit)} images to fit and {len(held_out)} held out could be read; at least {LEAST} to fit are needed")
    facts = DataFacts(
        fit=len(fit), held_out=len(held_out), labelled=held_out.labels is not None, source=source, skipped=skipped, notes=notes
    )
    return TinySet(fit, held_out, facts)


def _embedded(settings: Settings, preprocessing: Preprocessing) -> TinySet:
    arrays = _read_npz(digits.IMAGES, images="fit_images")
    pixels = torch.from_numpy(arrays["fit_images"])[:, None][: settings.fit_images]
    fit = FitImages(pixels, torch.from_numpy(arrays["fit_labels"]).long()[: settings.fit_images], preprocessing)
    held_out = HeldOutImages(
        torch.from_numpy(arrays["held_out_images"])[:, None], torch.from_numpy(arrays["held_out_labels"]).long(), preprocessing
    )
    return _tiny_set(fit, held_out, "embedded digits", (), ())


def _list(path: Path) -> _Listing:
    if path.is_dir():
        return _list_folder(path)
    if not path.is_file():
        raise InputError(f"no such folder or file: {path}")
    return _list_npz(path) if path.suffix == ".npz" else _list_file(path)


def _list_folder(folder: Path) -> _Listing:
    def images(place: Path) -> list[Path]:
        return sorted(f for f in place.iterdir() if f.is_file() and f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))

    flat = images(folder)
    if flat:
        return _Listing(files=tuple(flat))
    found = [(file, place.name) for place in sorted(folder.iterdir()) if place.is_dir() for file in images(place)]
    if not found:
        raise InputError(f"{folder} holds no images", remedy=f"known endings: {', '.join(sorted(_SUFFIXES)[:12])} and more")
    return _Listing(files=tuple(file for file, _ in found), classes=tuple(name for _, name in found))


def _list_file(path: Path) -> _Listing:
    """One image a line, relative to the list; after a tab (or the last space) a label, on every line or on none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list file {path}: {error}") from None
    rows = [line.split("\t") if "\t" in line else [line] if (path.parent / line).is_file() else line.rsplit(" ", 1) for line in lines]
    labelled = bool(rows) and len(rows[0]) == 2
    seen: set[Path] = set()
    for number, row in enumerate(rows, 1):
        file = path.parent / row[0]
        if not file.is_file():
            raise InputError(f"{path}, line {number}: no such image: {row[0]}")
        if len(row) != len(rows[0]) or len(row) > 2:
            raise InputError(f"{path}, line {number}: a label on every line or on none", remedy="IMAGE, a tab, LABEL")
        if file in seen:
            raise InputError(f"{path}, line {number}: {row[0]} is listed twice", remedy="it could be fitted and held out at once")
        seen.add(file)
    if not rows:
        raise InputError(f"{path} lists no images")
    return _Listing(
        files=tuple(path.parent / row[0] for row in rows), classes=tuple(row[1].strip() for row in rows) if labelled else None
    )


def _read_npz(path: Path, images: str = "images") -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except Exception as error:
        raise InputError(f"{path} is no .npz file: {error}") from None
    if images not in arrays:
        raise InputError(f"{path} has no array '{images}'; it has: {', '.join(arrays) or 'none'}")
    return arrays


def _list_npz(path: Path) -> _Listing:
    arrays = _read_npz(path)
    images, labels = arrays["images"], arrays.get("labels")
    if images.ndim not in (3, 4) or not len(images) or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise InputError(f"{path}: 'images' is {images.dtype}{list(images.shape)}; expected uint8[n, height, width, channels] "
                         "or float32[n, channels, height, width]")
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "ui"):
        raise InputError(f"{path}: 'labels' is {labels.dtype}{list(labels.shape)}; expected one whole number for each image")
    if labels is not None and len(labels) != len(images):
        raise InputError(f"{path}: {len(images)} images but {len(labels)} labels")
    return _Listing(array=images, classes=None if labels is None else tuple(int(label) for label in labels))


def _labels(
    listing: _Listing, settings: Settings, network: NetworkFacts, notes: list[str], *, required: bool = False
) -> list[int] | None:
    """Class numbers of the network's outputs, where the images' classes can be matched to them."""
    where = settings.eval if required else settings.data
    if listing.classes is None:
        if required:
            raise InputError(f"{where} has no labels", remedy="one folder per class, a list file with labels, or an .npz with 'labels'")
        return None
    index = _class_index(sorted({str(name) for name in listing.classes}), settings, network)
    if index is None:
        problem = f"the class names in {where} cannot be matched to the network's {network.output_classes} outputs"
        if required:
            raise InputError(problem, remedy="give the outputs' names in order, one a line, with --classes")
        notes.append(f"{problem}: the labels are not used (see --classes)")
        return None
    return [index[str(name)] for name in listing.classes]


def _class_index(names: list[str], settings: Settings, network: NetworkFacts) -> dict[str, int] | None:
    """Names of outputs from --classes, numbers, WordNet ids of ImageNet-1k, or as many folders as outputs."""
    outputs = network.output_classes or 0
    if settings.classes is not None:
        try:
            known = settings.classes.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {settings.classes}: {error}") from None
        known = [line.strip() for line in known if line.strip()]
    elif all(name.isdigit() and int(name) < outputs for name in names):
        return {name: int(name) for name in names}
    elif outputs == 1000 and all(name[0] == "n" and name[1:].isdigit() and len(name) == 9 for name in names):
        known = (Path(__file__).parent / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    else:
        known = names if len(names) == outputs else []
    return {name: known.index(name) for name in names} if set(names) <= set(known) else None


class _Reader:
    """Reads listed images into one tensor; bad ones are an error, or are skipped and remembered."""

    def __init__(self, preprocessing: Preprocessing, skip_bad: bool, skipped: list[str]) -> None:
        self.preprocessing = preprocessing
        self.skip_bad = skip_bad
        self.skipped = skipped
        mode = _MODES[preprocessing.interpolation]
        self.resize = v2.Resize(preprocessing.resize, interpolation=mode, antialias=True)
        self.crop = v2.CenterCrop(preprocessing.size)

    def __call__(self, listing: _Listing, labels: list[int] | None, which: Sequence[int] | range) -> tuple[Tensor, Tensor | None]:
        pixels, kept = [], []
        for index in which:
            image = self._array(listing.array[index]) if listing.array is not None else self._file(listing.files[index])
            if image is not None:
                pixels.append(image)
                kept.append(index)
        shape = (0, self.preprocessing.channels, *self.preprocessing.size)
        truth = None if labels is None else torch.tensor([labels[index] for index in kept], dtype=torch.int64)
        return torch.stack(pixels) if pixels else torch.empty(shape, dtype=torch.uint8), truth

    def _file(self, path: Path) -> Tensor | None:
        try:
            with Image.open(path) as opened:
                image = _eight_bits(ImageOps.exif_transpose(opened))
                if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
                image = image.convert("L" if self.preprocessing.channels == 1 else "RGB")
                return self._fit(v2.functional.pil_to_tensor(image))
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            problem = f"{path}: {error}"
        if not self.skip_bad:
            raise InputError(f"broken image {problem}", remedy="remove it, or give --skip-bad-images")
        self.skipped.append(problem)
        return None

    def _array(self, array: np.ndarray) -> Tensor:
        channels = self.preprocessing.channels
        image = array[:, :, None] if array.ndim == 2 else array
        if image.shape[0] not in (1, 3) or image.shape[-1] in (1, 3):
            image = np.moveaxis(image, -1, 0)
        if image.shape[0] != channels:
            image = np.repeat(image, channels, 0) if image.shape[0] == 1 else image
        if image.shape[0] != channels:
            raise InputError(f"the images have {image.shape[0]} channels, the network takes {channels}")
        if image.dtype.kind == "f":
            if image.shape[1:] != self.preprocessing.size:
                raise InputError(f"normalised images are {image.shape[1]}x{image.shape[2]}, the network takes {self.preprocessing.size}")
            return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        return self._fit(torch.from_numpy(np.ascontiguousarray(image.astype(np.uint8))))

    def _fit(self, image: Tensor) -> Tensor:
        """Shorter side to `resize`, centre crop; an image of the input's size already is taken as it is."""
        if tuple(image.shape[-2:]) == self.preprocessing.size:
            return image
        return self.crop(self.resize(image))  # type: ignore[no-any-return]


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey images scaled to bytes; PIL's own conversion would clip them at 255."""
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.clip(wide / 257, 0, 255).round().astype(np.uint8) if wide.max(initial=0) > 255 else wide.astype(np.uint8))


def augmenter(preprocessing: Preprocessing) -> v2.Transform:
    """Label-free augmentation: random crops (as in the paper; small inputs are padded and shifted) and flips."""
    height, width = preprocessing.size
    if preprocessing.augment == "none":
        return v2.Identity()
    mode = _MODES[preprocessing.interpolation]
    crop: v2.Transform = v2.RandomResizedCrop((height, width), interpolation=mode, antialias=True)
    if height <= 64:
        crop = v2.RandomCrop((height, width), padding=max(1, height // 8))
    return v2.Compose([crop, v2.RandomHorizontalFlip()]) if preprocessing.augment == "crop-flip" else crop
