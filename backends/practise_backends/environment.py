"""What the machine does beside a measurement, read from Linux's /proc and /sys and from NVML.

Two kinds of readings: counters of stops, a few microseconds each, at every call; clocks and temperatures,
which some kernels answer slowly, at most once a second and for at most 1% of the time. Nothing is ever set.
"""

from __future__ import annotations

import importlib
import os
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practise_backends.device import (
    clock_files,
    cpu_ticks,
    first_line,
    heat_files,
    quota_files,
    throttled_periods,
)
from practise_backends.errors import DeviceUnavailable
from practise_backends.terms import Environment

_SLOWLY_S = 1.0
_SLOWLY_SHARE = 0.01
_MOST_BYTES = 4096
_BELIEVABLE_C = (1.0, 150.0)

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


class SystemWatch:
    """The system's own counters and sensors, from the moment of construction on.

    A reading that the platform does not offer is None; without any, `trouble` stays silent.
    root: where `proc` and `sys` are looked for. gpu: watch the GPU that CUDA would take first, too.
    """

    def __init__(
        self, *, root: Path = Path("/"), gpu: bool = False, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._now_s, self._started_s = root, now_s, now_s()
        self._quota = _Counter(quota_files(root), throttled_periods)
        self._heat = _Counter(heat_files(root), int)
        self._gpu = _open_gpu() if gpu else None
        self._load, self._ticks = _load(root), cpu_ticks(root)
        self._clock_files = clock_files(root)
        self._sensors = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
        self._clock_mhz, self._temperature_c = _Range(), _Range()
        self._next_slow_s = 0.0
        self._read_slowly()

    def trouble(self) -> str:
        """Why the rounds since the last call are not to be trusted; empty where nothing speaks against them.

        A GPU at its power cap is not reported: that is how such a device works under load.
        """
        said = []
        if stops := self._quota.since_last_call():
            said.append(f"the control group's quota stopped this process {_times(stops)}")
        if stops := self._heat.since_last_call():
            said.append(f"the processor throttled for heat {_times(stops)}")
        if isinstance(self._gpu, _Gpu) and (reasons := self._gpu.throttled()):
            said.append(f"the GPU throttled: {', '.join(reasons)}")
        if self._now_s() >= self._next_slow_s:
            self._read_slowly()
        return "; ".join(said)

    def environment(self) -> Environment:
        """The readings since the watch began."""
        self._read_slowly()
        load = _load(self._root)
        return Environment(
            seconds=self._now_s() - self._started_s,
            load=None if self._load is None or load is None else (self._load, load),
            steal_percent=self._steal_percent(),
            quota_stops=self._quota.since_start(),
            heat_stops=self._heat.since_start(),
            clock_mhz=self._clock_mhz.ends(),
            temperature_c=self._temperature_c.ends(),
            gpu=self._gpu.said() if isinstance(self._gpu, _Gpu) else _reason_alone(self._gpu),
        )

    def _steal_percent(self) -> float | None:
        """The share of the time since the start that went to other machines; None before the first tick."""
        before, now = self._ticks, cpu_ticks(self._root)
        total = now[1] - before[1]
        return 100 * (now[0] - before[0]) / total if before[1] and total > 0 else None

    def _read_slowly(self) -> None:
        """Read clocks and temperatures, and fix when that may be done again."""
        began_s = self._now_s()
        for file in self._clock_files:
            self._clock_mhz.add(_scaled(file))
        self._temperature_c.add(_hottest(self._sensors))
        if isinstance(self._gpu, _Gpu):
            self._gpu.read()
        now_s = self._now_s()
        self._next_slow_s = now_s + max(_SLOWLY_S, (now_s - began_s) / _SLOWLY_SHARE)


class _Counter:
    """The sum of a figure over files that are kept open; None where there is no such file."""

    def __init__(self, files: Iterable[Path], figure: Callable[[bytes], int]) -> None:
        self._figure = figure
        self._figures = {found: 0 for file in files if (found := _opened(file)) is not None}
        for descriptor in self._figures:
            weakref.finalize(self, os.close, descriptor)
        self._first = self._last = self._total()

    def since_start(self) -> int | None:
        """The increase since construction."""
        return max(0, self._total() - self._first) if self._figures else None

    def since_last_call(self) -> int:
        """The increase since the last call, or since construction."""
        before, self._last = self._last, self._total()
        return max(0, self._last - before)

    def _total(self) -> int:
        """The sum now; a file that cannot be read keeps its last figure."""
        for descriptor in self._figures:
            with suppress(OSError, ValueError):
                self._figures[descriptor] = self._figure(os.pread(descriptor, _MOST_BYTES, 0))
        return sum(self._figures.values())


@dataclass(slots=True)
class _Range:
    """The lowest and highest reading."""

    low: float | None = None
    high: float | None = None

    def add(self, reading: float | None) -> None:
        """Take a reading in; None is no reading."""
        if reading is not None:
            self.low = reading if self.low is None else min(self.low, reading)
            self.high = reading if self.high is None else max(self.high, reading)

    def ends(self) -> tuple[float, float] | None:
        """Both ends; None without a reading."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def _opened(file: Path) -> int | None:
    """A descriptor of a file; None where it cannot be opened."""
    try:
        return os.open(file, os.O_RDONLY)
    except OSError:
        return None


def _times(count: int) -> str:
    """A count in words."""
    return "once" if count == 1 else f"{count} times"


def _load(root: Path) -> float | None:
    """The load average of the last minute."""
    try:
        return float(first_line(root / "proc/loadavg").split()[0])
    except (IndexError, ValueError):
        return None


def _scaled(file: Path) -> float | None:
    """A file's number in thousandths; None where there is none."""
    try:
        return int(first_line(file)) / 1000
    except ValueError:
        return None


def _hottest(sensors: Iterable[Path]) -> float | None:
    """The highest temperature in degrees Celsius; what no running machine has is left out."""
    low, high = _BELIEVABLE_C
    found = [each for each in map(_scaled, sensors) if each is not None and low < each < high]
    return max(found, default=None)


def _reason_alone(reason: str | None) -> dict[str, str]:
    """What is said of a GPU that is not watched."""
    return {"gpu": reason} if reason else {}


class _Gpu:
    """One GPU through NVML (package nvidia-ml-py); read, never set.

    Raises: DeviceUnavailable where there is no such GPU.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            weakref.finalize(self, nvml.nvmlShutdown)
            self._device = _first_visible(nvml, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        except nvml.NVMLError as error:
            raise DeviceUnavailable(f"NVML finds no GPU: {error}") from error
        self._ranges = {key: _Range() for key in _GPU_SENSORS}
        self._reasons = 0

    def throttled(self) -> list[str]:
        """Why the GPU is held below its clock now; empty where it is not, or only by a setting."""
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

    def said(self) -> dict[str, str]:
        """The readings by name; a range where the lowest and the highest differ."""
        capped = ["power cap"] if self._reasons & _POWER_CAP else []
        found = {
            "name": _word(self._ask("nvmlDeviceGetName", self._device)),
            "driver": _word(self._ask("nvmlSystemGetDriverVersion")),
            **{key: _span(found.ends()) for key, found in self._ranges.items()},
            "held_back_by": ", ".join(_throttles(self._reasons) + capped) or "nothing",
            "persistence": {0: "off", 1: "on"}.get(self._ask("nvmlDeviceGetPersistenceMode", self._device)),
        }
        return {key: value for key, value in found.items() if value}

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


def _open_gpu() -> _Gpu | str:
    """The GPU, or why it cannot be watched."""
    try:
        return _Gpu(importlib.import_module("pynvml"))
    except ImportError:
        return "not watched: nvidia-ml-py is not installed"
    except DeviceUnavailable as error:
        return error.message


def _first_visible(nvml: Any, visible: str) -> Any:
    """NVML's word for the GPU that CUDA takes first; NVML itself does not heed CUDA_VISIBLE_DEVICES."""
    first = visible.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def _throttles(bits: int) -> list[str]:
    """The reasons by name; the one that explains nothing only where it stands alone."""
    named = list(dict.fromkeys(name for bit, name in _THROTTLES.items() if bits & bit))
    return named or (["hardware slowdown"] if bits & _UNEXPLAINED else [])


def _word(found: Any) -> str:
    """A name as NVML gives it: bytes in old versions."""
    return found.decode() if isinstance(found, bytes) else str(found or "")


def _span(ends: tuple[float, float] | None) -> str:
    """A range in figures; empty without one."""
    if ends is None:
        return ""
    low, high = (f"{end:.0f}" for end in ends)
    return low if low == high else f"{low} to {high}"
