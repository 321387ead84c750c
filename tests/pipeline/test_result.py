"""What a build leaves behind: the run folder, its JSON contract, and a network that really lost its blocks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline.scripted import count_of, device, make_build, write_inputs
from practise_backends.results.table import samples_digest
from practise_backends.terms import SCHEMA as MEASURED_SCHEMA
from practise_deploy.cli import main
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.terms import SCHEMA

FILES = {
    "latency.json", "manifest.json", "model.onnx", "original.onnx", "plan.json", "release.json", "report.html",
    "report.md", "samples.npz",
}  # fmt: skip


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(), parse_constant=lambda word: pytest.fail(f"{name} holds {word}"))


def test_run_folder_holds_everything_and_nothing_temporary(finished: Path):
    assert {f.name for f in finished.iterdir()} == {*FILES, "steps"}
    assert not [f.name for f in finished.rglob("*") if "partial" in f.name or f.name.startswith(".")]


def test_every_json_file_has_a_schema_number(finished: Path):
    files = sorted(finished.rglob("*.json"))
    assert len(files) > 10
    schemas = {f.name: read(f.parent, f.name).get("schema") for f in files}
    assert schemas.pop("manifest.json") == 1
    measured = {"latency.json", "bench.json"}  # records of the device half
    assert {schemas.pop(name) for name in measured} == {MEASURED_SCHEMA}
    assert set(schemas.values()) == {SCHEMA}


def test_release_holds_the_speedup_with_its_interval(finished: Path):
    speedup = read(finished, "release.json")["speedup"]
    assert set(speedup) == {"estimate", "low", "high", "confidence"}
    before, after = 0.5 + 0.1 * 21, 0.5 + 0.1 * 17
    assert speedup["low"] <= speedup["estimate"] <= speedup["high"]
    assert speedup["estimate"] == pytest.approx(before / after, rel=1e-6)


def test_latency_table_says_what_the_device_was_scripted_to_save(finished: Path):
    savings = read(finished, "latency.json")["savings"]
    assert len(savings) == 7
    assert [s["saving_ms"]["estimate"] for s in savings] == pytest.approx([0.2] * 7, rel=1e-6)


def test_blocks_of_one_stage_share_their_figure_and_savings_add_up(finished: Path):
    table = read(finished, "latency.json")
    assert {s["block"]: len(s["pooled_with"]) for s in table["savings"]} == {
        **dict.fromkeys(("layer1.0", "layer1.1", "layer1.2"), 2),
        **dict.fromkeys(("layer2.1", "layer2.2", "layer3.1", "layer3.2"), 1),
    }
    assert all(check["same"] for check in table["twins"]) and len(table["twins"]) == 3
    assert table["additivity"]["estimate"] == pytest.approx(1.0, rel=1e-6)
    assert table["notes"] == []


def test_frontier_holds_the_best_sets_of_near_numbers_and_ends_with_the_release(finished: Path):
    release = read(finished, "release.json")
    points, candidates = release["frontier"]["points"], set(release["plan"]["scores"])
    assert [len(p["dropped"]) for p in points[:-1]] == [1, 2, 3, 4]
    assert all(set(p["dropped"]) <= candidates for p in points)
    assert [p["reduction_percent"]["estimate"] for p in points[:-1]] == pytest.approx(
        [100 * 0.2 * count / 2.6 for count in (1, 2, 3, 4)], rel=1e-6
    )
    assert (points[-1]["dropped"], points[-1]["recovery"]) == (release["plan"]["dropped"], "finetuned")
    assert [p["chosen"] for p in points] == [False, True, False, False, True]
    assert all(p["accuracy"] is None and p["loss"]["estimated"] for p in points)


def test_gate_holds_the_demand_that_nobody_named_and_what_is_known_of_it(finished: Path):
    """Ten images on which no answer changed: a loss of two points cannot be excluded."""
    release = read(finished, "release.json")
    (demand,) = release["gate"]["constraints"]
    loss = release["verification"]["loss"]
    assert (demand["name"], demand["required"], demand["by_default"], demand["estimated"]) == (
        "max_drop",
        2.0,
        True,
        True,
    )
    assert (demand["answer"], release["verdict"]["answer"]) == ("not proven", "not proven")
    assert demand["measured"] == loss["points"] and loss["points"]["high"] > 2.0
    assert (release["gate"]["nearest"], release["gate"]["advice"], release["verdict"]["exit_code"]) == (None, "", 0)
    why, before = release["verdict"]["reasons"]
    assert why == f"--max-drop 2 (the default): {demand['reason']}"
    assert before.startswith("before finetuning: ") and before.endswith("that the judged fits did not see")
    assert "cannot be excluded" in release["verdict"]["sentence"]
    assert "Promise not proven (exit code 0)" in (finished / "report.html").read_text()


def test_student_tells_what_it_is_judged_on(finished: Path):
    release = read(finished, "release.json")
    assert (
        "random views" in release["finetuned"]["judged_on"] and "validation images" in release["recovered"]["judged_on"]
    )
    assert release["finetuned"]["judged_on"] in (finished / "report.html").read_text()
    assert_exits_are_told(release)


def assert_exits_are_told(release: dict[str, Any]) -> None:
    """The exits of kept blocks are mimicked, unless nothing but the last blocks went: then there are none behind the cut."""
    dropped = release["plan"]["dropped"]
    last = [block["name"] for block in release["blocks"]][-len(dropped) :]
    assert ("hints at block outputs x3" in release["finetuned"]["method"]) == (sorted(dropped) != sorted(last))


def test_plan_tells_what_was_verified_and_how_sure_it_is(finished: Path):
    release = read(finished, "release.json")
    plan = release["plan"]
    chosen, *others = plan["considered"]
    assert chosen["dropped"] == plan["dropped"] and chosen["reason"] == ""
    rounding = 1 + 1e-4  # the two are summed in batches of different sizes
    assert (
        rounding * chosen["verified_error"] >= release["recovered"]["relative"] > 0
    )  # the whole recovery does no worse
    judged = release["recovered"]["judged_on"]
    assert chosen["loss"]["estimated"] and 0 < chosen["loss"]["images"] < release["images"]["fit"], judged
    assert plan["within_drop"] is None
    assert others and all(one["verified_error"] >= chosen["verified_error"] and one["reason"] for one in others)
    assert set(plan["selection_frequency"]) == set(plan["scores"]) and 0 < plan["set_frequency"] <= 1
    assert "Sets that were considered" in (finished / "report.html").read_text()


def test_throughput_is_told_of_both_models_at_every_point(finished: Path):
    """The files are of a fixed batch; for this they are made to take eight images."""
    found = read(finished, "release.json")["throughput"]
    assert [(t["engine"], t["batch"], t["refused"]) for t in found] == [
        ("original", 1, ""),
        ("new", 1, ""),
        ("original", 8, ""),
        ("new", 8, ""),
    ]
    rates = [t["images_per_s"]["estimate"] for t in found]
    assert rates == pytest.approx([1000 / 2.6, 1000 / 2.2, 8000 / 2.6, 8000 / 2.2])


def test_dropped_blocks_are_gone_from_the_onnx_as_many_as_predicted(finished: Path):
    plan = read(finished, "plan.json")
    assert len(plan["dropped"]) == 2
    assert count_of("Conv", finished / "original.onnx") == 21
    assert count_of("Conv", finished / "model.onnx") == 21 - 2 * len(plan["dropped"])
    assert plan["predicted_ms"] == pytest.approx(0.5 + 0.1 * count_of("Conv", finished / "model.onnx"))


def test_no_batch_norm_and_no_adaptor_is_left(finished: Path):
    assert count_of("BatchNormalization", finished / "model.onnx") == 0
    kernels = [tuple(w.dims) for w in onnx.load(finished / "model.onnx").graph.initializer if len(w.dims) == 4]
    originals = [tuple(w.dims) for w in onnx.load(finished / "original.onnx").graph.initializer if len(w.dims) == 4]
    assert all(kernels.count(shape) <= originals.count(shape) for shape in kernels)


def test_without_labels_the_loss_is_estimated_and_no_accuracy_reported(finished: Path):
    release = read(finished, "release.json")
    assert release["verification"]["accuracy"] == {}
    assert release["verification"]["faithful"]
    assert [link["agreement_percent"]["estimate"] for link in release["verification"]["links"][1:3]] == [100.0, 100.0]
    loss = release["verification"]["loss"]
    assert loss["estimated"] and loss["images"] == release["verification"]["images"]
    assert loss["agreement_percent"] == release["verification"]["links"][-1]["agreement_percent"]
    assert "estimated without labels" in release["verdict"]["sentence"]


def test_manifest_names_versions_device_seed_and_hashes(finished: Path):
    manifest = read(finished, "manifest.json")
    assert manifest["seed"] == 0 and manifest["device"]["name"] == "scripted device"
    assert {"python", "torch", "onnxruntime", "practise-deploy"} <= set(manifest["versions"])
    assert {"model.onnx", "original.onnx", "latency.json", "plan.json", "samples.npz"} <= set(manifest["files_sha256"])


def test_samples_are_the_raw_rounds(finished: Path):
    samples = np.load(finished / "samples.npz")
    assert samples["bench/rounds_ms"].shape[1] == len(samples["bench/engines"]) == 12
    assert (
        samples["bench/raw_ms"].shape == samples["bench/rounds_ms"].shape
        and not np.isnan(samples["bench/raw_ms"]).any()
    )
    assert samples["latency/rounds_ms"].shape[1] == len(samples["latency/engines"])
    table = read(finished, "latency.json")
    own = {name.removeprefix("latency/"): samples[name] for name in samples.files if name.startswith("latency/")}
    assert samples_digest(own) == table["samples_sha256"]
    assert {*own["engines"]} >= {"original", *(s["block"] for s in table["savings"] if s["measured"])}


def test_report_is_one_file_that_loads_nothing(finished: Path):
    page = (finished / "report.html").read_text()
    loaded = re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", page)
    assert "<html" in page and "@import" not in page and "url(http" not in page
    assert all(each.startswith(("data:", "#")) for each in loaded), loaded


def test_dynamic_batch_runs_at_other_batch_sizes_and_computes_the_same(tmp_path: Path):
    networks, data = write_inputs(tmp_path, side=32, count=24)
    build = make_build(
        tmp_path / "run",
        network=f"{networks}:tiny_mobilenet",
        data=data,
        drop=1,
        iterations=2,
        dynamic_batch=True,
        frontier=False,
    )
    with device():
        release = build.release
    assert release.verdict.exit_code == 0 and release.exported.dynamic_batch
    inverted = {"features.1": 2}.get(release.plan.dropped[0], 3)
    model, original = tmp_path / "run" / "model.onnx", tmp_path / "run" / "original.onnx"
    assert count_of("Conv", original) - count_of("Conv", model) == inverted
    session = onnxruntime.InferenceSession(model)
    x = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    together = session.run(None, {"input": x})[0]
    each = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(5)])
    assert together.shape == (5, 10)
    assert np.allclose(together, each, atol=1e-4)


def test_paper_recipe_ends_with_a_faithful_network(tmp_path: Path, given: dict[str, Any]):
    build = make_build(
        tmp_path / "run", **{**given, "recipe": "paper", "score_iterations": 3, "iterations": 5, "drop": 1}
    )
    with device():
        release = build.release
    assert release.verdict.exit_code == 0 and release.recipe == "paper"
    assert release.plan.dropped == tuple(release.plan.scores)[:1]
    assert (release.plan.considered, release.plan.set_frequency) == ((), None)
    assert {point.recovery for point in release.frontier.points} == {"none", "finetuned"}
    assert "plain drop" in release.recovered.method and release.finetuned.steps == 5
    assert count_of("Conv", tmp_path / "run" / "model.onnx") == 19


def test_default_network_end_to_end_on_this_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Real times, so the exit code may be either; everything else is asserted."""
    options = [
        "--reduce",
        "10",
        "--fit-images",
        "16",
        "--iterations",
        "10",
        "--batch-size",
        "16",
        "--measure-budget-s",
        "4",
    ]
    monkeypatch.setattr("sys.argv", ["practise-deploy", "build", *options, "--out", str(tmp_path / "run")])
    monkeypatch.setattr(
        "practise_deploy.images.tiny_set.FitImages", FitImages
    )  # so few images are cross-validated, as users' are
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert left.value.code in (0, 1, 3), said.err
    if left.value.code and not (tmp_path / "run" / "release.json").exists():
        assert any(words in said.err for words in ("distinguishable from zero", "out of reach", "too disturbed"))
        pytest.skip("the machine is too busy to measure a saving")
    release = read(tmp_path / "run", "release.json")
    assert {f.name for f in (tmp_path / "run").iterdir()} == {*FILES, "settings.json", ".lock", "steps"}
    assert release["verification"]["accuracy"]["engine"]["percent"]["estimate"] > 95
    assert release["plan"]["dropped"] and release["bench"]["engines"][0]["load_ms"] > 0
    assert_exits_are_told(release)
    assert release["recovered"]["judged_on"] == "16 images, 5-fold cross-validation"
    dropped = count_of("Conv", tmp_path / "run" / "original.onnx") - count_of("Conv", tmp_path / "run" / "model.onnx")
    assert dropped == 2 * len(release["plan"]["dropped"])
