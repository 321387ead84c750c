"""The monitor beside a measurement, on made-up /proc and /sys trees."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from practise_backends.interfaces import Monitor
from practise_backends.machine.environment import SystemMonitor
from practise_backends.terms import Environment

GROUP = "sys/fs/cgroup/shop/till/cpu.stat"
HEAT = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
ZONE = "sys/class/thermal/thermal_zone{}/temp"
FILES = {
    "proc/loadavg": "0.50 0.40 0.30 1/90 77\n",
    "proc/stat": "cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 1\n",
    "proc/self/cgroup": "0::/shop/till\n",
    GROUP: "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 8\n",
    HEAT.format(0): "1\n",
    HEAT.format(1): "2\n",
    ZONE.format(0): "45000\n",
    ZONE.format(1): "52500\n",
}


class Time:
    """A clock that only moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_quiet_machine_gives_no_trouble(tmp_path: Path) -> None:
    monitor: Monitor = SystemMonitor(root=write(tmp_path, FILES))
    assert [monitor.trouble() for _ in range(3)] == ["", "", ""]


def test_stops_by_the_quota_are_told_once_and_counted_to_the_end(tmp_path: Path) -> None:
    monitor = SystemMonitor(root=write(tmp_path, FILES))
    write(tmp_path, {GROUP: "nr_throttled 7\n"})
    assert monitor.trouble() == "the control group's quota stopped this process 3 times"
    assert monitor.trouble() == ""
    write(tmp_path, {GROUP: "nr_throttled 8\n"})
    assert monitor.environment().quota_stops == 4
    assert monitor.trouble() == "the control group's quota stopped this process once"


def test_heat_stops_are_summed_over_the_processors(tmp_path: Path) -> None:
    monitor = SystemMonitor(root=write(tmp_path, FILES))
    write(tmp_path, {HEAT.format(0): "2\n", HEAT.format(1): "3\n", GROUP: "nr_throttled 5\n"})
    both = "the control group's quota stopped this process once; the processor throttled for heat 2 times"
    assert monitor.trouble() == both
    assert monitor.environment().heat_stops == 2


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/elsewhere\n", "sys/fs/cgroup/cpu.stat"),
        ("0::/\n1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.stat"),
        ("0::/\n3:cpu,cpuacct:/box\n", "sys/fs/cgroup/cpu/box/cpu.stat"),
        ("3:cpuacct:/\n2:cpu:/hidden/box\n", "sys/fs/cgroup/cpu/cpu.stat"),
        ("0::/unit\n1:cpuset:/\n", "sys/fs/cgroup/unified/unit/cpu.stat"),
        ("", "sys/fs/cgroup/cpu.stat"),
    ],
)
def test_the_own_control_group_is_found_in_both_versions(tmp_path: Path, cgroup: str, file: str) -> None:
    monitor = SystemMonitor(root=write(tmp_path, {"proc/self/cgroup": cgroup, file: "nr_throttled 0\n"}))
    write(tmp_path, {file: "nr_periods 4\nnr_throttled 2\n"})
    assert monitor.environment().quota_stops == 2


def test_the_quota_of_a_group_around_counts_too(tmp_path: Path) -> None:
    around = {"sys/fs/cgroup/shop/cpu.stat": "nr_throttled 1\n", "sys/fs/cgroup/shop/cpu.max": "50000 100000\n"}
    monitor = SystemMonitor(root=write(tmp_path, {**FILES, **around}))
    write(tmp_path, {"sys/fs/cgroup/shop/cpu.stat": "nr_throttled 6\n"})
    assert monitor.trouble() == "the control group's quota stopped this process 5 times"


def test_a_counter_that_cannot_be_read_for_a_while_is_no_trouble(tmp_path: Path) -> None:
    monitor = SystemMonitor(root=write(tmp_path, FILES))
    write(tmp_path, {HEAT.format(1): "torn"})
    assert monitor.trouble() == ""
    write(tmp_path, {HEAT.format(1): "2\n"})
    assert monitor.trouble() == ""


def test_load_and_steal_cover_the_time_of_the_watch(tmp_path: Path) -> None:
    time = Time()
    monitor = SystemMonitor(root=write(tmp_path, FILES), now_s=time)
    busy = {"proc/loadavg": "2.00 1 1 1/90 78\n", "proc/stat": "cpu  160 0 100 720 0 0 0 120 0 0\n"}
    write(tmp_path, busy)
    time.now += 30
    found = monitor.environment()
    assert (found.seconds, found.load, found.steal_percent) == (30, (0.5, 2.0), 20.0)


def test_temperature_is_the_hottest_believable_sensor_at_its_lowest_and_highest(tmp_path: Path) -> None:
    time = Time()
    absurd = {ZONE.format(2): "-274000\n", ZONE.format(3): "999000\n", ZONE.format(4): "hot\n"}
    monitor = SystemMonitor(root=write(tmp_path, {**FILES, **absurd}), now_s=time)
    write(tmp_path, {ZONE.format(1): "61000\n"})
    assert monitor.environment().temperature_c == (52.5, 61.0)


def test_clocks_are_read_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    file, time = "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq", Time()
    monitor = SystemMonitor(root=write(tmp_path, {file: "2000000\n"}), now_s=time)
    for seconds, khz in ((0.25, 900_000), (0.5, 3_500_000), (0.3, 2_400_000)):
        write(tmp_path, {file: f"{khz}\n"})
        time.now += seconds
        monitor.trouble()
    assert monitor.environment().clock_mhz == (2000.0, 2400.0)


def test_slow_sensors_are_read_less_often(tmp_path: Path) -> None:
    class Slow(Time):
        """Every look at the clock takes two seconds."""

        def __call__(self) -> float:
            self.now += 2.0
            return self.now

    time = Slow()
    monitor = SystemMonitor(root=write(tmp_path, FILES), now_s=time)
    write(tmp_path, {ZONE.format(1): "70000\n"})
    for _ in range(50):  # a hundred seconds, while a reading of two is allowed every two hundred
        monitor.trouble()
    write(tmp_path, {ZONE.format(1): "52500\n"})
    assert monitor.environment().temperature_c == (52.5, 52.5)


def test_another_platform_tells_nothing(tmp_path: Path) -> None:
    monitor = SystemMonitor(root=tmp_path, now_s=Time())
    assert monitor.trouble() == ""
    assert monitor.environment() == Environment(seconds=0.0)


def test_files_are_closed_with_the_watch(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("open files are only listed on Linux")
    root = write(tmp_path, FILES)

    def open_here() -> list[str]:
        return [path for path in map(resolved, Path("/proc/self/fd").iterdir()) if path.startswith(str(root))]

    monitor = SystemMonitor(root=root)
    assert len(open_here()) == 3
    del monitor
    gc.collect()
    assert open_here() == []


def resolved(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_this_machine_can_be_watched() -> None:
    monitor = SystemMonitor(gpu=True)
    assert isinstance(monitor.trouble(), str)
    found = monitor.environment()
    assert found.seconds >= 0
    assert all(value and isinstance(value, str) for value in found.gpu.values())
    for pair in (found.load, found.clock_mhz, found.temperature_c):
        assert pair is None or all(isinstance(end, float) for end in pair)
    for count in (found.quota_stops, found.heat_stops):
        assert count is None or isinstance(count, int)
    if sys.platform == "linux":
        assert found.load is not None
