"""The device's properties, and the fingerprint of those that determine latency."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from practise_backends.terms import Device

_DETERMINING = (
    "cpu",
    "logical_cores",
    "affinity_cores",
    "cgroup_quota_cores",
    "governor",
    "os",
    "architecture",
)
_CPUS = "sys/devices/system/cpu"


def describe_cpu(versions: Mapping[str, str], *, root: Path = Path("/")) -> Device:
    """The CPU as it is now; properties that this platform does not report are left out.

    The fingerprint covers the model, cores, affinity, quota, governor, system, architecture and
    `versions`, never the load. root: where `proc` and `sys` are looked for.
    """
    readings = {
        "cpu": _cpu_model(root),
        "logical_cores": str(os.cpu_count() or ""),
        "affinity_cores": _affinity(),
        "cgroup_quota_cores": _quota(root),
        "governor": first_line(root / _CPUS / "cpu0/cpufreq/scaling_governor"),
        "os": platform.system(),
        "architecture": platform.machine(),
        "os_release": platform.release(),
        "python": platform.python_version(),
        "memory_gib": _memory(root),
        "load_average": _load(),
        "steal_percent_since_boot": _steal(root),
        "threads_per_core": _threads_per_core(root),
        "frequency_limits_mhz": _frequency_limits(root),
        "boost": _boost(root),
        "hypervisor": _hypervisor(root),
        "transparent_huge_pages": _huge_pages(root),
    }
    properties = {key: reading for key, reading in readings.items() if reading}
    return Device(
        name=properties.get("cpu", "unknown CPU"),
        fingerprint=_fingerprint(properties, versions),
        versions=dict(versions),
        facts=properties,
    )


def _fingerprint(properties: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """sha256 over what determines latency."""
    determining = {key: properties[key] for key in _DETERMINING if key in properties}
    content = json.dumps([determining, dict(versions)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def text_of(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def first_line(path: Path) -> str:
    """A file's first line; empty where it cannot be read."""
    return text_of(path).partition("\n")[0].strip()


def entry_of(text: str, key: str) -> str:
    """The value of the first `key: value` line."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip()
    return ""


def _cpu_model(root: Path) -> str:
    """The CPU's name (x86 has `model name`, some ARM boards `model` or `hardware`)."""
    text = text_of(root / "proc/cpuinfo")
    names = (entry_of(text, key) for key in ("model name", "hardware", "model"))
    board = text_of(root / "proc/device-tree/model").strip("\0\n ")
    return next((name for name in names if name), board or platform.processor() or platform.machine())


def _affinity() -> str:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return str(len(os.sched_getaffinity(0)))
    return ""


