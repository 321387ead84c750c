"""TensorRT's timing caches on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from practise_backends.errors import PlaceUnwritable
from practise_backends.machine.driver import Gpu
from practise_backends.runtimes.tensorrt.timing_cache import TimingCaches

GPU = Gpu(name="GPU", capability="sm86", memory_mib=8192, uuid="GPU-0", cuda=(12, 8))


def caches(folder: Path | None, gpu: Gpu = GPU, version: str = "tensorrt 10.3") -> TimingCaches:
    return TimingCaches(folder=folder, gpu=gpu, version=version)


def test_timings_are_kept_by_gpu_driver_version_and_build(tmp_path: Path) -> None:
    caches(tmp_path / "new").write(1, b"timed")
    folder = tmp_path / "new"
    assert caches(folder).read(1) == b"timed"
    assert caches(folder).read(0) == b""
    assert caches(folder, version="tensorrt 11.4").read(1) == b""
    for other in (replace(GPU, name="other"), replace(GPU, capability="sm89"), replace(GPU, cuda=(13, 0))):
        assert caches(folder, other).read(1) == b""
    assert len(list(folder.iterdir())) == 1


def test_without_a_folder_they_live_as_long_as_the_process() -> None:
    found = caches(None)
    found.write(0, b"timed")
    assert (found.read(0), caches(None).read(0)) == (b"timed", b"")


def test_place_that_cannot_be_written_is_refused_before_a_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PlaceUnwritable, match="cannot be written") as found:
        caches(tmp_path / "file")
    assert found.value.exit_code == 3 and "--timing-cache" in found.value.remedy
