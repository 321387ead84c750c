"""Messages in Python's words: a flag and its parameter share one name, and an error tells its remedy too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from practise_backends.errors import Refusal
from practise_backends.flags import option_flags
from practise_backends.options import CompareOptions, flags_of
from practise_deploy.settings import OF_PYTHON, Settings

_FLAG = re.compile(r"--(no-)?([a-z][a-z0-9-]*[a-z0-9])(?: (none\b|-?\d+(?:\.\d+)?%?))?")
_OBJECT = re.compile(rf"{OF_PYTHON}(?:(images|eval):)?(\w+)")
_PHRASES = {
    "give a folder, a list file or an .npz with --data": "give arrays, a Dataset, a DataLoader, PIL images or a path as the parameter images",
    "with --data": "as the parameter images",
    "--help lists": "help(practise_deploy.build) lists",
    ": FILE.py:FUNCTION": ", and give that module",
    "FILE.py:wrapped": "wrapped()",
}


def described(text: str, default: Any) -> str:
    """What a setting says, with its default where it has one."""
    return text if default in (None, False, ()) else f"{text} (default: {default})"


SETTINGS = {
    name: described(f"{field.description}", field.default)
    for name, field in Settings.model_fields.items()
    if name not in ("network", "data", "backend_options")
} | {flag.name: flag.help for flag in option_flags()}
"""The settings of a build, and what they say."""


def in_python(text: str) -> str:
    """A message of the command line as one for Python: `--max-drop none` becomes `max_drop="none"`."""
    for words, python in _PHRASES.items():
        text = text.replace(words, python)
    text = _OBJECT.sub(lambda match: f"{match[1]} ({match[2]})" if match[1] else match[2], text)
    return _FLAG.sub(_parameter, text)


def _parameter(match: re.Match[str]) -> str:
    negated, flag, value = match.groups()
    name = flag.replace("-", "_")
    if name not in _defaults():
        return match[0]
    shown = "images" if name == "data" else name
    if isinstance(_defaults()[name], bool):
        return f"{shown}={not negated}" + (f" {value}" if value else "")
    if value is None:
        return shown
    return f'{shown}="none"' if value == "none" else f"{shown}={value.removesuffix('%')}"


@cache
def _defaults() -> dict[str, Any]:
    """Every parameter, with its default."""
    flags = (*option_flags(), *flags_of(CompareOptions))
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    return {flag.name: flag.default for flag in flags} | settings


@contextmanager
def python_errors() -> Iterator[None]:
    """Refusals in Python's words, whose text holds the remedy too, and the Python to write where there is some."""
    try:
        yield
    except Refusal as error:
        error.message, error.remedy = in_python(error.message), in_python(error.remedy)
        parts = (error.message, f"Remedy: {error.remedy}", error.snippet)
        error.args = ("\n".join(part for part in parts if part),)
        raise


def call_of(settings: Settings) -> str:
    """The call of `build` that these settings are, without what is a default anyway; objects stay names."""
    objects = dict[str, str]()
    arguments = [
        _argument("network", settings.network, objects),
        *([] if settings.data is None else [_argument("images", settings.data, objects)]),
    ]
    for name, value in settings:
        if name not in ("network", "data", "backend_options") and value != Settings.model_fields[name].default:
            arguments.append(f"{name}={_argument(name, value, objects)}")
    arguments += [f"{name}={value!r}" for name, value in settings.backend_options.items()]
    kinds = "; ".join(f"{name}: {kind}" for name, kind in objects.items())
    return f"practise_deploy.build({', '.join(arguments)})" + (f"  # {kinds}" if kinds else "")


def _argument(name: str, value: Any, objects: dict[str, str]) -> str:
    """A value as Python has it; for an object its name, and its kind is noted."""
    if str(value).startswith(OF_PYTHON):
        objects[name] = str(value).rpartition(":")[2]
        return name
    return repr(str(value) if isinstance(value, (str, Path)) else value)