def _quota(root: Path) -> str:
    """The cores that the control group grants (version 2, then version 1); empty without a limit."""
    group = text_of(root / "proc/self/cgroup").rpartition("0::")[2].partition("\n")[0].strip("/ ")
    base = root / "sys/fs/cgroup"
    for folder in dict.fromkeys((base / group, base)):
        words = first_line(folder / "cpu.max").split()
        if len(words) == 2:
            return _cores(words[0], words[1])
    old = base / "cpu"
    return _cores(first_line(old / "cpu.cfs_quota_us"), first_line(old / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> str:
    """A quota in cores; `max`, -1 and absent mean no limit."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return f"{int(quota) / int(period):.2f}"
    return ""


def _memory(root: Path) -> str:
    """The memory of the machine, in GiB."""
    total = memory_gib(root, "memtotal")
    return "" if total is None else f"{total:.1f}"


def memory_gib(root: Path, key: str) -> float | None:
    """A line of /proc/meminfo, in GiB; None where it is missing."""
    words = entry_of(text_of(root / "proc/meminfo"), key).split()
    return int(words[0]) / 2**20 if words and words[0].isdigit() else None


def _load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    try:
        return " ".join(f"{load:.2f}" for load in os.getloadavg())
    except (AttributeError, OSError):
        return ""


def _steal(root: Path) -> str:
    """The share of time that a hypervisor gave to others since boot, in percent."""
    steal, total = cpu_ticks(root)
    return f"{100 * steal / total:.2f}" if total else ""


def cpu_ticks(root: Path) -> tuple[int, int]:
    """The ticks since boot that a hypervisor gave to others, and all; 0 and 0 where they are not told."""
    words = first_line(root / "proc/stat").split()[1:9]
    ticks = [int(word) for word in words if word.isdigit()]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)


def _threads_per_core(root: Path) -> str:
    """How many logical processors share the first core."""
    topology = root / _CPUS / "cpu0/topology"
    names = ("core_cpus_list", "thread_siblings_list")  # the second is the name before Linux 5.3
    listed = next((line for name in names if (line := first_line(topology / name))), "")
    return str(_count_listed(listed) or "")


def _count_listed(listed: str) -> int:
    """How many numbers a list like `0-3,8` names; 0 where it does not read so."""
    count = 0
    for part in listed.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not (first.isdigit() and last.isdigit()):
            return 0
        count += int(last) - int(first) + 1
    return count


def _frequency_limits(root: Path) -> str:
    """The lowest and highest clock that the first core is allowed, in MHz."""
    folder = root / _CPUS / "cpu0/cpufreq"
    limits = [first_line(folder / f"scaling_{end}_freq") for end in ("min", "max")]
    return " to ".join(str(int(khz) // 1000) for khz in limits) if all(map(str.isdigit, limits)) else ""


def _boost(root: Path) -> str:
    """Whether the clock may rise above its nominal rate, for as long as heat and power allow."""
    allowed = first_line(root / _CPUS / "cpufreq/boost")
    forbidden = first_line(root / _CPUS / "intel_pstate/no_turbo")
    return {"1": "on", "0": "off"}.get(allowed) or {"0": "on", "1": "off"}.get(forbidden, "")


def _hypervisor(root: Path) -> str:
    """Whether this is a virtual machine, and of which kind where the system says so."""
    kind = first_line(root / "sys/hypervisor/type")
    flags = entry_of(text_of(root / "proc/cpuinfo"), "flags").split()
    return kind or ("yes" if "hypervisor" in flags else "no" if flags else "")


def _huge_pages(root: Path) -> str:
    """The policy of transparent huge pages in force: the word in brackets."""
    _, _, rest = first_line(root / "sys/kernel/mm/transparent_hugepage/enabled").partition("[")
    return rest.partition("]")[0]


def quota_files(root: Path) -> list[Path]:
    """The cpu.stat of this process's control group, and of every group around it that has a limit.

    Version 2 first, then version 1; the root group where the innermost one is not mounted, as in a container.
    """
    lines = [line.split(":", 2) for line in text_of(root / "proc/self/cgroup").splitlines()]
    paths = {names: path for _, names, path in (line for line in lines if len(line) == 3)}
    old = next((path for names, path in paths.items() if "cpu" in names.split(",")), "/")
    tree = root / "sys/fs/cgroup"
    for base, path, limit in (
        (tree, paths.get("", "/"), "cpu.max"),
        (tree / "unified", paths.get("", "/"), "cpu.max"),
        (tree / "cpu", old, "cpu.cfs_quota_us"),
    ):
        if files := _limited_groups(base, path.strip("/"), limit):
            return files
    return []


def _limited_groups(base: Path, path: str, limit: str) -> list[Path]:
    """The innermost group's cpu.stat, if it counts stops at all, and those of the limited groups around it."""
    innermost = base / path
    around = innermost.parents[: len(Path(path).parts)]
    groups = [innermost, *(group for group in around if first_line(group / limit)[:1].isdigit())]
    files = [group / "cpu.stat" for group in groups if "nr_throttled" in text_of(group / "cpu.stat")]
    return files if files or not path else _limited_groups(base, "", limit)


def heat_files(root: Path) -> list[Path]:
    """Every processor's count of how often heat stopped it."""
    return sorted((root / _CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))


def stops_so_far(files: Iterable[Path]) -> int:
    """The stops that quota_files or heat_files count up to now."""
    figures = (text_of(file).encode() for file in files)
    return sum(throttled_periods(text) if b" " in text else int(text.strip() or 0) for text in figures)


def throttled_periods(content: bytes) -> int:
    """The periods in which a quota stopped the group."""
    return int((content.partition(b"nr_throttled ")[2].split() or [b"0"])[0])


def clock_files(root: Path) -> list[Path]:
    """Where the clocks of the processors stand that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    files = (root / _CPUS / f"cpu{at}/cpufreq/scaling_cur_freq" for at in sorted(os.sched_getaffinity(0)))
    return [file for file in files if file.exists()]
