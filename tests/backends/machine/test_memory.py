"""Free memory, as the machine and the control groups around the process say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from practise_backends.machine.memory import available_memory

MIB = 2**20
FREE = 2048 * MIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 2 GiB free, and a process in a group of its own."""
    put(tmp_path / "proc/meminfo", f"MemTotal: 8388608 kB\nMemAvailable: {FREE // 1024} kB\nBuffers: 1 kB\n")
    put(tmp_path / "proc/self/cgroup", "5:cpu,memory:/a/b\n0::/a/b\n")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit(group: Path, most: str, used: int, cached: int = 0, *, version: int = 2) -> None:
    names = (
        ("max", "current", "inactive_file")
        if version == 2
        else ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")
    )
    put(group / f"memory.{names[0]}", f"{most}\n")
    put(group / f"memory.{names[1]}", f"{used}\n")
    put(group / "memory.stat", f"anon 1\n{names[2]} {cached}\n")


def test_without_a_limit_it_is_the_machines(root: Path) -> None:
    limit(root / "sys/fs/cgroup/a/b", "max", 5 * MIB)
    assert available_memory(root) == FREE


def test_own_group_limits_it_and_cached_files_give_way(root: Path) -> None:
    limit(root / "sys/fs/cgroup/a/b", str(512 * MIB), 400 * MIB, 100 * MIB)
    assert available_memory(root) == 212 * MIB


def test_group_around_limits_it_too(root: Path) -> None:
    limit(root / "sys/fs/cgroup/a/b", str(512 * MIB), 100 * MIB)
    limit(root / "sys/fs/cgroup/a", str(300 * MIB), 280 * MIB)
    assert available_memory(root) == 20 * MIB


def test_in_a_container_the_groups_root_is_its_own(root: Path) -> None:
    limit(root / "sys/fs/cgroup", str(512 * MIB), 100 * MIB)
    assert available_memory(root) == 412 * MIB


def test_version_1_limits_it_too(root: Path) -> None:
    limit(root / "sys/fs/cgroup/memory/a/b", str(512 * MIB), 400 * MIB, 100 * MIB, version=1)
    assert available_memory(root) == 212 * MIB


def test_more_used_than_allowed_leaves_nothing(root: Path) -> None:
    limit(root / "sys/fs/cgroup", str(100 * MIB), 120 * MIB)
    assert available_memory(root) == 0


def test_platform_that_does_not_tell_is_none(root: Path) -> None:
    (root / "proc/meminfo").write_text("MemTotal: 8000 kB\n")
    assert available_memory(root) is None
    assert available_memory(root / "nowhere") is None
