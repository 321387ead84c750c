"""The monitor over a GPU, on a made-up NVML."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from practise_backends.errors import DeviceUnavailable
from practise_backends.machine.driver import Gpu
from practise_backends.machine.environment import SystemMonitor

THERMAL, BRAKE, UNEXPLAINED, CAP, IDLE, APPLICATION = 0x40, 0x80, 0x8, 0x4, 0x1, 0x2
FIRST = Gpu(name="Sample GPU", capability="sm89", memory_mib=8192, uuid="GPU-12ab", cuda=(13, 0))


@pytest.fixture(autouse=True)
def _a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("practise_backends.machine.nvml.first_gpu", lambda: FIRST)


class FakeNvml(ModuleType):
    """The verbs of nvidia-ml-py that read one GPU; any other verb, above all a setting one, is absent."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, devices: int = 1) -> None:
        super().__init__("pynvml")
        self.devices, self.reasons, self.sm_mhz, self.prefix = devices, IDLE, 1410, "GPU-"
        self.shut = 0

    def nvmlInit(self) -> None:
        if not self.devices:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        self.shut += 1

    def nvmlDeviceGetCount(self) -> int:
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetUUID(self, device: str) -> str:
        return f"{self.prefix}{device[-1]}2AB"

    def nvmlDeviceGetName(self, device: str) -> bytes:
        return b"Sample GPU" if device == "gpu 0" else f"Sample {device}".encode()

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlDeviceGetClockInfo(self, device: str, clock: int) -> int:
        return {1: self.sm_mhz, 2: 2619}[clock]

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetPersistenceMode(self, device: str) -> int:
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:
        return self.reasons


def install(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_gpu_readings_are_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    install(monkeypatch, nvml)
    monitor = SystemMonitor(root=tmp_path, gpu=True)
    nvml.sm_mhz = 1980
    assert monitor.environment().gpu == {
        "name": "Sample GPU",
        "driver": "570.1",
        "sm_mhz": "1410 to 1980",
        "memory_mhz": "2619",
        "temperature_c": "41",
        "held_back_by": "nothing",
        "persistence": "off",
    }


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (IDLE | APPLICATION, ""),
        (CAP, ""),
        (THERMAL | 0x20 | UNEXPLAINED, "the GPU throttled: thermal"),
        (THERMAL | BRAKE, "the GPU throttled: thermal, power brake"),
        (UNEXPLAINED, "the GPU throttled: hardware slowdown"),
    ],
)
def test_gpu_throttling_is_trouble_and_its_settings_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: int, said: str
) -> None:
    nvml = FakeNvml()
    install(monkeypatch, nvml)
    monitor = SystemMonitor(root=tmp_path, gpu=True)
    nvml.reasons = reasons
    assert monitor.trouble() == said


def test_passed_throttling_and_the_power_cap_stay_in_the_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml()
    nvml.nvmlDeviceGetCurrentClocksEventReasons = (  # the name since driver 535
        nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    )
    install(monkeypatch, nvml)
    monitor = SystemMonitor(root=tmp_path, gpu=True)
    nvml.reasons = BRAKE | CAP
    monitor.trouble()
    nvml.reasons = IDLE
    assert monitor.environment().gpu["held_back_by"] == "power brake, power cap"


@pytest.mark.parametrize("prefix", ["GPU-", ""])  # a Jetson's has none
def test_the_gpu_that_cuda_takes_first_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    nvml = FakeNvml(devices=3)
    nvml.prefix = prefix
    install(monkeypatch, nvml)
    monitor = SystemMonitor(root=tmp_path, gpu=True)
    assert monitor.environment().gpu["name"] == "Sample gpu 1"
    del monitor
    gc.collect()
    assert nvml.shut == 1


def test_of_several_gpus_none_is_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(devices=3))
    monkeypatch.setattr("practise_backends.machine.nvml.first_gpu", lambda: replace(FIRST, uuid="GPU-92ab"))
    said = SystemMonitor(root=tmp_path, gpu=True).environment().gpu
    assert said == {"gpu": "NVML lists 3 GPUs, and GPU-92ab is none of them"}


def test_a_gpu_that_cannot_be_watched_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert SystemMonitor(root=tmp_path, gpu=True).environment().gpu == {
        "gpu": "not watched: nvidia-ml-py is not installed"
    }
    install(monkeypatch, FakeNvml(devices=0))
    monitor = SystemMonitor(root=tmp_path, gpu=True)
    assert monitor.environment().gpu == {"gpu": "NVML finds no GPU: Driver Not Loaded"}
    assert monitor.trouble() == ""

    def missing() -> Gpu:
        raise DeviceUnavailable("there is no NVIDIA driver", remedy="install it")

    install(monkeypatch, FakeNvml())
    monkeypatch.setattr("practise_backends.machine.nvml.first_gpu", missing)
    assert SystemMonitor(root=tmp_path, gpu=True).environment().gpu == {"gpu": "there is no NVIDIA driver"}
