"""The driver, asked before any library touches it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.scripted_driver import ScriptedLibrary
from practise_backends.errors import DeviceUnavailable
from practise_backends.machine.driver import Gpu, first_gpu


def absent(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_gpu_is_described_by_its_driver() -> None:
    assert first_gpu(ScriptedLibrary().load) == Gpu(
        name="NVIDIA GeForce RTX 4060",
        capability="sm89",
        memory_mib=8192,
        uuid="GPU-00010203-0405-0607-0809-0a0b0c0d0e0f",
        cuda=(13, 1),
    )


def test_missing_driver_names_the_library_and_the_ways_to_get_one() -> None:
    with pytest.raises(DeviceUnavailable, match=r"no NVIDIA driver: libcuda\.so\.1") as found:
        first_gpu(absent)
    assert found.value.exit_code == 3
    assert "nvidia-smi" in found.value.remedy and "--gpus all" in found.value.remedy


@pytest.mark.parametrize(
    ("codes", "said", "remedy"),
    [
        ({"cuInit": 100}, "CUDA_ERROR_NO_DEVICE", "nvidia-smi"),
        ({"cuInit": 803}, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "reboot"),
        ({"cuInit": 802}, "CUDA_ERROR_SYSTEM_NOT_READY", "fabricmanager"),
        ({"cuInit": 34}, "CUDA_ERROR_STUB_LIBRARY", "LD_LIBRARY_PATH"),
        ({"cuInit": 777}, "error 777", "driver"),
        ({"cuDeviceTotalMem_v2": 999}, "cuDeviceTotalMem: CUDA_ERROR_UNKNOWN", "nvidia_uvm"),
    ],
)
def test_every_refusal_of_the_driver_has_its_name_and_remedy(
    codes: dict[str, int], said: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(DeviceUnavailable, match=said) as found:
        first_gpu(ScriptedLibrary(**codes).load)
    assert remedy in found.value.remedy


def test_hidden_gpus_are_told_from_absent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceUnavailable, match="CUDA_VISIBLE_DEVICES is ''") as found:
        first_gpu(ScriptedLibrary(count=0).load)
    assert "unset CUDA_VISIBLE_DEVICES" in found.value.remedy
