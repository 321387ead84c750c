"""The doctor, on made-up machines; the self-test is scripted, except where its network is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from practise_backends.errors import BackendMissing, DeviceUnavailable, MeasureError
from practise_backends.interfaces import Backend, Progress
from practise_backends.results import doctor
from practise_backends.results.checks import Finding
from practise_backends.results.doctor import Checkup, SelfTest, examine, exit_code, render
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Device, Interval

CPU0 = "sys/devices/system/cpu/cpu0"
QUIET = {
    "proc/loadavg": "0.10 0.10 0.10 1/90 77\n",
    "proc/stat": "cpu  100 0 100 799 0 0 0 1 0 0\n",
    "proc/cpuinfo": "model name\t: Sample CPU\nflags\t: fpu\n",
    "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    f"{CPU0}/cpufreq/scaling_governor": "performance\n",
}


class Sample:
    """A backend that is there."""

    name = "ort"

    def device(self) -> Device:
        return Device(name="Sample CPU", fingerprint="f", versions={"onnxruntime": "1.0"}, facts={})


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight processors, with one backend, without NVML, and no test unless it is scripted."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    offer(monkeypatch, {"ort": Sample()})
    script(monkeypatch, MeasureError("no test was scripted", remedy="script one"))


def offer(monkeypatch: pytest.MonkeyPatch, found: dict[str, Sample | OrtBackend | Exception]) -> None:
    """Let the catalog hold these backends; an exception is what loading one raises."""

    def load(name: str) -> Backend:
        backend = found.get(name, BackendMissing(f"there is no backend '{name}'", remedy="use another"))
        if isinstance(backend, Exception):
            raise backend
        return backend  # type: ignore[return-value]  # the doctor asks for the device alone

    monkeypatch.setattr(doctor, "available_backends", lambda: tuple(found))
    monkeypatch.setattr(doctor, "load_backend", load)


def script(monkeypatch: pytest.MonkeyPatch, outcome: SelfTest | Exception) -> None:
    """Let the self-test end like this."""

    def test(backend_name: str, seconds: float, progress: Progress | None = None) -> SelfTest:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(doctor, "self_test", test)


def look(root: Path, files: dict[str, str] | None = None, asked: str | None = None) -> dict[str, Finding]:
    """The findings of a quiet machine with these files besides, by subject."""
    for name, text in {**QUIET, **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = examine(asked, root=root, variables={}, test_s=0)
    return {finding.subject: finding for finding in found.findings}


def outcome(estimate: float, low: float, high: float, visible_percent: float) -> SelfTest:
    ratio = Interval(estimate=estimate, low=low, high=high, confidence=0.95)
    return SelfTest(ratio=ratio, visible_percent=visible_percent, rounds=300, seconds=6.2)


def test_a_quiet_machine_has_nothing_to_change(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert {finding.level for finding in found.values()} == {"good"}
    assert not any(finding.remedy for finding in found.values())


@pytest.mark.parametrize(
    ("files", "subject", "level", "said", "remedy"),
    [
        (
            {f"{CPU0}/cpufreq/scaling_governor": "powersave\n"},
            "governor",
            "bad",
            "'powersave'",
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
        (
            {"sys/devices/system/cpu/cpufreq/boost": "1\n"},
            "boost",
            "note",
            "on",
            "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
        ),
        (
            {"sys/devices/system/cpu/intel_pstate/no_turbo": "0\n"},
            "boost",
            "note",
            "on",
            "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo",
        ),
        ({f"{CPU0}/thermal_throttle/core_throttle_count": "7\n"}, "heat", "note", "7 time(s)", "cpupower"),
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, "quota", "note", "4 of 8", "--cpus 8"),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, "quota", "bad", "0.5 of 8", "--cpus 8"),
        ({"sys/fs/cgroup/cpu.stat": "nr_throttled 12\n"}, "quota", "note", "12 time(s)", "--cpus 8"),
        ({"proc/loadavg": "4.50 1 1 1/90 77\n"}, "load", "bad", "4.50 on 8", "less than 4"),
        ({"proc/stat": "cpu  100 0 100 770 0 0 0 30 0 0\n"}, "steal", "bad", "3.0%", "another time"),
        ({f"{CPU0}/topology/core_cpus_list": "0,4\n"}, "cores", "note", "2 threads", "echo off | sudo tee"),
        ({"proc/cpuinfo": "flags : fpu hypervisor\n"}, "machine", "note", "virtual", "target device"),
        ({"proc/meminfo": "SwapTotal: 4194304 kB\nSwapFree: 2097152 kB\n"}, "swap", "note", "2.00", "swapoff"),
        ({"proc/meminfo": "MemAvailable: 524288 kB\n"}, "memory", "bad", "0.5 GiB", "close"),
        (
            {"sys/kernel/mm/transparent_hugepage/enabled": "[always] never\n"},
            "huge pages",
            "good",
            "always",
            "",
        ),
    ],
)
def test_what_disturbs_is_found_with_what_to_change(
    tmp_path: Path, files: dict[str, str], subject: str, level: str, said: str, remedy: str
) -> None:
    finding = look(tmp_path, files)[subject]
    assert finding.level == level
    assert said in finding.said
    assert remedy in finding.remedy
    assert bool(remedy) == bool(finding.remedy)


def test_a_process_that_may_not_use_every_processor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2}, raising=False)
    finding = look(tmp_path)["affinity"]
    assert (finding.level, finding.said) == ("note", "this process may use 2 of 8 processors")


def test_variables_that_change_how_networks_run_are_named(tmp_path: Path) -> None:
    variables = {"OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "HOME": "there", "ORT_LOG": "2"}
    found = examine(None, root=tmp_path, variables=variables, test_s=0)
    finding = next(each for each in found.findings if each.subject == "variables")
    assert finding.said == "KMP_BLOCKTIME=0, OMP_NUM_THREADS=1, ORT_LOG=2"
    assert finding.remedy.startswith("unset KMP_BLOCKTIME OMP_NUM_THREADS ORT_LOG")


def test_packages_are_named_without_importing_torch(tmp_path: Path) -> None:
    said = look(tmp_path)["packages"].said
    assert f"numpy {np.__version__}" in said
    assert f"onnx {onnx.__version__}" in said
    assert "not installed: " in said


def test_every_backend_is_looked_at_and_only_the_asked_one_must_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = BackendMissing("backend 'trt' needs tensorrt", remedy="pip install tensorrt")
    offer(monkeypatch, {"ort": Sample(), "trt": missing, "strange": OSError("libstrange.so is torn")})
    found = look(tmp_path, asked="ort")
    assert found["backend ort"].level == "good"
    assert "Sample CPU (onnxruntime 1.0)" in found["backend ort"].said
    assert found["backend trt"] == Finding(
        subject="backend trt", level="note", said=missing.message, remedy=missing.remedy
    )
    assert found["backend strange"].said == "OSError: libstrange.so is torn"
    assert look(tmp_path, asked="trt")["backend trt"].level == "bad"


@pytest.mark.parametrize(("asked", "code"), [(None, 0), ("ort", 0), ("trt", 3), ("unheard of", 3), ("", 3)])
def test_exit_code_follows_the_backend_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, code: int
) -> None:
    offer(monkeypatch, {"ort": Sample(), "trt": DeviceUnavailable("there is no GPU", remedy="plug one in")})
    assert exit_code(examine(asked, root=tmp_path, variables={}, test_s=0)) == code


def test_without_any_backend_the_exit_code_is_3_and_no_test_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, {"ort": BackendMissing("backend 'ort' needs onnxruntime", remedy="pip install it")})
    found = examine(None, root=tmp_path, variables={})
    assert exit_code(found) == 3
    assert found.self_test is None
    subjects = [finding.subject for finding in found.findings]
    assert "backends" in subjects
    assert "self-test" not in subjects


@pytest.mark.parametrize(
    ("test", "level", "said"),
    [
        (
            outcome(1.0004, 0.998, 1.003, 0.3),
            "good",
            "two equal networks measured 1.0004 [0.998, 1.003] apart: "
            "differences above 0.3% can be seen here in 6 seconds",
        ),
        (outcome(1.0, 0.97, 1.03, 3.0), "note", "differences above 3.0% can be seen"),
        (outcome(1.0, 0.92, 1.08, 8.01), "bad", "differences above 8.1% can be seen"),
        (outcome(1.01, 1.004, 1.016, 1.6), "note", "chance alone tells them apart, as here, once in 20 runs"),
        (MeasureError("the clock stands still", remedy="check it"), "bad", "the clock stands still"),
    ],
)
def test_the_last_finding_is_what_can_be_told_apart_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: SelfTest | Exception, level: str, said: str
) -> None:
    script(monkeypatch, test)
    found = examine("ort", root=tmp_path, variables={})
    last = found.findings[-1]
    assert (last.subject, last.level) == ("self-test", level)
    assert said in last.said
    assert found.self_test is (test if isinstance(test, SelfTest) else None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the monitor says of a GPU; a test may change it."""
    said = {"name": "Sample GPU", "driver": "570.1", "held_back_by": "nothing", "persistence": "on"}

    class Watched:
        def readings(self) -> dict[str, str]:
            return said

        def read(self) -> None:
            pass

    monkeypatch.setattr("practise_backends.machine.environment.GpuMonitor", Watched)
    monkeypatch.setattr("practise_backends.machine.environment.monitor_gpu", Watched)
    yield said


