"""TensorRT's timing caches on disk: what the builder measured of its kernels, for the next build.

A cache holds for one kind of GPU, one driver and one version of TensorRT, which its name tells. Builds of one number
share a cache, so that networks that differ in a block differ in that block alone; builds of another number begin without
what those measured, so that how much builds differ can be seen.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from practise_backends.tensorrt.driver import Gpu


@dataclass(slots=True)
class TimingCaches:
    """The caches of one GPU and one TensorRT. folder: None keeps them for this process alone."""

    folder: Path | None
    gpu: Gpu
    version: str
    _kept: dict[int, bytes]

    @classmethod
    def of(cls, folder: Path | None, gpu: Gpu, version: str) -> TimingCaches:
        """Those in a folder."""
        return cls(folder, gpu, version, {})

    def read(self, build: int) -> bytes:
        """What was measured for builds of that number; empty at first."""
        if build not in self._kept and self.folder is not None:
            with suppress(OSError):
                self._kept[build] = self._file(self.folder, build).read_bytes()
        return self._kept.get(build, b"")

    def write(self, build: int, content: bytes) -> None:
        """Keep it; a folder that cannot be written costs time alone."""
        self._kept[build] = content
        if self.folder is None:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            number, temporary = tempfile.mkstemp(dir=self.folder, prefix=".timings.")
            with os.fdopen(number, "wb") as file:
                file.write(content)
            os.replace(temporary, self._file(self.folder, build))

    def _file(self, folder: Path, build: int) -> Path:
        cuda = ".".join(str(part) for part in self.gpu.cuda)
        told = "\n".join((self.gpu.name, self.gpu.capability, cuda, self.version))
        return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}-{build}.timings"
