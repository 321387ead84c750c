"""Atomic writes, temporary folders, and safe opening of files that other files name: only regular ones are opened."""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed run left there stays
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\.[0-9a-f]{16}\.part")
_LOCK = ".in-use"
_ABANDONED_S = 3600.0


def regular_file(path: Path, *homes: Path) -> Path:
    """The path, where it leads to a regular file inside one of these folders, links followed.

    Call it before opening anything that an untrusted file names: a pipe may block for ever, a device never ends.
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


def why_no_file(path: Path, what: str = "file") -> str:
    """Why a path cannot be read as a file of that kind; empty where it can be tried."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"no such {what}: {path}"
    except OSError as error:
        return f"cannot read the {what} {path}: {error.strerror}"
    except ValueError:
        return f"{str(path)!r} is no name of a {what}"
    if stat.S_ISDIR(mode):
        return f"{path} is a folder, not a {what}"
    return "" if stat.S_ISREG(mode) else f"{path} is no regular file"


def read_text(path: Path) -> str:
    """The text of a regular file; nothing else is opened, since a pipe might block for ever.

    Raises: OSError; ValueError that says why it cannot be read, also where it is no UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")
    return path.read_text(encoding="utf-8")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Of a link, the file that it leads to is written. One that is there keeps its permissions; what is no file (a
    device, a pipe) is written to as it is. What of a text is no Unicode (a file's name may not be) is written as an escape.
    Raises: OSError, which names the path.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
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
    """Write a temporary file in the same folder, then move it into place. mode: of the existing file."""
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(part, stat.S_IMODE(mode))
        os.replace(part, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what writes that were killed left in a folder that nobody else writes to."""
    for path in folder.glob(".*.part"):
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(place: Path | None = None, prefix: str = "practise-") -> Iterator[Path]:
    """A folder that is removed afterwards, with those that killed runs left. place: its parent, by default the system's temporary folder.

    A run holds a lock on its folder for as long as it lives, wherever it runs: a folder whose lock can be had is nobody's.
    """
    place = place or Path(tempfile.gettempdir())
    _sweep(place, prefix)
    with (
        tempfile.TemporaryDirectory(dir=place, prefix=prefix) as name,
        open(Path(name) / _LOCK, "wb") as lock,
    ):
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _sweep(place: Path, prefix: str) -> None:
    """Remove the folders of runs that were killed; those of other users, and of other programs, have no lock that we may take."""
    if fcntl is None:
        return
    for path in place.glob(f"{glob.escape(prefix)}*/{_LOCK}"):
        with suppress(OSError), open(path, "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
    for path in place.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):  # killed before it took its lock; a folder that is not empty stays
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.rmdir()
