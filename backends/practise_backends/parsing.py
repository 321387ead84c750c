"""JSON from elsewhere: files that people or other programs may have written, and records from it. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from practise_backends.files import read_text

_DEEPEST = 100
_TOO_DEEP = f"it is nested more than {_DEEPEST} levels deep"


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises: OSError; ValueError that says why it cannot be read.
    """
    return parsed(read_text(path))


def parsed(text: str) -> Any:
    """What JSON holds. A number is one that a float can hold: no NaN, no infinity.

    Raises: json.JSONDecodeError where it is none; ValueError that says why it cannot be read, as where it is nested too deeply.
    """
    try:
        document = json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_finite_int)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            value
            for container in level
            if isinstance(container, (dict, list))
            for value in _within(container)
        ]
    if level:
        raise ValueError(_TOO_DEEP)
    return document


def record_of(kind: Any, value: Any) -> Any:
    """What JSON says, as a value of this type: a record, a tuple, a dictionary, text, a number, or none of them.

    Raises: TypeError, ValueError, KeyError or AttributeError, which say what is wrong.
    """
    origin, of = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        required = {
            f.name for f in dataclasses.fields(kind) if f.default is f.default_factory
        }  # neither is there
        names = [name for name in hints if name in value or name in required]
        return cast(Any, kind)(**{name: record_of(hints[name], value[name]) for name in names})
    if origin is tuple and isinstance(value, list):
        return tuple(record_of(of[0], element) for element in value)
    if origin in (dict, Mapping):
        return {record_of(of[0], key): record_of(of[1], element) for key, element in value.items()}
    if origin is UnionType:
        return None if value is None else record_of(of[0], value)
    if kind in (int, float) or (isinstance(kind, type) and issubclass(kind, Enum)):
        return kind(value)
    if (kind is str and not isinstance(value, str)) or origin is tuple:
        raise TypeError(f"{value!r} is no {'text' if kind is str else 'list'}")
    return value


def _within(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text}, which is no number")
    return number


def _finite_int(text: str) -> int:
    _finite(text)
    return int(text)