@pytest.mark.parametrize(("held", "level"), [("nothing", "good"), ("power cap", "note"), ("thermal, power cap", "bad")])
def test_a_gpu_that_is_held_back_is_told(tmp_path: Path, gpu: dict[str, str], held: str, level: str) -> None:
    gpu["held_back_by"] = held
    finding = look(tmp_path)["gpu"]
    assert finding.level == level
    assert held in finding.said


def test_a_gpu_without_persistence_mode_is_told_how_to_turn_it_on(tmp_path: Path, gpu: dict[str, str]) -> None:
    gpu["persistence"] = "off"
    assert look(tmp_path)["gpu"].remedy == "sudo nvidia-smi --persistence-mode=1"


def test_no_nvml_matters_to_a_gpu_backend_alone(tmp_path: Path) -> None:
    assert "gpu" not in look(tmp_path, asked="ort")
    assert look(tmp_path, asked="trt")["gpu"].remedy == "pip install nvidia-ml-py"


def test_the_checkup_reads_as_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, outcome(1.0004, 0.998, 1.003, 0.3))
    look(tmp_path, {f"{CPU0}/cpufreq/scaling_governor": "powersave\n"})
    text = render(examine("ort", root=tmp_path, variables={}))
    assert text.startswith("Sample CPU, 8 processor(s)\n")
    assert "bad   governor: 'powersave': the clock follows the load\n      -> echo performance" in text
    assert text.endswith("in 6 seconds\n")


def test_this_machine_can_be_examined() -> None:
    found = examine(None, test_s=0)
    assert isinstance(found, Checkup)
    assert all(finding.said and finding.level in ("good", "note", "bad") for finding in found.findings)
    assert exit_code(found) == 0
