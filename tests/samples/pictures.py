"""Folders of small pictures, and how one of them is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from practise_deploy.images.tiny_set import load_images
from practise_deploy.settings import Settings
from practise_deploy.terms import NetworkSummary, Preprocessing

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


def facts(preprocessing: Preprocessing = RGB, outputs: int | None = 10) -> NetworkSummary:
    return NetworkSummary(
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
        if len(tiny.fit) + len(tiny.held_out) == 17 and tiny.summary.fit:
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
