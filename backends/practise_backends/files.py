"""Files that are there whole or not at all, and files that others name: what is no regular file is not opened."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def regular_file(path: Path, *homes: Path) -> Path:
    """The path, where it leads to a regular file inside one of these folders, links followed.

    To be asked before anything opens what a file from elsewhere names: a pipe waits for ever, a device never ends.
    Raises: ValueError that says what is wrong with it; OSError where it is not there.
    """
    if "\0" in str(path):
        raise ValueError("is no name of a file")
    place = os.path.realpath(path)
    if not any(Path(place).is_relative_to(os.path.realpath(home)) for home in homes):
        raise ValueError(f"lies outside the folder {os.path.abspath(homes[0])}")
    if not stat.S_ISREG(os.stat(place).st_mode):
        raise ValueError("is no regular file")
    return path


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Of a link, the file that it leads to is written. One that is there keeps its permissions; what is no file (a
    device, a pipe) is written to as it is.
    Raises: OSError, which names the path.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        mode = path.stat().st_mode if path.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            path.write_bytes(data)
        else:
            place = Path(os.path.realpath(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(place, data, mode)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _put(place: Path, data: bytes, mode: int | None) -> None:
    """Write beside the place, then take it. mode: of the file that is there."""
    beside = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(beside, stat.S_IMODE(mode))
        os.replace(beside, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
