"""What a network takes where it is not one tensor of images: by its forward's signature, and by what it runs on instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError

_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_FRAMES = 16
_OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "videos, of shape (n, channels, frames, height, width)": lambda x: x[:, :, None].expand(-1, -1, _FRAMES, -1, -1),
    "signals, of shape (n, channels, length)": lambda x: x.flatten(2).expand(2, -1, -1),
    "numbers of tokens, of shape (n, positions)": lambda x: x.new_ones((2, 16), dtype=torch.long),
}


def wrapped(call: str) -> str:
    """The remedy for a network that takes something else: what to write, with how the network is called there."""
    imports = "torch, types" if "types." in call else "torch"
    return f"""wrap it in a module that takes the images alone and fixes the rest (...), and give FILE.py:wrapped:
    import {imports}
    class Wrapped(torch.nn.Module):
        def __init__(self): super().__init__(); self.network = FUNCTION()
        def forward(self, images): return self.network({call})
    def wrapped(): return Wrapped()"""


def check_inputs(module: nn.Module) -> None:
    """Refuse a network that needs more than one tensor of images, by the names of what its forward takes.

    Raises: InputError.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [each.name for each in parameters if each.default is each.empty and each.kind not in _ANY_NUMBER]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if len(needed) > 1 or by_name:
        first = parameters[0]
        images = f"{first.name}=images" if first.kind is first.KEYWORD_ONLY else "images"
        rest = [f"{name}=..." for name in needed if name != first.name]
        raise InputError(
            f"the network's forward needs {', '.join(needed)}; it is run with one tensor of images alone",
            remedy=wrapped(", ".join([images, *rest])),
        )
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        raise InputError(
            f"the network's forward takes any number of inputs, *{parameters[0].name}; it is run with one tensor of images",
            remedy=wrapped("images"),
        )


def check_kind(run: Callable[[Any], Any], sample: Tensor) -> None:
    """Refuse a network that did not run on images by what it takes instead, where that can be found out.

    Raises: InputError.
    """
    asked = _Asked(sample)
    _runs(run, asked)
    if asked._keys:
        given = ", ".join(f"{key!r}: {value}" for key, value in asked._keys.items())
        raise _of_batches("a mapping with the keys", asked._keys, f"{{{given}}}")
    if asked._attributes:
        given = ", ".join(f"{name}={value}" for name, value in asked._attributes.items())
        raise _of_batches("an object with the attributes", asked._attributes, f"types.SimpleNamespace({given})")
    for kind, made in _OTHERS.items():
        if _runs(run, made(sample)):
            raise InputError(
                f"the network takes {kind}, not images, of shape (n, channels, height, width)",
                remedy="give a network of images, torchvision:resnet50 for example: no others are cut here yet; as an ONNX file this one can be "
                "measured: practise-deploy bench FILE.onnx, or compare A.onnx B.onnx",
            )


def _of_batches(kind: str, names: Iterable[str], call: str) -> InputError:
    return InputError(
        f"the network's forward takes {kind} {', '.join(names)}; it is run with one tensor of images",
        remedy=wrapped(call),
    )


def _runs(run: Callable[[Any], Any], given: Any) -> bool:
    try:
        with torch.no_grad():
            run(given)
    except (Exception, SystemExit):
        return False
    return True


class _Asked(dict[Any, Any]):
    """Stands for a batch: gives the images for whatever it is asked, and keeps the names, with what to give for each."""

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
