"""The device's facts and fingerprint; cold start."""

from __future__ import annotations

from pathlib import Path

import pytest

from practise_backends.errors import MeasureError
from practise_backends.machine.device import describe_cpu
from practise_backends.results.footprint import cold_start, file_mb
from practise_backends.terms import Conditions

FILES = {
    "proc/cpuinfo": "processor : 0\nmodel name\t: Sample CPU @ 2 GHz\n",
    "proc/meminfo": "MemTotal:        8388608 kB\n",
    "proc/stat": "cpu  10 0 10 70 0 0 0 10 0 0\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_facts_are_read_from_the_system(tmp_path: Path) -> None:
    found = describe_cpu({"runtime": "1"}, root=write(tmp_path, FILES))
    assert found.name == "Sample CPU @ 2 GHz"
    told = {key: found.facts[key] for key in ("cgroup_quota_cores", "governor", "memory_gib")}
    assert told == {"cgroup_quota_cores": "1.50", "governor": "performance", "memory_gib": "8.0"}
    assert found.facts["steal_percent_since_boot"] == "10.00"


def test_absent_facts_are_left_out(tmp_path: Path) -> None:
    found = describe_cpu({}, root=tmp_path)
    assert found.name
    assert all(found.facts.values())
    assert not {"governor", "cgroup_quota_cores", "memory_gib"} & set(found.facts)


@pytest.mark.parametrize("text", ["max 100000\n", "nonsense", ""])
def test_no_quota_is_no_fact(tmp_path: Path, text: str) -> None:
    found = describe_cpu({}, root=write(tmp_path, {"sys/fs/cgroup/cpu.max": text}))
    assert "cgroup_quota_cores" not in found.facts


def test_quota_of_the_first_version_of_control_groups(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert describe_cpu({}, root=write(tmp_path, files)).facts["cgroup_quota_cores"] == "2.00"


def test_fingerprint_follows_what_determines_latency_and_not_the_load(tmp_path: Path) -> None:
    first = describe_cpu({"runtime": "1"}, root=write(tmp_path, FILES))
    busy = describe_cpu({"runtime": "1"}, root=write(tmp_path, {"proc/stat": "cpu  9 9 9 9 9 9 9 9 9 9\n"}))
    assert busy.facts != first.facts
    assert busy.fingerprint == first.fingerprint
    assert describe_cpu({"runtime": "2"}, root=tmp_path).fingerprint != first.fingerprint
    slower = write(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert describe_cpu({"runtime": "1"}, root=slower).fingerprint != first.fingerprint


CLOCK = {
    "sys/devices/system/cpu/cpu0/topology/core_cpus_list": "0,64\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3500000\n",
    "sys/devices/system/cpu/cpufreq/boost": "1\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "proc/cpuinfo": "model name\t: Sample CPU @ 2 GHz\nflags\t\t: fpu hypervisor avx2\n",
}


def test_facts_of_the_clock_and_of_what_shares_the_core_are_recorded(tmp_path: Path) -> None:
    facts = describe_cpu({}, root=write(tmp_path, CLOCK)).facts
    assert {key: facts[key] for key in ("threads_per_core", "frequency_limits_mhz", "boost")} == {
        "threads_per_core": "2",
        "frequency_limits_mhz": "800 to 3500",
        "boost": "on",
    }
    assert (facts["hypervisor"], facts["transparent_huge_pages"]) == ("yes", "madvise")


def test_facts_that_only_tell_why_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    first = describe_cpu({}, root=write(tmp_path, FILES))
    told = describe_cpu({}, root=write(tmp_path, CLOCK))
    assert told.facts != first.facts
    assert told.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "fact", "found"),
    [
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "0\n", "boost", "on"),
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n", "boost", "off"),
        ("sys/devices/system/cpu/cpufreq/boost", "0\n", "boost", "off"),
        ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-3,8\n", "threads_per_core", "5"),
        ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "torn", "threads_per_core", None),
        ("sys/hypervisor/type", "xen\n", "hypervisor", "xen"),
        ("proc/cpuinfo", "flags : fpu sse\n", "hypervisor", "no"),
        ("proc/cpuinfo", "Features : fp asimd\n", "hypervisor", None),
    ],
)
def test_the_same_fact_is_found_where_each_system_keeps_it(
    tmp_path: Path, name: str, text: str, fact: str, found: str | None
) -> None:
    assert describe_cpu({}, root=write(tmp_path, {name: text})).facts.get(fact) == found


def test_cold_start_is_measured_in_fresh_interpreters(network_file: Path) -> None:
    found = cold_start(network_file, Conditions(batch=2), repeats=2)
    assert len(found.load_ms) == len(found.first_run_ms) == 2
    assert min(*found.load_ms, *found.first_run_ms) > 0
    assert found.peak_rss_mb is None or found.peak_rss_mb > 1
    assert found.file_mb == file_mb(network_file) == network_file.stat().st_size / 1e6


def test_cold_start_that_fails_says_why(tmp_path: Path) -> None:
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(b"not a network")
    with pytest.raises(MeasureError, match=r"torn\.onnx"):
        cold_start(torn, Conditions(), repeats=1)
