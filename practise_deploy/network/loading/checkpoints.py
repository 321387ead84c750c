"""Files of weights: what each is, and the state dicts in it, read without running anything in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from practise_backends.errors import lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, first_line

KeyPath = tuple[str, ...]
"""The keys that lead to a state dict within a file."""
_MAX_DEPTH = 4
_SAVE_STATE_DICT = "save a plain state dict: torch.save(network.state_dict(), path)"
_OTHER_FORMATS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it stands for",
        "fetch the file itself: git lfs pull",
    ),
    (b"<", "a web page or XML, no weights", "download the file itself: what came is a page about it"),
    (b"\x89HDF", "an HDF5 file, as Keras and MATLAB write them", "give weights of torch: .pt, .pth or .safetensors"),
    (b"\x93NUMPY", "an array of NumPy's", "give weights of torch: .pt, .pth or .safetensors"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it, and give the file in it"),
    (b"{", "JSON, no weights", "give the file of weights that it is about"),
)


def read_state_dicts(path: Path) -> dict[KeyPath, dict[Any, Any]]:
    """Every state dict in a .safetensors or a file of torch.save, by its key path; {} for an object that cannot be read.

    Raises: InputError where the file is missing, broken, something else, or holds no state dict.
    """
    if problem := why_no_file(path, "weights file"):
        raise InputError(problem, remedy="give the path of a .pt, .pth or .safetensors with --weights")
    try:
        _refuse_other_formats(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"cannot read the weights file {path}: {first_line(error)}", remedy="fetch or copy it again"
        ) from None
    tree = _read(path)
    state_dicts = dict(_state_dicts(tree, (), set()))
    if not any(state_dicts.values()):
        raise InputError(f"{path} holds no state dict, but {_contents(tree)}", remedy=_SAVE_STATE_DICT)
    return state_dicts


def _refuse_other_formats(path: Path) -> None:
    """Refuse other file formats, recognised by their first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise InputError(f"cannot read the weights file {path}: it is empty", remedy="fetch or save it again")
    for signature, description, remedy in _OTHER_FORMATS:
        if head.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(signature):
            raise InputError(f"{path} is {description}", remedy=remedy)
    if head.startswith(b"PK\x03\x04"):
        _refuse_other_archives(path)


def _refuse_other_archives(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is cut short: its end is missing after {path.stat().st_size} bytes",
            remedy="fetch or copy it again",
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    file_names = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in file_names:
        raise InputError(
            f"{path} is a TorchScript archive, not a state dict",
            remedy=f"save its state dict: torch.save(torch.jit.load('{path}').state_dict(), 'weights.pth')",
        )
    if "archive_format" in file_names or "serialized_exported_program.json" in file_names:
        raise InputError(
            f"{path} is a file of torch.export, network and weights in one",
            remedy="give it as the network, as FILE.pt2, and leave --weights out",
        )
    if "data.pkl" not in file_names:
        raise InputError(f"{path} is an archive of {', '.join(names[:3])}, not of weights", remedy=_SAVE_STATE_DICT)


def _read(path: Path) -> Any:
    foreign_globals: list[str] = []
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        foreign_globals = _foreign_globals(path)
        with torch.serialization.safe_globals([_placeholder_type(*name.rpartition(".")) for name in foreign_globals]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own words advise to read it unsafely
        foreign_globals += re.findall(r"Unsupported global: GLOBAL ([\w.]+)", str(error))
        listing = ", ".join(foreign_globals[:8])
        why = f"it holds more than tensors: {listing}" if listing else "it is no file of torch, or damaged"
        raise InputError(f"cannot read the weights file {path}: {why}", remedy=_SAVE_STATE_DICT) from None
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"cannot read the weights file {path}: {first_line(error)}", remedy=f"fetch it again, or {_SAVE_STATE_DICT}"
        ) from None


def _is_safetensors(path: Path) -> bool:
    """By the suffix, or by how it begins: the length of its header, and that header, which is JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (
        head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    )


class _Placeholder:
    """Replaces an object whose class is not torch's: accepts any construction and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _foreign_globals(path: Path) -> list[str]:
    """The names of all classes and functions that a file refers to besides torch's own."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except ValueError:  # the older format of torch, which cannot be looked into
        return []


def _placeholder_type(module: str, _: str, name: str) -> type:
    """The placeholder class for a foreign name: nothing that a file names is imported or run."""
    return type(name, (_Placeholder,), {"__module__": module})


def _state_dicts(tree: Any, key_path: KeyPath, seen: set[int]) -> Iterator[tuple[KeyPath, dict[Any, Any]]]:
    """Every dict that directly holds a tensor, each once; a list of tensors becomes a dict by index."""
    if id(tree) in seen or len(key_path) > _MAX_DEPTH:
        return
    seen.add(id(tree))
    if isinstance(tree, _Placeholder):
        yield key_path, {}
    children = dict(enumerate(tree)) if isinstance(tree, (list, tuple)) else tree
    if not isinstance(children, dict):
        return
    if any(isinstance(value, Tensor) for value in children.values()):
        yield key_path, children
    for key, value in children.items():
        if isinstance(key, str):
            yield from _state_dicts(value, (*key_path, key), seen)


def _contents(tree: Any) -> str:
    if not isinstance(tree, dict):
        return f"a value of type {_kind(tree)}"
    keys = [f"{key} ({_kind(value)})" for key, value in list(tree.items())[:8]]
    return f"these keys: {', '.join(keys)}" if keys else "nothing"


def _kind(value: Any) -> str:
    """A value's type; a foreign one's with its module."""
    name = type(value).__name__
    return f"{type(value).__module__}.{name}" if isinstance(value, _Placeholder) else name
