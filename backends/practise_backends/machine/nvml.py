"""An NVIDIA GPU's clocks, temperature and power during a measurement, and what throttles it, from NVML."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

from practise_backends.errors import DeviceUnavailable
from practise_backends.machine.driver import first_gpu
from practise_backends.machine.readings import Range

# NVML's bits of the reasons why a GPU's clock is held down; idle, application clocks, SLI boost and
# display clocks (0x1, 0x2, 0x10, 0x100) are settings.
# Source: nvml.h, nvmlClocksEventReasons.
_THROTTLES = {0x20: "thermal", 0x40: "thermal", 0x80: "power brake"}
_UNEXPLAINED, _POWER_CAP = 0x8, 0x4

# What is read of a GPU: NVML's verb, the constant that it takes, and what its figure is divided by.
_GPU_SENSORS = {
    "sm_mhz": ("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM", 1),
    "memory_mhz": ("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM", 1),
    "temperature_c": ("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU", 1),
    "power_w": ("nvmlDeviceGetPowerUsage", "", 1000),
}


class GpuMonitor:
    """One GPU through NVML (package nvidia-ml-py); read, never set.

    nvml: the module. uuid: the GPU's, as `GPU-...`.
    Raises: DeviceUnavailable where there is no such GPU.
    """

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            weakref.finalize(self, nvml.nvmlShutdown)
            self._device = _device_of(nvml, uuid)
        except nvml.NVMLError as error:
            raise DeviceUnavailable(
                f"NVML finds no GPU: {error}", remedy="see whether nvidia-smi lists the GPU"
            ) from error
        self._ranges = {key: Range() for key in _GPU_SENSORS}
        self._reasons = 0

    def throttled(self) -> list[str]:
        """Why the GPU is throttled now; empty where it is not, or only by a setting."""
        now = self._bits()
        self._reasons |= now
        return _throttles(now)

    def read(self) -> None:
        """Take in the clocks, temperature, power and reasons of now."""
        for key, (verb, constant, divisor) in _GPU_SENSORS.items():
            chosen = [getattr(self._nvml, constant)] if constant else []
            reading = self._ask(verb, self._device, *chosen)
            self._ranges[key].add(None if reading is None else reading / divisor)
        self._reasons |= self._bits()

    def readings(self) -> dict[str, str]:
        """The readings by name; a range where the lowest and the highest differ."""
        capped = ["power cap"] if self._reasons & _POWER_CAP else []
        readings = {
            "name": _word(self._ask("nvmlDeviceGetName", self._device)),
            "driver": _word(self._ask("nvmlSystemGetDriverVersion")),
            **{key: _span(span.ends()) for key, span in self._ranges.items()},
            "held_back_by": ", ".join(_throttles(self._reasons) + capped) or "nothing",
            "persistence": {0: "off", 1: "on"}.get(self._ask("nvmlDeviceGetPersistenceMode", self._device)),
        }
        return {key: value for key, value in readings.items() if value}

    def _bits(self) -> int:
        """The reasons for the clock now; 0 where this GPU does not tell."""
        verbs = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        answers = (self._ask(verb, self._device) for verb in verbs)  # the second: before driver 535
        return next((int(bits) for bits in answers if bits is not None), 0)

    def _ask(self, verb: str, *arguments: Any) -> Any:
        """An answer of NVML; None where this GPU, driver or package does not have it."""
        try:
            return getattr(self._nvml, verb)(*arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None


def monitor_gpu() -> GpuMonitor | str:
    """The GPU that CUDA takes first, or why it cannot be watched.

    NVML counts GPUs in the order of the bus and knows no CUDA_VISIBLE_DEVICES; so the driver is asked which it is.
    """
    try:
        return GpuMonitor(importlib.import_module("pynvml"), first_gpu().uuid)
    except ImportError:
        return "not watched: nvidia-ml-py is not installed"
    except DeviceUnavailable as error:
        return error.message


def _device_of(nvml: Any, uuid: str) -> Any:
    """NVML's word for a GPU of the driver's; on a Jetson NVML writes the UUID without its prefix.

    Raises: DeviceUnavailable.
    """
    devices = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
    if len(devices) == 1:
        return devices[0]
    for device in devices:
        if _digits(_word(nvml.nvmlDeviceGetUUID(device))) == _digits(uuid):
            return device
    raise DeviceUnavailable(
        f"NVML lists {len(devices)} GPUs, and {uuid} is none of them",
        remedy="compare with what nvidia-smi -L lists, and with CUDA_VISIBLE_DEVICES",
    )


def _digits(uuid: str) -> str:
    return uuid.rpartition("GPU-")[2].lower()


def _throttles(bits: int) -> list[str]:
    """The reasons by name; the one that explains nothing only where it stands alone."""
    named = list(dict.fromkeys(name for bit, name in _THROTTLES.items() if bits & bit))
    return named or (["hardware slowdown"] if bits & _UNEXPLAINED else [])


def _word(text: Any) -> str:
    """A name as NVML gives it: bytes in old versions."""
    return text.decode() if isinstance(text, bytes) else str(text or "")


def _span(ends: tuple[float, float] | None) -> str:
    """A range in figures; empty without one."""
    if ends is None:
        return ""
    low, high = (f"{end:.0f}" for end in ends)
    return low if low == high else f"{low} to {high}"
