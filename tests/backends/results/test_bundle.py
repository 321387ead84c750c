"""Kits: what is in one is measured as it was made, and a damaged one is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.kits import CUTS, SAVED_MS, make_kit, scripted_device
from practise_backends.cli import main
from practise_backends.errors import BackendError
from practise_backends.interfaces import MeasurementSetup
from practise_backends.options import Measuring
from practise_backends.results.bundle import MANIFEST, Kit, measure_kit, networks_of, read_kit
from practise_backends.results.documents import to_json, write_table
from practise_backends.results.render_table import next_step, table_text
from practise_backends.results.table import measure_table
from practise_backends.results.table_design import design_of
from practise_backends.runtimes import catalog
from practise_backends.terms import Conditions, StoppingRule

PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=20, max_rounds=20, half_width_percent=0.0, keep_throttled=True
)


@pytest.fixture
def folder(tmp_path: Path, network_file: Path) -> Path:
    """A whole kit."""
    make_kit(tmp_path / "kit", network_file)
    return tmp_path / "kit"


def bench(saved_ms: dict[str, float] | None = None, **conditions: Any) -> MeasurementSetup:
    return MeasurementSetup(
        backend=scripted_device(saved_ms), conditions=Conditions(**conditions), stopping_rule=PATIENCE
    )


# What is in it.


def test_kit_holds_the_original_every_block_alone_and_the_design_each_once() -> None:
    design = design_of(CUTS, 0)
    found = networks_of(CUTS, design)
    assert found[0] == () and len(set(found)) == len(found)
    assert set(found) == {(), *((cut.block,) for cut in CUTS), *design.sets}


@pytest.mark.parametrize(
    "asked",
    [
        Measuring(),
        Measuring(
            backend="trt", batch=4, clock="end_to_end", options={"timing_cache": Path("a b"), "tf32": False}, seed=3
        ),
    ],
)
def test_kit_that_was_written_is_read_back(tmp_path: Path, network_file: Path, asked: Measuring) -> None:
    written = make_kit(tmp_path / "kit", network_file, asked=asked)
    assert read_kit(tmp_path / "kit") == written


def test_kit_of_before_a_flag_was_added_takes_its_default(folder: Path) -> None:
    change(folder, lambda found: found["asked"].pop("keep_throttled"))
    assert not read_kit(folder).asked.keep_throttled


# Its table.


def test_table_of_a_kit_is_the_one_that_would_have_been_measured_here(folder: Path) -> None:
    kit = read_kit(folder)
    direct = measure_table("net", CUTS, kit.without(folder), bench(), design=kit.design)
    found = measure_kit(kit, folder, bench())
    assert found.structure_sha256 == "5a" * 32 and found.input_shape == (1, 4, 8, 8)
    now = {"structure_sha256": "", "warmup_s": 0.0, "environment": None}  # they take their own seconds
    assert to_json(replace(found, **now)) == to_json(replace(direct, **now))
    assert {one.block: one.saving_ms.estimate for one in found.savings} == pytest.approx(SAVED_MS)


def test_design_is_the_kits_whatever_the_seed(folder: Path) -> None:
    kit = read_kit(folder)
    assert design_of(CUTS, 5) != kit.design
    found = measure_kit(kit, folder, bench(seed=5))
    assert tuple(one.dropped for one in found.sets) == kit.design.sets


def test_class_that_is_split_is_measured_from_the_kit_too(folder: Path) -> None:
    kit = read_kit(folder)
    twin = kit.design.twins[0]
    found = measure_kit(kit, folder, bench({**SAVED_MS, twin: 3.0}))
    alone = {one.block: one.saving_ms.estimate for one in found.savings if not one.pooled_with}
    assert alone["a0"] == pytest.approx(1.0) and alone[twin] == pytest.approx(3.0)
    assert any("was split" in note for note in found.notes)


# What is refused.


def change(folder: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    found = json.loads((folder / MANIFEST).read_text())
    how(found)
    (folder / MANIFEST).write_text(json.dumps(found))


def refused(folder: Path, said: str) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        read_kit(folder)
    assert caught.value.remedy and caught.value.exit_code == 2


def test_folder_that_is_not_there_and_one_that_is_no_kit(tmp_path: Path) -> None:
    refused(tmp_path / "nosuch", "there is no folder .*nosuch")
    refused(tmp_path, r"is no kit: it holds no kit\.json")


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "netw', b"[]", b"7", b"{}", b"\xff\xfe"])
def test_truncated_manifest(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    refused(folder, r"kit\.json is damaged: it is no JSON document with a schema")


@pytest.mark.parametrize("name", ["cuts", "schema", "asked"])
def test_manifest_nested_beyond_reading_and_one_of_no_numbers(name: str, folder: Path) -> None:
    whole = (folder / MANIFEST).read_text()
    for inside, said in (
        ("[" * 99_999 + "]" * 99_999, "is nested more than 100 levels deep"),
        ('{"a": Infinity}', "holds Infinity"),
    ):
        (folder / MANIFEST).write_text(whole.rstrip().removesuffix("}") + f', "{name}": {inside}' + "}")
        refused(folder, rf"kit\.json is damaged: it {said}")


def test_kit_of_another_schema(folder: Path) -> None:
    change(folder, lambda found: found.update(schema=7))
    refused(folder, "has schema 7; this version reads 2")


def test_missing_and_changed_files(folder: Path) -> None:
    network = folder / "networks" / "a1.onnx"
    network.write_bytes(network.read_bytes() + b"x")
    refused(folder, r"a1\.onnx is not the file that the kit was made with")
    network.unlink()
    refused(folder, r"cannot read .*a1\.onnx, which the kit needs: No such file")


def test_network_that_is_none_of_the_kits_files_is_not_opened(folder: Path, tmp_path: Path) -> None:
    network = folder / "networks" / "b1.onnx"
    network.rename(tmp_path / "b1.onnx")
    network.symlink_to("../../b1.onnx")
    refused(folder, r"b1\.onnx, which the kit needs, lies outside the folder")
    network.unlink()
    network.symlink_to("/dev/random")
    refused(folder, r"b1\.onnx, which the kit needs, lies outside the folder")
    network.unlink()
    network.mkdir()
    refused(folder, r"b1\.onnx, which the kit needs, is no regular file")


def test_manifest_that_lies_elsewhere_is_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).rename(tmp_path / "mine.json")
    (folder / MANIFEST).symlink_to("../mine.json")
    refused(folder, r"kit\.json lies outside the folder")


@pytest.mark.parametrize("name", ["latency.json", "latency.npz"])
def test_link_in_a_kit_does_not_say_where_its_table_is_written(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("kept")
    (folder / name).symlink_to(tmp_path / "mine")
    assert main(["table", str(folder)]) == 2
    assert f"{name} is a link\nremedy: say where the table goes: --output" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda found: found.pop("cuts"), "it has no 'cuts'"),
        (lambda found: found["networks"].pop(0), "lacks the original network"),
        (lambda found: found["networks"].pop(2), "lacks the network without a1"),
        (lambda found: found["sha256"].popitem(), "lacks the network without"),
        (lambda found: found["networks"][0].update(file="../../etc/passwd"), "does not lie within the kit"),
        (lambda found: found["sha256"].update({"/etc/passwd": ""}), "does not lie within the kit"),
        (lambda found: found["asked"].update(threads=0), "0 is not 1 or more"),
        (lambda found: found["asked"].update(abacus=1), "unknown 'abacus'"),
        (lambda found: found["asked"].update(budget_s=3.0), "'budget_s'; did you mean 'measure_budget_s'"),
        (lambda found: found["asked"].update(options={"tf_32": False}), "option 'tf_32'; did you mean 'tf32'"),
        (lambda found: found["asked"].update(clock="sundial"), "'sundial' is none of"),
        (lambda found: found.update(network=3), "3 is no text"),
        (lambda found: found.update(input_shape=["x"]), "damaged"),
        (lambda found: found.update(design=None), "damaged"),
        (lambda found: found.update(cuts=[1]), "damaged"),
        (lambda found: found.update(input_shape=[]), "input shape"),
        (lambda found: found.update(cuts=[]), "latency class"),
        (lambda found: found["design"].update(firsts={}), "latency class"),
        (lambda found: found["asked"].update(cuda_graph="no"), "neither true nor false"),
    ],
)
def test_damaged_manifest_says_what_is_wrong(folder: Path, how: Callable[[dict[str, Any]], Any], said: str) -> None:
    change(folder, how)
    refused(folder, said)


# The command line.


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = scripted_device()
    backend.name = "ort"
    monkeypatch.setattr(catalog, "load_backend", lambda name, options: backend)


@pytest.mark.usefixtures("device")
def test_folder_alone_is_measured_and_its_table_lies_in_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:2] == ["c0", "2.000"]
    assert (
        "distinguishable from zero" in out
        and "net unpruned: 10.00 (10.00 to 10.00) ms" in out
        and "sets save 1.000 (1.000 to 1.000) times" in out
    )
    assert f"written: {folder / 'latency.json'}" in err
    assert "  practise-deploy plan net --threads 2 --latency-table latency.json\n" in err
    document = json.loads((folder / "latency.json").read_text())
    assert (document["schema"], document["structure_sha256"]) == (2, "5a" * 32)
    assert document["conditions"]["threads"] == 2
    with np.load(folder / "latency.npz") as samples:
        assert samples["rounds_ms"].shape[0] == document["rounds"]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("words", [["table", "{kit}"], ["{kit}"], ["--json", "{kit}"]])
def test_json_is_the_document_that_is_written(
    words: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out" / "t.json"
    further = [] if "--json" in words else ["--json"]
    assert main([*(word.format(kit=folder) for word in words), *further, "--threads", "3", "--output", str(place)]) == 0
    out, err = capsys.readouterr()
    assert out == place.read_text() + "\n"
    assert json.loads(out)["conditions"]["threads"] == 3
    assert "--threads 2 --threads 3 --latency-table t.json" in err
    assert sorted(path.name for path in place.parent.iterdir()) == ["t.json", "t.npz"]
    assert not (folder / "latency.json").exists()


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch/"], 2, "there is no folder nosuch"),
        (
            ["{kit}/networks/a0.onnx"],
            2,
            "a0.onnx is a file; a kit is a folder\nremedy: a network: practise-measure bench",
        ),
        (["{empty}"], 2, "it holds no kit.json"),
        (["{kit}", "--batch", "4"], 2, "have batch 1, not 4"),
        (["{kit}", "--output", "{kit}/t.npz"], 2, "its samples are .npz"),
        (["{kit}", "--output", "{kit}/kit.json/t.json"], 3, "cannot read or write "),
        (["{kit}", "--clock", "gpu_compute"], 2, "has no --clock gpu_compute"),
    ],
)
def test_what_cannot_be_measured_is_one_message_with_a_code(
    words: list[str], code: int, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([word.format(kit=folder, empty=tmp_path / "empty") for word in words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 2 and "\nremedy: " in err and said in err
    assert not (folder / "latency.json").exists()


def test_interrupted_measurement_leaves_no_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("practise_backends.cli.commands.measure_kit", interrupt)
    assert main([str(folder)]) == 130
    assert capsys.readouterr().err == "error: interrupted\nremedy: run the same command again\n"
    assert sorted(path.name for path in folder.iterdir()) == ["kit.json", "networks"]


def test_table_is_written_by_one_writer_for_both_halves(folder: Path, tmp_path: Path) -> None:
    """practise_deploy reads what was written here, and writes the same bytes."""
    from practise_deploy.deployment import latency_table

    table = measure_kit(read_kit(folder), folder, bench())
    here, _ = write_table(table, tmp_path / "here.json")
    assert latency_table.read_table(here) == replace(table, samples={})
    there, samples = latency_table.write_table(table, tmp_path / "there.json")
    assert here.read_bytes() == there.read_bytes()
    assert samples.read_bytes() == here.with_suffix(".npz").read_bytes()


def test_words_of_a_kit_command_no_terminal(folder: Path) -> None:
    kit: Kit = replace(read_kit(folder), plan="practise-deploy \x1b[2Jplan", network="net\x1b[2J")
    table = measure_kit(kit, folder, bench())
    assert "\x1b" not in table_text(table) + next_step(kit, table, folder / "latency.json")
