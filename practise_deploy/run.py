"""A run folder out: results are written whole or not at all, and a step is computed once for the same inputs."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from practise_backends.errors import EnvironmentProblem, lacks_memory
from practise_backends.files import remove_parts, write_file
from practise_backends.interfaces import Progress
from practise_backends.parsing import read_json
from practise_backends.results.documents import array_fields, as_document, npz_of, to_json
from practise_backends.terms import Arrays
from practise_deploy.errors import InputError
from practise_deploy.terms import SCHEMA

__all__ = [
    "UNREADABLE",
    "Key",
    "Run",
    "arrays_digest",
    "as_document",
    "digest",
    "file_digest",
    "read_arrays",
    "to_json",
    "write_arrays",
    "write_atomically",
]

Record = TypeVar("Record")
Key = dict[str, Any]


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Raises: EnvironmentProblem.
    """
    try:
        write_file(path, content)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another --out"
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}", remedy=remedy) from None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as one .npz, atomically."""
    write_atomically(path, npz_of(arrays))


UNREADABLE = (OSError, ValueError, KeyError)
"""What reading a damaged file raises."""


def read_arrays(path: Path) -> Arrays:
    """Read all arrays of an .npz.

    Raises: OSError; ValueError that says why it is none, whatever its readers raise of it.
    """
    if not path.is_file():
        raise ValueError("it is no regular file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise ValueError(str(error) or type(error).__name__) from error
    if others := [name for name, held in arrays.items() if not isinstance(held, np.ndarray)]:
        raise ValueError(f"'{others[0]}' in it is no array")
    return arrays


def digest(*parts: object) -> str:
    """sha256 of values, in a form that does not depend on the order of keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arrays_digest(arrays: Arrays) -> str:
    """sha256 of named arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        total.update(array.tobytes())
    return total.hexdigest()


Screen = Callable[[str], AbstractContextManager[Progress]]
"""Shows the progress of what has this title."""


@contextmanager
def nobody_looks(title: str) -> Iterator[Progress]:
    """A screen that shows nothing."""
    yield Silent()


class Silent:
    """Progress that nobody sees."""

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Show nothing."""


@runtime_checkable
class OfSeveralParts(Protocol):
    """A step's result whose parts, read back from files, may not belong together."""

    @property
    def is_consistent(self) -> bool:
        """Whether they do."""
        ...


@runtime_checkable
class WithFiles(Protocol):
    """A step's result that stands for files in the run folder."""

    @property
    def files(self) -> Mapping[str, str]:
        """Their sha256 by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a step works, none of which its result depends on: the run folder, the screen, and a file for what it has so far."""

    folder: Path
    screen: Screen
    partial: Path


class Run:
    """A folder that remembers its steps. `step` returns the kept result when every part of its key is equal.

    What is kept is trusted as long as it is, byte for byte, what was written: its key holds the hashes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fresh: frozenset[str] = frozenset(),
        tell: Callable[[str], None] = lambda _: None,
        screen: Screen = nobody_looks,
    ) -> None:
        self.folder = folder
        self.fresh = fresh
        self.screen = screen
        self.seconds: dict[str, float] = {}
        self.decisions: dict[str, str] = {}
        self._tell = tell
        self._steps = folder / "steps"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that two builds do not write into one."""
        try:
            self._steps.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another build is writing into {self.folder}", remedy="wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write into {self.folder}: {error.strerror}", remedy="choose another --out"
            ) from None
        try:
            for folder in (self.folder, self._steps):
                remove_parts(folder)
            yield
        finally:
            lock.release()

    def step(
        self, name: str, result: type[Record], key: Key, compute: Callable[[Workspace], Record], variant: str = ""
    ) -> Record:
        """The step's kept result, or a newly computed one, kept. variant: of a step that is computed for several builds in one folder.

        Where the result stands for files (`WithFiles`) and one is lost or changed, it is computed again. A long step may keep what it has
        so far in the workspace's `partial`, which is of this key alone and gone once the step is done.
        """
        fresh, name = name in self.fresh, name + variant
        reason = "a fresh one was asked for" if fresh else self._why_compute(name, key)
        if not reason:
            kept = self._load(name, result)
            reason = "its kept result cannot be read" if kept is None else self._lost(self.folder, _files_of(kept))
            if kept is not None and not reason:
                self.decisions[name] = "kept"
                self.seconds[name] = self._note(name)["seconds"]
                self._tell(f"{name}: kept from the earlier run (same inputs)")
                return kept
        self.decisions[name] = f"computed: {reason}"
        self._tell(f"{name}: computing, because {reason}")
        began = time.monotonic()
        partial = self._steps / f"{name}.{digest(key)[:12]}.partial.npz"
        record = compute(Workspace(folder=self.folder, screen=self.screen, partial=partial))
        self.seconds[name] = time.monotonic() - began
        self._keep(name, key, record)
        return record

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file of the result, atomically."""
        path = self.folder / name
        write_atomically(path, content)
        return path

    @staticmethod
    def _lost(folder: Path, files: Mapping[str, str]) -> str:
        """Which of a step's files is not what the step wrote; empty where all are."""
        places = {name: folder / name for name in files}
        lost = [name for name, path in places.items() if not path.is_file() or file_digest(path) != files[name]]
        return f"{_listed(lost)} {'is' if len(lost) == 1 else 'are'} missing or changed" if lost else ""

    def _why_compute(self, name: str, key: Key) -> str:
        note = self._note(name)
        if not note:
            return "there is no earlier result"
        kept = note["key"]
        wanted = json.loads(json.dumps(key, default=str))
        changed = [*dict.fromkeys(_changed(kept, wanted))]
        return f"{_listed(changed)} changed" if changed else self._lost(self._steps, note["files"])

    def _note(self, name: str) -> dict[str, Any]:
        try:
            note = read_json(self._steps / f"{name}.key.json")
            whole = isinstance(note, dict) and all(isinstance(note.get(part), dict) for part in ("key", "files"))
            return note if whole and "seconds" in note and note.get("schema") == SCHEMA else {}
        except (OSError, ValueError):
            return {}

    def _load(self, name: str, result: type[Record]) -> Record | None:
        try:
            text = (self._steps / f"{name}.json").read_text(encoding="utf-8")
            record = TypeAdapter(result).validate_json(text)
            if array_fields(record):
                arrays = read_arrays(self._steps / f"{name}.npz")
                record = dataclasses.replace(cast(Any, record), **{array_fields(record)[0]: arrays})
            return None if isinstance(record, OfSeveralParts) and not record.is_consistent else record
        except (*UNREADABLE, ValidationError):
            return None

    def _keep(self, name: str, key: Key, record: object) -> None:
        (self._steps / f"{name}.key.json").unlink(missing_ok=True)  # the key vouches for the rest: last in, first out
        for array_field in array_fields(record):
            write_arrays(self._steps / f"{name}.npz", getattr(record, array_field))
        write_atomically(self._steps / f"{name}.json", json.dumps({"schema": SCHEMA, **as_document(record)}, indent=1))
        written = [self._steps / f"{name}.json"] + [self._steps / f"{name}.npz" for _ in array_fields(record)]
        hashes = {file.name: file_digest(file) for file in written}
        note = {"schema": SCHEMA, "key": key, "seconds": self.seconds[name], "files": hashes}
        write_atomically(self._steps / f"{name}.key.json", json.dumps(note, indent=1, default=str))
        for left in self._steps.glob(f"{name}.*partial.npz"):
            left.unlink(missing_ok=True)


def _files_of(record: object) -> Mapping[str, str]:
    return record.files if isinstance(record, WithFiles) else {}


def _changed(before: Key, after: Key) -> Iterator[str]:
    """The names of what differs, the innermost ones."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(old, new)
        elif old != new:
            yield name


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
