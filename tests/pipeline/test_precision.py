"""Builds in other precisions, and for devices that are not at hand, with the real builder of TensorRT for RTX."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from pipeline.scripted import FAST, ScriptedTrt, device, exported_once, make_build
from practise_backends.errors import BackendError, EnvironmentProblem
from practise_backends.runtimes.onnx_file import read_network
from practise_backends.runtimes.tensorrt.engine_file import read_engine
from practise_deploy.cli import main
from practise_deploy.outcome import Answer, Release
from practise_deploy.pipeline.build import Build
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.pipeline.results import read_release
from practise_deploy.report import render_html
from practise_deploy.report.summaries import release
from practise_deploy.run import Run, file_digest
from practise_deploy.settings import read_settings

AHEAD = {"backend": "trt-rtx", "target_archs": "sm86,sm89", "precision": "fp16"}


def built(folder: Path, **given: Any) -> Release:
    build = make_build(folder, **given)
    with device():
        return build.release


@pytest.fixture
def int8(tmp_path: Path, given: dict[str, Any]) -> Release:
    return built(tmp_path / "run", **{**given, "precision": "int8", "frontier": False})


def test_int8_is_shipped_proved_and_measured_as_integers(int8: Release, tmp_path: Path):
    for name, convolutions in (("model.onnx", 17), ("original.onnx", 21)):
        nodes = read_network((tmp_path / "run" / name).read_bytes()).nodes
        assert sum(node.op == "Conv" for node in nodes) == convolutions
        assert sum(node.op == "QuantizeLinear" for node in nodes) > convolutions
    assert (int8.compiled.precision, int8.compiled.precision_share, int8.compiled.path) == ("int8", 1.0, "model.onnx")
    assert int8.latency.conditions.precision == "int8"
    assert int8.speedup and int8.speedup.estimate == pytest.approx((0.5 + 0.05 * 21) / (0.5 + 0.05 * 17), rel=1e-6)
    assert int8.bench and int8.bench.fp32 and int8.bench.fp32.engine.precision == "fp32"
    over_fp32 = (0.5 + 0.1 * 21) / (0.5 + 0.05 * 17)
    assert int8.bench.fp32.speedup.estimate == pytest.approx(over_fp32, rel=1e-6)
    assert f"{over_fp32:.2f} times as fast as the original in fp32" in int8.verdict.sentence
    assert any(title == "Over the original in fp32" for title, _ in release(int8, tmp_path).rows)
    assert "over the original in fp32" in render_html(int8)
    assert [link.after for link in int8.verification.links] == ["student", "ONNX", "engine", "engine"]
    assert int8.verification.links[1].relative_rms > 1e-3  # rounding to integers is a loss, and told
    assert "int8 in 100% of the arithmetic layers" in render_html(int8)


def test_block_in_integers_saves_what_it_costs_in_integers(int8: Release):
    assert [one.saving_ms.estimate for one in int8.latency.savings] == pytest.approx([0.1] * 7, rel=1e-6)


def test_share_below_the_stated_one_breaks_the_promise_and_names_the_layers(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "practise_deploy.pipeline.context.in_precision", lambda model, *how, **more: model
    )  # nothing is converted
    asked = {**given, "precision": "int8", "frontier": False}
    found = built(tmp_path / "run", **asked)
    assert (found.compiled.precision_share, found.verdict.exit_code) == (0.0, 1)
    reason, doubt, before = found.verdict.reasons
    assert found.verdict.answer is Answer.BROKEN and doubt.startswith("--max-drop 2 (the default): ")
    assert "(estimated without labels)" in doubt and before.startswith("before finetuning: ")
    assert reason.startswith("asked for int8 in at least 90% of the arithmetic layers, found 0.0%: ")
    assert " in float32" in reason and reason.endswith("and 8 more")
    again = built(tmp_path / "run", **{**asked, "min_precision_share": 0})
    assert (again.verdict.answer, again.verdict.exit_code) == (Answer.NOT_PROVEN, 0)


@pytest.mark.slow
def test_neighbours_that_were_measured_in_one_precision_are_not_kept_for_another(tmp_path: Path, given: dict[str, Any]):
    points = []
    for precision in ("fp32", "int8"):
        build = make_build(tmp_path / "run", **{**given, "precision": precision})
        with device():
            points.append([one.reduction_percent.estimate for one in build.frontier.points])
        assert build.context.run.decisions["frontier"] != "kept"
    assert points[0] != points[1]


def test_what_the_precision_alone_costs_the_original_is_told(int8: Release):
    original = int8.verification.original
    assert original and (original.link.before, original.link.after) == ("teacher", "original")
    assert original.link.relative_rms > 1e-3
    assert "The original in this precision" in render_html(int8)


def test_lost_manifest_of_an_engine_is_written_again_and_another_backend_leaves_no_engine(
    ahead: Callable[..., Build], tmp_path: Path, given: dict[str, Any]
):
    run = tmp_path / "run"
    with exported_once():
        assert ahead().compiled.files_sha256
        (run / "model.engine.json").unlink()
        assert ahead().compiled.files_sha256
        assert read_engine(run / "model.engine").targets == ("sm86", "sm89")
    with device():
        assert make_build(run, **given).compiled.path == "model.onnx"
    assert not list(run.glob("model.engine*"))


def test_engine_that_cannot_be_written_is_a_clear_error_and_the_earlier_one_stays(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    backend, run = ScriptedTrt(), tmp_path / "run"
    asked = {**given, "backend": "trt", "iterations": 0}
    with device(backend):
        before = make_build(run, **asked).compiled
        monkeypatch.setattr(backend, "save", full)
        with pytest.raises(EnvironmentProblem, match="No space left on device"):
            make_build(run, **{**asked, "batch": 2}).compiled  # noqa: B018
    assert file_digest(run / "model.engine") == before.sha256


def test_precision_that_the_backend_lacks_is_refused_at_once(tmp_path: Path, given: dict[str, Any]):
    build = make_build(tmp_path / "run", **{**given, "precision": "fp16"})
    with device(), pytest.raises(BackendError, match="no --precision fp16") as found:
        build.check()
    assert "fp32, int8" in found.value.remedy
    assert not (tmp_path / "run").exists()


def test_build_for_a_gpu_ships_the_engine_that_it_proved(tmp_path: Path, given: dict[str, Any]):
    build = make_build(tmp_path / "run", **{**given, "backend": "trt", "precision": "fp16"})
    with device(ScriptedTrt()):
        release = build.release
    engine = read_engine(tmp_path / "run" / "model.engine")
    assert engine.sha256 == release.exported.sha256 and release.compiled.files_sha256
    assert (release.compiled.path, release.compiled.provider) == ("model.engine", "scripted 1.0")
    assert [link.after for link in release.verification.links] == ["student", "ONNX", "engine", "engine"]
    assert release.verification.faithful and release.verdict.exit_code == 0
    assert release.bench and release.bench.conditions.clock == "gpu_compute" == release.latency.conditions.clock
    assert release.bench.conditions.precision == "fp16"
    assert release.frontier.points and release.throughput


@pytest.fixture
def ahead(tmp_path: Path, given: dict[str, Any], finished: Path) -> Callable[..., Build]:
    """A build for GPUs that are not at hand, with a table that is said to come from one."""
    pytest.importorskip("tensorrt_rtx", reason="the extra trt-rtx is not installed")
    told = json.loads((finished / "latency.json").read_text())
    told["backend"], told["device"]["name"] = "trt-rtx", "GeForce RTX 4070"
    told["conditions"] |= {"precision": "fp16", "clock": "gpu_compute"}
    table = tmp_path / "table.json"
    table.write_text(json.dumps(told))

    def make(**more: Any) -> Build:
        asked = {**FAST, **given, "drop": None, "reduce": 10, "latency_table": table, **AHEAD, **more}
        out = tmp_path / "run"
        return Build(BuildContext(settings=read_settings({**asked, "out": out}), run=Run(out)))

    return make


def test_engine_built_ahead_is_proved_judged_by_the_table_and_runs_nowhere(ahead: Callable[..., Build], tmp_path: Path):
    with exported_once():
        release = ahead().release
    engine = read_engine(tmp_path / "run" / "model.engine")
    assert (engine.targets, engine.precision, engine.precision_share) == (("sm86", "sm89"), "fp16", 1.0)
    model = onnx.load(tmp_path / "run" / "model.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    fused = {node for layer in engine.layers for node in layer.nodes}
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} <= fused
    assert release.compiled.layers == len(engine.layers) and release.compiled.provider.startswith("tensorrt_rtx ")
    assert (release.bench, release.speedup, release.throughput, release.frontier.points) == (None, None, (), ())
    assert [(one.before, one.after) for one in release.verification.links] == [
        ("teacher", "student"), ("student", "ONNX"), ("teacher", "ONNX"),
    ]  # fmt: skip
    assert release.verdict.exit_code == 0
    assert "predicted for GeForce RTX 4070" in release.verdict.sentence and "has not run" in release.verdict.sentence
    kept = read_release(tmp_path / "run")
    assert (kept.compiled, kept.bench, kept.verdict) == (release.compiled, None, release.verdict)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "sm86, sm89" in page and "Less latency, predicted" in page and "How fast is it?" not in page
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert {"model.engine", "model.engine.json"} <= set(manifest["files_sha256"])


def test_target_that_the_table_does_not_surely_promise_breaks_it(ahead: Callable[..., Build]):
    with exported_once():
        release = ahead(min_speedup=1.05).release
    assert (
        release.verdict.exit_code == 1
        and release.gate
        and "practise-measure compare" in release.gate.constraints[0].reason
    )


def test_what_is_not_at_hand_was_measured_before_or_nothing_begins(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("tensorrt_rtx", reason="the extra trt-rtx is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["practise-deploy", "build", "digits", "--backend", "trt-rtx", "--target-archs", "sm89"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "practise-deploy kit" in said and "--latency-table" in said
    assert not list(tmp_path.glob("runs*"))


def test_plan_for_a_backend_that_is_not_here_goes_by_its_table(
    tmp_path: Path,
    given: dict[str, Any],
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    told = json.loads((finished / "latency.json").read_text())
    told["backend"], told["device"]["name"], told["conditions"]["clock"] = "trt", "Jetson Orin", "gpu_compute"
    (tmp_path / "table.json").write_text(json.dumps(told))
    words = ["plan", given["network"], "--data", given["data"], "--reduce", "10", "--backend", "trt"]
    words += ["--latency-table", tmp_path / "table.json", "--out", tmp_path / "run"]
    monkeypatch.setattr("sys.argv", ["practise-deploy", *map(str, words)])
    with exported_once(), pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 0, err
    assert "going by" in err and "Jetson Orin" in out
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["measured_percent"] is None
