"""A scripted libcuda."""

from __future__ import annotations

import ctypes
from typing import Any


class ScriptedLibrary:
    """libcuda.so.1 with one GPU of compute capability 8.`minor`; `codes` are what its functions answer instead of 0."""

    def __init__(self, count: int = 1, minor: int = 9, **codes: int) -> None:
        self._count, self._minor, self._codes = count, minor, codes

    def load(self, name: str) -> ScriptedLibrary:
        """As `ctypes.CDLL` opens a library by its name."""
        return self

    def cuInit(self, flags: int) -> int:
        return self._code("cuInit")

    def cuDeviceGetCount(self, at: Any) -> int:
        return self._put(at, self._count, "cuDeviceGetCount")

    def cuDeviceGet(self, at: Any, ordinal: int) -> int:
        return self._put(at, ordinal, "cuDeviceGet")

    def cuDriverGetVersion(self, at: Any) -> int:
        return self._put(at, 13010, "cuDriverGetVersion")

    def cuDeviceGetAttribute(self, at: Any, which: int, device: Any) -> int:
        return self._put(at, {75: 8, 76: self._minor}[which], "cuDeviceGetAttribute")

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:
        text.value = b"NVIDIA GeForce RTX 4060"
        return self._code("cuDeviceGetName")

    def cuDeviceTotalMem_v2(self, at: Any, device: Any) -> int:
        return self._put(at, 8 * 2**30, "cuDeviceTotalMem_v2")

    def cuDeviceGetUuid(self, at: Any, device: Any) -> int:
        ctypes.memmove(at._obj, bytes(range(16)), 16)
        return self._code("cuDeviceGetUuid")

    def _put(self, at: Any, value: int, verb: str) -> int:
        at._obj.value = value
        return self._code(verb)

    def _code(self, verb: str) -> int:
        return self._codes.get(verb, 0)
