"""The device's facts, and the fingerprint of those that determine latency."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
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


def describe_cpu(versions: Mapping[str, str], *, root: Path = Path("/")) -> Device:
    """The CPU as it is now; facts that this platform does not tell are left out.

    The fingerprint covers the model, cores, affinity, quota, governor, system, architecture and
    `versions`, never the load. root: where `proc` and `sys` are looked for.
    """
    found = {
        "cpu": _cpu_model(root),
        "logical_cores": str(os.cpu_count() or ""),
        "affinity_cores": _affinity(),
        "cgroup_quota_cores": _quota(root),
        "governor": _first_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "os": platform.system(),
        "architecture": platform.machine(),
        "os_release": platform.release(),
        "python": platform.python_version(),
        "memory_gib": _memory(root),
        "load_average": _load(),
        "steal_percent_since_boot": _steal(root),
    }
    facts = {key: fact for key, fact in found.items() if fact}
    return Device(
        name=facts.get("cpu", "unknown CPU"),
        fingerprint=_fingerprint(facts, versions),
        versions=dict(versions),
        facts=facts,
    )


def _fingerprint(facts: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """sha256 over what determines latency."""
    said = {key: facts[key] for key in _DETERMINING if key in facts}
    content = json.dumps([said, dict(versions)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _text(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    """A file's first line; empty where it cannot be read."""
    return _text(path).partition("\n")[0].strip()


def _entry(text: str, key: str) -> str:
    """The value of the first `key: value` line."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip()
    return ""


def _cpu_model(root: Path) -> str:
    """The CPU's name (x86 has `model name`, some ARM boards `model` or `hardware`)."""
    text = _text(root / "proc/cpuinfo")
    names = (_entry(text, key) for key in ("model name", "hardware", "model"))
    board = _text(root / "proc/device-tree/model").strip("\0\n ")
    return next((name for name in names if name), board or platform.processor() or platform.machine())


def _affinity() -> str:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return str(len(os.sched_getaffinity(0)))
    return ""


def _quota(root: Path) -> str:
    """The cores that the control group grants (version 2, then version 1); empty without a limit."""
    own = _text(root / "proc/self/cgroup").rpartition("0::")[2].partition("\n")[0].strip("/ ")
    base = root / "sys/fs/cgroup"
    for folder in dict.fromkeys((base / own, base)):
        words = _first_line(folder / "cpu.max").split()
        if len(words) == 2:
            return _cores(words[0], words[1])
    old = base / "cpu"
    return _cores(_first_line(old / "cpu.cfs_quota_us"), _first_line(old / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> str:
    """A quota in cores; `max`, -1 and absent mean no limit."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return f"{int(quota) / int(period):.2f}"
    return ""


def _memory(root: Path) -> str:
    """The memory of the machine, in GiB."""
    words = _entry(_text(root / "proc/meminfo"), "memtotal").split()
    return f"{int(words[0]) / 2**20:.1f}" if words and words[0].isdigit() else ""


def _load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    try:
        return " ".join(f"{load:.2f}" for load in os.getloadavg())
    except (AttributeError, OSError):
        return ""


def _steal(root: Path) -> str:
    """The share of time that a hypervisor gave to others since boot, in percent."""
    words = _first_line(root / "proc/stat").split()[1:9]
    ticks: list[int] = [int(word) for word in words if word.isdigit()]
    total = sum(ticks)
    return f"{100 * ticks[7] / total:.2f}" if len(ticks) == 8 and total else ""
