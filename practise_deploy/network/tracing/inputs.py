"""What a network takes where it is not one tensor of images: by its forward's signature, and by what it runs on instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_FRAMES = 16
_OTHER_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "videos, of shape (n, channels, frames, height, width)": lambda x: x[:, :, None].expand(-1, -1, _FRAMES, -1, -1),
    "signals, of shape (n, channels, length)": lambda x: x.flatten(2).expand(2, -1, -1),
    "numbers of tokens, of shape (n, positions)": lambda x: x.new_ones((2, 16), dtype=torch.long),
}


TAKE_IMAGES = "wrap it in a module that takes the images alone and fixes the rest (...), and give FILE.py:wrapped"
"""The remedy for a network that takes something else, with the snippet of a `wrapper`."""
_GIVE_ARRAYS = f"give --data an .npz with an array for each of them, by these names, samples along the first axis; or {TAKE_IMAGES}"


def wrapper(call: str, network: str = "FUNCTION()") -> str:
    """A wrapper to write around a network, as Python. call: what it returns, for `images` and `self.network`."""
    imports = "torch, types" if "types." in call else "torch"
    return f"""import {imports}
class Wrapped(torch.nn.Module):
    def __init__(self): super().__init__(); self.network = {network}
    def forward(self, images): return {call}
def wrapped(): return Wrapped()"""


def check_inputs(module: nn.Module) -> None:
    """Refuse a network that needs more than one tensor of images, by the names of what its forward takes.

    Raises: InputError.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    by_name = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(needed) > 1 or by_name:
        first = parameters[0]
        images = f"{first.name}=images" if first.kind is first.KEYWORD_ONLY else "images"
        rest = [f"{name}=..." for name in needed if name != first.name]
        raise InputError(
            f"the network's forward needs {', '.join(needed)}; it is run with one tensor of images alone",
            remedy=_GIVE_ARRAYS,
            snippet=wrapper(f"self.network({', '.join([images, *rest])})"),
        )
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        raise InputError(
            f"the network's forward takes any number of inputs, *{parameters[0].name}; it is run with one tensor of images",
            remedy=TAKE_IMAGES,
            snippet=wrapper("self.network(images)"),
        )


def check_kind(run: Callable[[Any], Any], sample: Tensor) -> None:
    """Refuse a network that does not run on images by what it takes instead, where a trial shows that.

    Raises: InputError.
    """
    probe = _BatchProbe(sample)
    _runs(run, probe)
    if probe._keys:
        fields = ", ".join(f"{key!r}: {value}" for key, value in probe._keys.items())
        remedy = _GIVE_ARRAYS if len(probe._keys) > 1 else TAKE_IMAGES
        raise _structure_error("a mapping with the keys", probe._keys, f"{{{fields}}}", remedy)
    if probe._attributes:
        fields = ", ".join(f"{name}={value}" for name, value in probe._attributes.items())
        raise _structure_error("an object with the attributes", probe._attributes, f"types.SimpleNamespace({fields})")
    for kind, make_input in _OTHER_INPUTS.items():
        if _runs(run, make_input(sample)):
            raise InputError(
                f"the network takes {kind}, not images, of shape (n, channels, height, width)",
                remedy="give --data an .npz with an array of that shape, samples along the first axis, by the name of the parameter of its forward",
            )


def _structure_error(kind: str, names: Iterable[str], call: str, remedy: str = TAKE_IMAGES) -> InputError:
    return InputError(
        f"the network's forward takes {kind} {', '.join(names)}; it is run with one tensor of images",
        remedy=remedy,
        snippet=wrapper(f"self.network({call})"),
    )


def _runs(run: Callable[[Any], Any], network_input: Any) -> bool:
    try:
        with torch.no_grad():
            run(network_input)
    except (Exception, SystemExit):
        return False
    return True


class _BatchProbe(dict[Any, Any]):
    """A batch that answers every key and attribute with the images, and records their names."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._images, self._keys, self._attributes = images, dict[str, str](), dict[str, str]()

    def __getitem__(self, key: Any) -> Tensor:
        if not isinstance(key, str):
            raise KeyError(key)
        self._keys.setdefault(key, "..." if self._keys else "images")
        return self._images

    def get(self, key: Any, *_: Any) -> Tensor:
        """As a mapping's."""
        return self[key]

    pop = get

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_") or hasattr(Tensor, name):
            raise AttributeError(name)
        self._attributes.setdefault(name, "..." if self._attributes else "images")
        return self._images
