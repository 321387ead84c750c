"""How much memory is free: of the machine, and within the limits of the control groups around this process.

A container sees the memory of the whole machine in /proc/meminfo; one that takes more than its limit is killed
without a word. Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from practise_backends.machine.device import first_line, memory_gib, text_of

_GIB = 2**30
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory(root: Path = Path("/")) -> int | None:
    """Free memory in bytes; None where the platform does not tell."""
    machine = memory_gib(root, "memavailable")
    if machine is None:
        return None
    return min([int(machine * _GIB), *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group around this process leaves; version 2, then version 1."""
    lines = [line.split(":", 2) for line in text_of(root / "proc/self/cgroup").splitlines()]
    paths = {names: path for _, names, path in (line for line in lines if len(line) == 3)}
    old = next((path for names, path in paths.items() if "memory" in names.split(",")), "/")
    tree = root / "sys/fs/cgroup"
    for base, path, names in ((tree, paths.get("", "/"), _V2), (tree / "memory", old, _V1)):
        innermost = base / path.strip("/")
        for group in (innermost, *innermost.parents[: len(innermost.relative_to(base).parts)], base):
            if (left := _left(group, *names)) is not None:
                yield left


def _left(group: Path, limit: str, used: str, cached: str) -> int | None:
    """The limit less what is used; cached files give way, and do not count as used."""
    most, now = first_line(group / limit), first_line(group / used)
    if not (most.isdigit() and now.isdigit()):
        return None
    entries = dict(line.split(" ", 1) for line in text_of(group / "memory.stat").splitlines() if " " in line)
    reclaimable = entries.get(cached, "0")
    return max(0, int(most) - int(now) + (int(reclaimable) if reclaimable.isdigit() else 0))
