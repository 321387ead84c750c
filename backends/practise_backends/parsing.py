"""JSON from elsewhere: files that people or other programs may have written. Nothing heavy is imported here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def _within(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text}, which is no number")
    return number


def _finite_int(text: str) -> int:
    _finite(text)
    return int(text)
