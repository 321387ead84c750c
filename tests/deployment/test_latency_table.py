"""Latency tables that come from elsewhere: written, read, and refused where they do not belong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.scripted_driver import ScriptedLibrary
from practise_backends.errors import BackendError
from practise_backends.machine.driver import first_gpu
from practise_backends.runtimes.tensorrt.backend import device_of
from practise_backends.terms import LatencyTable
from practise_deploy.deployment.latency_table import TableRequirements, check_table, read_table, write_table
from practise_deploy.errors import InputError
from practise_deploy.run import read_arrays
from samples import plans, releases


def table() -> LatencyTable:
    return replace(
        plans.latency(),
        samples={"rounds_ms": np.arange(6.0).reshape(3, 2), "engines": np.array(["original", "layer1.0"])},
        samples_sha256="ab" * 32,
    )


@pytest.mark.parametrize("changed", [{}, {"twins": (), "sets": (), "additivity": None, "environment": None}])
def test_table_that_was_written_is_read_back(tmp_path: Path, changed: dict[str, Any]):
    written = replace(table(), **changed)
    path, samples = write_table(written, tmp_path / "r34.lat.json")
    assert read_table(path) == replace(written, samples={})
    assert samples == tmp_path / "r34.lat.npz"
    kept = read_arrays(samples)
    assert list(kept) == ["rounds_ms", "engines"]
    assert all(np.array_equal(kept[name], written.samples[name]) for name in kept)


def test_table_is_read_without_its_samples(tmp_path: Path):
    path, samples = write_table(table(), tmp_path / "t.json")
    samples.unlink()
    assert read_table(path).samples_sha256 == "ab" * 32


def test_missing_table_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read the latency table .*none\.json: No such file") as caught:
        read_table(tmp_path / "none.json")
    assert caught.value.remedy == "check the path"


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"7", b"{}", b"\xff\xfe\x00", b"\x93NUMPY"])
def test_file_that_is_no_table_at_all_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.json is no latency table") as caught:
        read_table(path)
    assert caught.value.remedy == "make one with: practise-deploy latency"


@pytest.mark.parametrize(("schema", "said"), [(1, "1"), (99, "99"), ("2", "'2'")])
def test_table_of_another_schema_is_refused(tmp_path: Path, schema: object, said: str):
    path, _ = write_table(table(), tmp_path / "t.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(InputError, match=rf"has schema {said}; this version reads 2") as caught:
        read_table(path)
    assert caught.value.remedy == "measure it again with this version"


def test_other_documents_of_this_program_are_no_tables(tmp_path: Path):
    path = tmp_path / "plan.json"
    path.write_text('{"schema": 2, "dropped": []}')
    with pytest.raises(InputError, match=r"no whole latency table: backend: field required"):
        read_table(path)


def change(path: Path, place: tuple[Any, ...], value: object) -> None:
    """Change one value of a document."""
    document = inner = json.loads(path.read_text())
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("resolution_ms",), "fast", "resolution_ms"),
        (("savings", 0, "saving_ms", "low"), None, r"savings\.0\.saving_ms\.low"),
        (("conditions", "threads"), "many", r"conditions\.threads"),
        (("device",), "a phone", "device"),
    ],
)
def test_damaged_field_is_named(tmp_path: Path, place: tuple[Any, ...], value: object, where: str):
    path, _ = write_table(table(), tmp_path / "t.json")
    change(path, place, value)
    with pytest.raises(InputError, match=f"no whole latency table: {where}: "):
        read_table(path)


DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "it is nested more than 100 levels deep"),
        ('{"schema": 2, "notes": ' + DEEP + "}", "it is nested more than 100 levels deep"),
        ('{"resolution_ms": NaN}', "it holds NaN"),
        ('{"resolution_ms": -Infinity}', "it holds -Infinity"),
        ('{"session_percent": 1e400}', "it holds 1e400"),
        ('{"rounds": 1' + "0" * 400 + "}", "it holds 10"),
    ],
)
def test_document_that_cannot_be_taken_in_is_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"t\.json is no latency table: {said}"):
        read_table(path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("aa_ratio", "low"), 1e9, "aa_ratio is no interval around its estimate"),
        (("savings", 1, "saving_ms", "estimate"), -1e9, r"savings\.1\.saving_ms is no interval"),
        (("sets", 0, "measured_percent", "high"), -1e9, r"sets\.0\.measured_percent is no interval"),
        (("baseline_ms", "confidence"), 95, "baseline_ms is no interval"),
        (("baseline_ms", "low"), 0, "baseline_ms is not above 0"),
        (("session_percent",), -0.1, "session_percent is below 0"),
        (("savings", 0, "reduction_percent", "high"), 100.5, "more than all of the latency is saved"),
        (("savings", 0, "block"), plans.latency().savings[1].block, "is there 2 times"),
    ],
)
def test_table_that_no_measurement_gave_is_refused(tmp_path: Path, place: tuple[Any, ...], value: object, said: str):
    path, _ = write_table(table(), tmp_path / "t.json")
    change(path, place, value)
    with pytest.raises(InputError, match=f"no latency table that a measurement gave: .*{said}") as caught:
        read_table(path)
    assert caught.value.remedy == "measure it again"


# Does a table belong to this network?


INPUT = (1, 3, 224, 224)
PATH = Path("r34.json")
WANTED = TableRequirements(
    blocks=tuple(block.name for block in plans.blocks() if block.droppable),
    input_shape=INPUT,
    backend=plans.latency().backend,
    conditions=releases.CONDITIONS,
    structure_sha256="5a" * 32,
    device_fingerprint=releases.DEVICE.fingerprint,
)


def test_table_of_this_network_and_input_is_taken():
    check_table(table(), WANTED, PATH)
    check_table(replace(table(), input_shape=list(INPUT)), WANTED, PATH)  # type: ignore[arg-type]


def test_table_of_another_network_is_refused_by_a_block_that_this_one_has_not():
    renamed = tuple(f"stage.{at}" for at, _ in enumerate(WANTED.blocks))
    with pytest.raises(InputError, match=r"on another network \(torchvision:resnet34\).* 'layer1\.0'"):
        check_table(table(), replace(WANTED, blocks=renamed), PATH)


def test_table_of_a_network_whose_blocks_are_named_alike_is_refused_by_its_structure():
    check_table(replace(table(), structure_sha256="5a" * 32), WANTED, PATH)
    with pytest.raises(InputError, match="its blocks differ"):
        check_table(replace(table(), structure_sha256="00" * 32), WANTED, PATH)


def test_table_without_any_block_is_refused():
    with pytest.raises(InputError, match="another network"):
        check_table(replace(table(), savings=()), WANTED, PATH)


def test_table_that_lacks_a_block_of_this_network_is_refused():
    partial = replace(table(), savings=table().savings[1:])
    with pytest.raises(InputError, match=r"r34\.json lacks block 'layer1\.0' of this network"):
        check_table(partial, WANTED, PATH)


@pytest.mark.parametrize("shape", [(4, 3, 224, 224), (1, 3, 160, 160)])
def test_table_of_another_input_is_refused(shape: tuple[int, ...]):
    with pytest.raises(InputError, match=r"with input \[1, 3, 224, 224\], this network has") as caught:
        check_table(table(), replace(WANTED, input_shape=shape), PATH)
    assert "--batch and --input-size" in caught.value.remedy


@pytest.mark.parametrize(("name", "other"), [("threads", 7), ("clock", "gpu_compute"), ("cuda_graph", True)])
def test_table_of_other_conditions_on_the_same_backend_is_refused(name: str, other: object):
    elsewhere = replace(table(), conditions=replace(releases.CONDITIONS, **{name: other}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"with {name} {other}, this build is for {name}"):
        check_table(elsewhere, WANTED, PATH)
    check_table(replace(elsewhere, backend="another"), WANTED, PATH)


def test_table_of_another_precision_is_of_another_network_whatever_the_backend():
    elsewhere = replace(table(), conditions=replace(releases.CONDITIONS, precision="int8"), backend="another")
    with pytest.raises(InputError, match="with precision int8, this build is for precision fp32") as found:
        check_table(elsewhere, WANTED, PATH)
    assert "--precision int8" in found.value.remedy


def test_table_for_what_is_built_ahead_is_of_the_same_backend_and_such_a_gpu():
    ahead = replace(WANTED, target_archs=("sm86", "sm89"))
    with pytest.raises(InputError, match="with backend 'another'"):
        check_table(replace(table(), backend="another"), ahead, PATH)
    for minor, fits in ((9, True), (7, False)):
        gpu = first_gpu(ScriptedLibrary(minor=minor).load)
        measured = replace(table(), device=device_of(gpu, {"tensorrt": "10.3"}))
        if fits:
            check_table(measured, ahead, PATH)
            continue
        with pytest.raises(InputError, match=r"\(sm87\), this build is for sm86, sm89"):
            check_table(measured, ahead, PATH)


def test_a_plan_can_be_measured_only_on_the_tables_device_and_backend():
    assert WANTED.is_local(table())
    assert not WANTED.is_local(replace(table(), backend="another"))
    assert not WANTED.is_local(replace(table(), device=replace(releases.DEVICE, fingerprint="00" * 32)))


def test_a_table_is_not_written_over_its_own_samples(tmp_path: Path):
    with pytest.raises(BackendError, match=r"its samples are \.npz"):
        write_table(table(), tmp_path / "table.npz")
    assert list(tmp_path.iterdir()) == []
