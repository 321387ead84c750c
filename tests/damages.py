"""What may be in the place of a file that a user names."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def missing(path: Path) -> None:
    """Nothing."""


def below_a_file(path: Path) -> None:
    """A file where a folder of the path should be."""
    path.parent.rmdir()
    path.parent.write_text("a file")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    """Nobody writes into it: who opens it waits for ever."""
    os.mkfifo(path)


def circle(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def words(path: Path) -> None:
    path.write_text("these are words\n")


def noise(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(2000))


def nested(path: Path) -> None:
    """Deeper than Python's stack; for TOML the same within a key."""
    path.write_text(("a = " if path.suffix == ".toml" else "") + "[" * 100_000)


def deep(path: Path) -> None:
    """Deep, and whole."""
    path.write_text(("a = " if path.suffix == ".toml" else "") + "[" * 900 + "]" * 900)


def page(path: Path) -> None:
    """What a server says instead of the file."""
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>")


def pointer(path: Path) -> None:
    """What Git LFS leaves where nothing was pulled."""
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:5a\nsize 3\n")


def archive(path: Path) -> None:
    """Begins as a ZIP archive and is cut short."""
    path.write_bytes(b"PK\x03\x04" + random.Random(1).randbytes(500))


DAMAGES: tuple[Damage, ...] = (
    missing, below_a_file, folder, pipe, circle, empty, words, noise, nested, deep, page, pointer, archive,
)  # fmt: skip


def told(err: str, path: Path | str) -> bool:
    """Whether stderr is one error that names the path, and its remedy."""
    error, _, remedy = err.partition("error: ")[2].partition("remedy: ")
    return err.count("error: ") == err.count("remedy: ") == 1 and str(path) in error and len(remedy.strip()) > 5
