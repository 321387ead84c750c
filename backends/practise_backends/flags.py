"""Options as they are written on a command line: their words, and how they are read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

GROUP = "practise_backends.flags"
"""Entry points by a backend's name, each to the `Flag`s of its class's capabilities, in a module that is quick to import."""


_Text = TypeVar("_Text", bound=str)


@dataclass(frozen=True, slots=True)
class Flag:
    """An option as it is written on a command line.

    parse: from its text, with a ValueError that says what is wrong; None for a switch.
    repeated: it may be given several times, and all of them count.
    """

    name: str
    default: Any
    help: str
    parse: Callable[[str], Any] | None
    metavar: str = ""
    repeated: bool = False

    @property
    def written(self) -> str:
        """`--min-speedup`; a switch that is on unless it is turned off is written `--no-...`."""
        return ("--no-" if self.default is True else "--") + self.name.replace("_", "-")

    def read(self, value: Any) -> Any:
        """A value of a settings file or a kit, within the same bounds as on a command line. A list is read like its words with commas.

        Raises: ValueError that says what is wrong.
        """
        if self.parse is not None:
            return self.parse(as_text(value))
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value


def as_text(value: Any) -> str:
    """A value as it is written on a command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of these names that may be meant; empty where none is like it."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), "")


def integer(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def natural(text: str) -> int:
    """A whole number from 0."""
    if (number := integer(text)) < 0:
        raise ValueError(f"{text} is not 0 or more")
    return number


def positive(text: str) -> int:
    """A whole number from 1."""
    if (number := integer(text)) < 1:
        raise ValueError(f"{text} is not 1 or more")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"{text} is not a number above 0")
    return number


def one_of(words: Iterable[_Text]) -> Callable[[str], _Text]:
    """The reader of an option that is one of a few words."""
    by_text = {str(word): word for word in words}

    def read(text: str) -> _Text:
        if text not in by_text:
            raise ValueError(f"{text!r} is none of {', '.join(by_text)}")
        return by_text[text]

    return read


def words_like(pattern: str, examples: str) -> Callable[[str], tuple[str, ...]]:
    """The reader of an option that is a list of words with commas between them, all of one pattern. examples: some such words."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(word.strip().lower() for word in text.split(",")) if text else ()
        if not all(re.fullmatch(pattern, word) for word in words):
            raise ValueError(f"{text!r} is not a list like {examples}")
        return words

    return read


def between(least: int, most: int) -> Callable[[str], int]:
    """The reader of an option that is a whole number within bounds."""

    def read(text: str) -> int:
        if not least <= (number := integer(text)) <= most:
            raise ValueError(f"{text} is not between {least} and {most}")
        return number

    return read


@cache
def option_flags() -> tuple[Flag, ...]:
    """The options of all installed backends, each name once; the help says which backends have it."""
    flags: dict[str, Flag] = {}
    owners: dict[str, list[str]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        with suppress(ImportError):  # which the backend itself says when it is asked for
            for flag in point.load():
                flags.setdefault(flag.name, flag)
                owners.setdefault(flag.name, []).append(point.name)
    return tuple(
        replace(flag, help=f"{', '.join(owners[name])}: {flag.help}") for name, flag in flags.items()
    )
