"""State dicts from files, read without running anything in them."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError, first_line

_PREFIXES = ("module.", "_orig_mod.", "model.")


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
    except UnpicklingError:  # torch's own words advise to read it unsafely
        raise InputError(
            f"cannot read the weights file {path}: it is damaged, no file of torch, or holds more than tensors",
            remedy="save a plain state dict: torch.save(network.state_dict(), path)",
        ) from None
    except Exception as error:
        raise InputError(
            f"cannot read the weights file {path}: {first_line(error)}",
            remedy="save a plain state dict: torch.save(network.state_dict(), path)",
        ) from None
    for wrapper in ("state_dict", "model_state_dict", "model", "net", "ema_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict", remedy="save network.state_dict()")
    return found


def load_state_dict(module: nn.Module, path: Path) -> None:
    """Put a file's weights into a network.

    Raises: InputError listing what is missing, unexpected or of another shape.
    """
    found = read_state_dict(path)
    own = module.state_dict()
    found = _unwrapped(found, own)
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


def _unwrapped(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers put before every name, as long as the names are not the network's own."""
    wrapped = True
    while wrapped and found and not own.keys() & found.keys():
        first = next(iter(found))
        prefix = next((each for each in _PREFIXES if first.startswith(each)), "")
        wrapped = bool(prefix) and all(name.startswith(prefix) for name in found)
        found = {name.removeprefix(prefix): value for name, value in found.items()} if wrapped else found
    return found


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
