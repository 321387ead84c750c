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
        found = json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [found]
    for _ in range(_DEEPEST):
        level = [each for one in level if isinstance(one, (dict, list)) for each in _within(one)]
    if level:
        raise ValueError(_TOO_DEEP)
    return found


def _within(one: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return one.values() if isinstance(one, dict) else one


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text}, which is no number")
    return number


def _whole(text: str) -> int:
    _finite(text)
    return int(text)
