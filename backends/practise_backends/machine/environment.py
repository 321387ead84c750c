"""Load, throttling and sensors of the machine during a measurement, read from Linux's /proc and /sys and from NVML.

Two kinds of readings: counters of stops, a few microseconds each, at every call; clocks and temperatures,
which some kernels answer slowly, at most once a second and for at most 1% of the time. Nothing is ever set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from practise_backends.machine.device import (
    clock_files,
    cpu_ticks,
    first_line,
    heat_files,
    quota_files,
    throttled_periods,
)
from practise_backends.machine.nvml import GpuMonitor, monitor_gpu
from practise_backends.machine.readings import Counter, Range
from practise_backends.terms import Environment

_SLOWLY_S = 1.0
_SLOWLY_SHARE = 0.01
_BELIEVABLE_C = (1.0, 150.0)


class SystemMonitor:
    """The system's own counters and sensors, from the moment of construction on.

    A reading that the platform does not offer is None; without any, `trouble` stays silent.
    root: where `proc` and `sys` are looked for. gpu: monitor the GPU that CUDA would take first, too.
    """

    def __init__(
        self, *, root: Path = Path("/"), gpu: bool = False, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._now_s, self._started_s = root, now_s, now_s()
        self._quota = Counter(quota_files(root), throttled_periods)
        self._heat = Counter(heat_files(root), int)
        self._gpu = monitor_gpu() if gpu else None
        self._load, self._ticks = _load(root), cpu_ticks(root)
        self._clock_files = clock_files(root)
        self._sensors = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
        self._clock_mhz, self._temperature_c = Range(), Range()
        self._next_slow_s = 0.0
        self._read_slowly()

    def trouble(self) -> str:
        """Why the rounds since the last call are not to be trusted; empty where nothing speaks against them.

        A GPU at its power cap is not reported: that is how such a device works under load.
        """
        troubles = []
        if stops := self._quota.since_last_call():
            troubles.append(f"the control group's quota stopped this process {_times(stops)}")
        if stops := self._heat.since_last_call():
            troubles.append(f"the processor throttled for heat {_times(stops)}")
        if isinstance(self._gpu, GpuMonitor) and (reasons := self._gpu.throttled()):
            troubles.append(f"the GPU throttled: {', '.join(reasons)}")
        if self._now_s() >= self._next_slow_s:
            self._read_slowly()
        return "; ".join(troubles)

    def environment(self) -> Environment:
        """The readings since the monitor began."""
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
            gpu=self._gpu.readings() if isinstance(self._gpu, GpuMonitor) else _unmonitored(self._gpu),
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
        if isinstance(self._gpu, GpuMonitor):
            self._gpu.read()
        now_s = self._now_s()
        self._next_slow_s = now_s + max(_SLOWLY_S, (now_s - began_s) / _SLOWLY_SHARE)


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
    temperatures = [
        celsius for celsius in map(_scaled, sensors) if celsius is not None and low < celsius < high
    ]
    return max(temperatures, default=None)


def _unmonitored(reason: str | None) -> dict[str, str]:
    """Why a GPU is not monitored."""
    return {"gpu": reason} if reason else {}
