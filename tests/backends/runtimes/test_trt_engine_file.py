"""An engine as a file: its manifest vouches for it, and says where it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backends.scripted_driver import ScriptedLibrary
from practise_backends.errors import CompileError, DeviceUnavailable
from practise_backends.machine.driver import first_gpu
from practise_backends.runtimes.tensorrt.engine_file import (
    EngineArtifact,
    check_fits,
    manifest_of,
    read_engine,
    write_engine,
)
from practise_backends.runtimes.tensorrt.fused import FusedLayer
from practise_backends.terms import TensorSpec

LAYER = FusedLayer(name="conv_1 + relu", kind="conv", inputs=("Half",), outputs=("Half",), nodes=("conv_1", "relu"))
ENGINE = EngineArtifact(
    content=b"an engine",
    sha256="5f" * 32,
    format="tensorrt",
    precision="fp16",
    precision_share=0.5,
    inputs=(TensorSpec(name="input", shape=(-1, 3, 8, 8), dtype="float16"),),
    outputs=(TensorSpec(name="logits", shape=(-1, 10), dtype="float16"),),
    device_fingerprint="a1",
    others={"fc": "Float"},
    notes=("a warning",),
    layers=(LAYER,),
    targets=("sm86", "sm89"),
    provider="tensorrt_rtx 1.7.1",
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    write_engine(ENGINE, path)
    return path


def test_engine_comes_back_as_it_was_written_its_content_in_its_file(written: Path) -> None:
    assert read_engine(written) == replace(ENGINE, content=written)
    assert {file.name for file in written.parent.iterdir()} == {"model.engine", "model.engine.json"}


def test_manifest_keeps_the_fused_layers_with_their_onnx_nodes(written: Path) -> None:
    told = json.loads(manifest_of(written).read_text())
    assert told["layers"][0]["nodes"] == ["conv_1", "relu"]
    assert (told["precision_share"], told["others"], told["targets"]) == (0.5, {"fc": "Float"}, ["sm86", "sm89"])


def test_engine_that_was_changed_is_refused(written: Path) -> None:
    written.write_bytes(b"another engine")
    with pytest.raises(CompileError, match="not the engine that") as found:
        read_engine(written)
    assert "build it again" in found.value.remedy


DEEP = '{"layers":' * 60_000 + "1" + "}" * 60_000


@pytest.mark.parametrize("told", ["", "{", "[]", '{"schema": 99}', DEEP, '{"schema": NaN}'])
def test_damaged_manifest_is_refused(written: Path, told: str) -> None:
    manifest_of(written).write_text(told)
    with pytest.raises(CompileError, match=r"model\.engine\.json"):
        read_engine(written)


def test_manifest_that_lacks_a_part_is_refused(written: Path) -> None:
    told = json.loads(manifest_of(written).read_text())
    del told["inputs"]
    manifest_of(written).write_text(json.dumps(told))
    with pytest.raises(CompileError, match="damaged: 'inputs'"):
        read_engine(written)


@pytest.mark.parametrize(
    ("name", "value"),
    [("inputs", [{"name": "x", "shape": ["wide"], "dtype": "float32"}]), ("others", ["a"]), ("layers", [None])],
)
def test_manifest_of_other_values_is_refused(written: Path, name: str, value: object) -> None:
    told = json.loads(manifest_of(written).read_text())
    manifest_of(written).write_text(json.dumps({**told, name: value}))
    with pytest.raises(CompileError, match=r"model\.engine\.json is damaged"):
        read_engine(written)


def test_engine_without_its_manifest_is_refused(written: Path) -> None:
    manifest_of(written).unlink()
    with pytest.raises(CompileError, match="no manifest"):
        read_engine(written)


def fits(
    artifact: EngineArtifact = ENGINE, provider: str = "tensorrt_rtx 1.7.1", name: str = "A", minor: int = 9
) -> None:
    """On a GPU as its driver describes it."""
    gpu = first_gpu(ScriptedLibrary(minor=minor).load)
    check_fits(artifact, provider=provider, gpu=replace(gpu, name=name))


def test_engine_runs_on_what_it_was_built_for_alone() -> None:
    fits()
    with pytest.raises(DeviceUnavailable, match=r"was built with tensorrt_rtx 1\.7\.1, here is tensorrt 10\.3"):
        fits(provider="tensorrt 10.3")
    with pytest.raises(DeviceUnavailable, match="sm86, sm89; B is sm87") as found:
        fits(name="B", minor=7)
    assert "--target-archs sm87" in found.value.remedy
    here = replace(ENGINE, targets=(), gpu="A")
    fits(here)
    with pytest.raises(DeviceUnavailable, match="was built on A, here is B"):
        fits(here, name="B")
