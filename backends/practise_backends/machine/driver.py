"""The NVIDIA driver, asked through ctypes before any library touches it.

Without a driver the lean runtime of TensorRT 11 crashes the process, and TensorRT for RTX answers None: so it
is asked first. Source: the CUDA driver API (cuda.h); its functions keep their meaning over all versions.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practise_backends.errors import DeviceUnavailable

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NO_DEVICE, _NO_PERMISSION = 100, 800
_ERRORS = {
    3: "CUDA_ERROR_NOT_INITIALIZED",
    34: "CUDA_ERROR_STUB_LIBRARY",
    35: "CUDA_ERROR_INSUFFICIENT_DRIVER",
    46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
    100: "CUDA_ERROR_NO_DEVICE",
    101: "CUDA_ERROR_INVALID_DEVICE",
    800: "CUDA_ERROR_NOT_PERMITTED",
    802: "CUDA_ERROR_SYSTEM_NOT_READY",
    803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    999: "CUDA_ERROR_UNKNOWN",
}
_REMEDIES = {
    34: "libcuda.so.1 is the stub that serves linking alone: let LD_LIBRARY_PATH find the driver's own",
    802: "start the fabric manager: sudo systemctl start nvidia-fabricmanager",
    803: "the kernel module and libcuda.so.1 are of different versions: reboot after the driver's update",
    804: "remove the cuda-compat package, which this GPU does not take",
    999: "reload the driver (sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm), or reboot",
}
_DRIVER = (
    "install NVIDIA's driver and check it with nvidia-smi; a container needs --gpus all (docker) or "
    "--runtime nvidia (Jetson)"
)

Load = Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPU that CUDA takes first. cuda: the version that the driver serves; capability: as `sm86`."""

    name: str
    capability: str
    memory_mib: int
    uuid: str
    cuda: tuple[int, int]


def first_gpu(load: Load = ctypes.CDLL) -> Gpu:
    """The GPU at hand.

    load: opens a shared library by its name.
    Raises: DeviceUnavailable where there is no driver, no GPU, or none that can be used.
    """
    library = _library(load)
    _check(library.cuInit(0), "cuInit")
    count = ctypes.c_int()
    _check(library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value < 1:
        raise _refusal(_NO_DEVICE, "cuDeviceGetCount")
    device = ctypes.c_int()
    _check(library.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    version = _integer(library.cuDriverGetVersion, "cuDriverGetVersion")
    return Gpu(
        name=_name(library, device),
        capability=f"sm{_attribute(library, device, _MAJOR)}{_attribute(library, device, _MINOR)}",
        memory_mib=_memory(library, device) // 2**20,
        uuid=_uuid(library, device),
        cuda=(version // 1000, version % 1000 // 10),
    )


def _library(load: Load) -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return load(name)
    except OSError as error:
        hint = " (an NVIDIA device is there: its driver is only half installed)" if _device_files() else ""
        raise DeviceUnavailable(
            f"there is no NVIDIA driver: {name} cannot be loaded{hint}: {error}", remedy=_DRIVER
        ) from error


def _device_files() -> bool:
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists()


def _check(code: int, verb: str) -> None:
    if code != 0:
        raise _refusal(code, verb)


def _refusal(code: int, verb: str) -> DeviceUnavailable:
    reason = _ERRORS.get(code, f"error {code}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if code == _NO_DEVICE and visible is not None:
        return DeviceUnavailable(
            f"the NVIDIA driver shows no GPU ({verb}: {reason}), and CUDA_VISIBLE_DEVICES is {visible!r}",
            remedy="unset CUDA_VISIBLE_DEVICES, or let it name a GPU that nvidia-smi -L lists",
        )
    if code == _NO_PERMISSION:
        reason += "; the device files are not open to this user"
    return DeviceUnavailable(
        f"the NVIDIA driver is there, but no GPU can be used ({verb}: {reason})",
        remedy=_REMEDIES.get(code, _DRIVER),
    )


def _integer(verb: Callable[..., int], name: str) -> int:
    number = ctypes.c_int()
    _check(verb(ctypes.byref(number)), name)
    return number.value


def _attribute(library: Any, device: ctypes.c_int, which: int) -> int:
    return _integer(lambda at: library.cuDeviceGetAttribute(at, which, device), "cuDeviceGetAttribute")


def _name(library: Any, device: ctypes.c_int) -> str:
    text = ctypes.create_string_buffer(128)
    _check(library.cuDeviceGetName(text, len(text), device), "cuDeviceGetName")
    return text.value.decode(errors="replace")


def _memory(library: Any, device: ctypes.c_int) -> int:
    size = ctypes.c_size_t()
    _check(library.cuDeviceTotalMem_v2(ctypes.byref(size), device), "cuDeviceTotalMem")
    return size.value


def _uuid(library: Any, device: ctypes.c_int) -> str:
    raw = (ctypes.c_ubyte * 16)()
    _check(library.cuDeviceGetUuid(ctypes.byref(raw), device), "cuDeviceGetUuid")
    text = bytes(raw).hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
