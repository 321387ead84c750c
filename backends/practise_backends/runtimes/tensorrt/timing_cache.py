"""TensorRT's timing caches on disk: what the builder measured of its kernels, for the next build.

A cache holds for one kind of GPU, one driver and one version of TensorRT, which its name tells. Builds of one number
share a cache, so that networks that differ in a block differ in that block alone; builds of another number begin without
what those measured, so that how much builds differ can be seen.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from practise_backends.errors import PlaceUnwritable
from practise_backends.files import write_file
from practise_backends.machine.driver import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCaches:
    """The caches of one GPU and one TensorRT. folder: None keeps them for this process alone.

    Raises: PlaceUnwritable where there is a folder and it cannot be written, before anything is built.
    """

    folder: Path | None
    gpu: Gpu
    version: str
    kept: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and not _writable(self.folder):
            raise _unwritable(self.folder)

    def read(self, build: int) -> bytes:
        """What was measured for builds of that number; empty at first."""
        file = self._file(build)
        if build not in self.kept and file is not None and file.is_file():
            self.kept[build] = file.read_bytes()
        return self.kept.get(build, b"")

    def write(self, build: int, content: bytes) -> None:
        """Keep it.

        Raises: PlaceUnwritable.
        """
        self.kept[build] = content
        if (file := self._file(build)) is not None:
            try:
                write_file(file, content)
            except OSError as error:
                raise _unwritable(file) from error

    def _file(self, build: int) -> Path | None:
        if self.folder is None:
            return None
        cuda = ".".join(str(part) for part in self.gpu.cuda)
        identity = "\n".join((self.gpu.name, self.gpu.capability, cuda, self.version))
        return self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}-{build}.timings"


def _writable(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder.is_dir() and os.access(folder, os.W_OK)


def _unwritable(place: Path) -> PlaceUnwritable:
    return PlaceUnwritable(
        f"the timing cache {place} cannot be written", remedy="give another --timing-cache, or none"
    )
