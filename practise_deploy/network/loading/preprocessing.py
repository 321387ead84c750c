"""How images are made for a network: from the settings, else from the network's configuration, else assumed, with a note."""

from __future__ import annotations

import math

from practise_deploy.errors import InputError
from practise_deploy.network.loading.sources import Config
from practise_deploy.settings import INTERPOLATIONS, NetworkSource
from practise_deploy.terms import Preprocessing

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def preprocessing_of(config: Config, source: NetworkSource, image_size: tuple[int, int] | None) -> Preprocessing:
    """From the settings, else from the network's configuration, else assumed, with a note."""
    network_channels, *size = config.get("input_size", (3, *(image_size or (224, 224))))
    channels = len(source.mean or source.std or range(network_channels))
    assumed = [] if "input_size" in config or source.input_size else [f"input size {size[0]}x{size[1]}"]
    if source.input_size:
        size = list(source.input_size)
    configured = config if channels == network_channels else {}
    defaults = _IMAGENET if channels == 3 else {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    normalisation = {name: getattr(source, name) or configured.get(name) for name in defaults}
    mean, std = (tuple(normalisation[name] or defaults[name]) for name in defaults)
    if missing := [f"{name} {defaults[name]}" for name in defaults if not normalisation[name]]:
        assumed.append(" and ".join(missing))
    if len(mean) != channels or len(std) != channels:
        raise InputError(
            f"mean has {len(mean)} numbers and std {len(std)}, for {channels} input channels",
            remedy="give --mean and --std as many numbers each as the network takes channels",
        )
    mode = config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        assumed.append(f"centre crops, where the network's configuration asks for crop_mode '{mode}',")
    interpolation = source.interpolation or config.get("interpolation") or "bilinear"
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"the network's configuration asks for interpolation '{interpolation}'",
            remedy=f"give --interpolation: {', '.join(INTERPOLATIONS)}",
        )
    return Preprocessing(
        channels=channels,
        size=(size[0], size[1]),
        resize=_resize(config, source, min(size)),
        squash=config.get("crop_mode") == "squash" and not source.resize,
        mean=mean,
        std=std,
        interpolation=interpolation,
        augment=source.augment or config.get("augment") or "crop-flip",
        assumed=tuple(assumed),
        channel_order=source.channel_order or "rgb",
    )


def _resize(config: Config, source: NetworkSource, side: int) -> int:
    """The shorter side before the crop: from the settings, the configuration, or the usual share. side: that after the crop."""
    share = config.get("crop_pct") or (0.875 if side > 64 else 1.0)
    configured = None if source.input_size else config.get("resize")
    resize = int(source.resize or configured or math.floor(side / share))
    if resize < side:
        origin = "--resize" if source.resize else "the network's own configuration resizes to"
        raise InputError(
            f"{origin} {resize} is smaller than the input, whose shorter side is {side}",
            remedy="give --resize, at least the input's shorter side",
        )
    return resize
