"""Units on disk: one JSON each, written whole; claimed by a lock while they are computed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from practise_deploy.run import write_atomically

from .grid import MET_AT, SCHEMA, SCORES, Unit

Record = dict[str, Any]


class Shelf:
    """A folder of units. locks: a folder of its own, so that the results hold results alone."""

    def __init__(self, folder: Path, locks: Path) -> None:
        self.folder = folder
        self.locks = locks

    def path(self, unit: Unit) -> Path:
        """Where a unit's JSON is, or will be."""
        return self.folder / f"{unit.name}.json"

    def read(self, unit: Unit) -> Record | None:
        """A unit that is done under the rules of today; None where it is missing."""
        try:
            found = json.loads(self.path(unit).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        same = found["schema"] == SCHEMA and found["unit"] == unit.record()
        return found if same and (unit.method == SCORES or found["budget_met_at"] == MET_AT) else None

    def done(self, unit: Unit) -> bool:
        """Whether nothing is left to compute."""
        return self.read(unit) is not None

    def write(self, unit: Unit, record: Record) -> None:
        """Keep a unit, atomically."""
        write_atomically(self.path(unit), json.dumps(record, indent=1, allow_nan=False) + "\n")

    @contextmanager
    def claimed(self, unit: Unit, *, wait: bool = False) -> Iterator[bool]:
        """Hold a unit; gives whether it is now this process's to compute: neither done nor another's.

        wait: for the process that holds it. A lock ends with its process, so none is left behind by a crash.
        """
        path = self.locks / f"{unit.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield not self.done(unit)
        finally:
            lock.release()

    def get(self, unit: Unit, compute: Callable[[Unit], Record], *, wait: bool = False) -> Record | None:
        """The kept unit, or a newly computed one, kept; None where another process is at it and none is to wait."""
        kept = self.read(unit)
        if kept is not None:
            return kept
        with self.claimed(unit, wait=wait) as mine:
            if mine:
                self.write(unit, compute(unit))
        return self.read(unit)


def packed(correct: npt.NDArray[np.bool_]) -> str:
    """One bit an image, as text."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpacked(bits: str, count: int) -> npt.NDArray[np.bool_]:
    """What `packed` packed."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8), count=count).astype(bool)
