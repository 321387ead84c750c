"""The promise: kept, broken, out of reach, or shipped wrong, each with its exit code."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.scripted import ScriptedOrt, device, make_build, ms_by_convolutions, write_inputs
from practise_backends.errors import Disturbed, EnvironmentProblem
from practise_backends.fake import FakeEngine, steady
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.results.compare import compare
from practise_backends.terms import Artifact, Comparison, Conditions, Device, Interval
from practise_deploy.errors import InputError, TargetOutOfReach, VerificationFailed
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.outcome import Answer
from practise_deploy.pipeline import stages
from practise_deploy.planning.sets import Verified
from practise_deploy.refit.recover import verified_without
from practise_deploy.terms import Block, TaskKind

Copy = Callable[[], Path]


def is_variant(artifact: Artifact) -> bool:
    """Whether it is a network that was made to be measured, not one of the finished files."""
    return Path(str(artifact.content)).name.startswith("variant")


def test_reachable_reduction_is_reached_with_the_fewest_blocks(copied: Copy, given: dict[str, Any]):
    """A block is 0.2 of 2.6 ms, 7.7%: 20% takes three of them."""
    folder, asked = copied(), {**given, "drop": None, "reduce": 20, "iterations": 1, "frontier": False}
    with device():
        release = make_build(folder, **asked).release
        waived = make_build(folder, **{**asked, "max_drop": "none"}).release
    assert len(release.plan.dropped) == 3 and release.plan.reached
    assert (release.verdict.answer, release.verdict.exit_code) == (Answer.NOT_PROVEN, 0)  # few images, and no labels
    assert waived.verdict.kept and waived.verdict.exit_code == 0 and waived.gate is None
    assert [kept.reason for kept in release.plan.kept] and all(kept.reason for kept in release.plan.kept)


@pytest.mark.parametrize("target", [{"reduce": 90}, {"target_ms": 0.3}], ids=["reduce", "target-ms"])
def test_target_out_of_reach_is_exit_1_with_the_best_that_can_be_had(
    copied: Copy, given: dict[str, Any], target: dict[str, Any]
):
    build = make_build(copied(), **{**given, "drop": None, **target})
    with device(), pytest.raises(TargetOutOfReach, match="out of reach") as raised:
        assert build.release
    assert raised.value.exit_code == 1
    assert "all 7 rankable blocks" in raised.value.message and "1.200 ms of 2.600 ms" in raised.value.message
    assert "--reduce 53%" in raised.value.remedy
    assert len(build.plan.dropped) == 7 and not build.plan.reached


def test_device_without_any_saving_drops_nothing_and_says_so(copied: Copy, given: dict[str, Any]):
    build = make_build(copied(), **{**given, "drop": None, "reduce": 10, "threads": 3})
    with device(ScriptedOrt(lambda artifact: 1.0)), pytest.raises(TargetOutOfReach, match="distinguishable from zero"):
        assert build.release
    assert build.plan.dropped == () and not build.plan.reached


class Restless(ScriptedOrt):
    """Every block saves as on the quiet device, but the sessions of one file differ by a fifth."""

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        self.opened = getattr(self, "opened", 0) + 1
        factor = float(np.exp(np.random.default_rng(self.opened).normal(0, 0.2)))
        self._script = lambda one: steady(ms_by_convolutions(one) * factor)
        return super().open(artifact, conditions)


def test_device_too_disturbed_to_plan_on_is_exit_3(copied: Copy, given: dict[str, Any]):
    """20% is within reach of the network, as on a quiet device; here no set surely saves it."""
    build = make_build(copied(), **{**given, "drop": None, "reduce": 20, "threads": 3})
    with device(Restless()), pytest.raises(EnvironmentProblem, match="is too disturbed to plan on") as raised:
        assert build.release
    assert raised.value.exit_code == 3 and "--measure-budget-s" in raised.value.remedy


def test_model_that_is_no_faster_in_the_end_breaks_the_promise(copied: Copy, given: dict[str, Any]):
    """Variants are timed honestly, the finished files are not faster."""

    def deceiving(artifact: Artifact) -> float:
        return ms_by_convolutions(artifact) if is_variant(artifact) else 2.6

    with device(ScriptedOrt(deceiving)):
        release = make_build(copied(), **{**given, "threads": 3, "frontier": False}).release
    assert not release.verdict.kept and release.verdict.exit_code == 1
    assert "does not exclude 1" in release.verdict.reasons[0]


def test_less_than_was_asked_breaks_the_promise(copied: Copy, given: dict[str, Any]):
    """The finished model is a little slower than its plan was."""

    def optimistic(artifact: Artifact) -> float:
        worse = Path(str(artifact.content)).name == "model.onnx"
        return ms_by_convolutions(artifact) * (1.1 if worse else 1.0)

    with device(ScriptedOrt(optimistic)):
        release = make_build(copied(), **{**given, "drop": None, "reduce": 15, "threads": 3, "frontier": False}).release
    assert release.verdict.exit_code == 1 and "required: 15.0% less latency" in release.verdict.reasons[0]
    assert release.speedup.low > 1


def disturbed_until(budget_s: float) -> Callable[..., Comparison]:
    """Comparisons that are too wide to decide by until they may take so long."""

    def compared(before: Path, after: Path, stand: MeasurementSetup, progress: Progress, **how: Any) -> Comparison:
        found, narrow = compare(before, after, stand, progress, **how), stand.stopping_rule.budget_s >= budget_s
        ends = (1.25, 1.40) if narrow else (1.05, 1.70)
        return replace(found, speedup=replace(found.speedup, low=ends[0], high=ends[1]))

    return compared


TWENTY_PERCENT = {"drop": None, "reduce": 20, "iterations": 1, "frontier": False, "max_drop": "none", "seed": 3}


def test_final_measurement_that_cannot_decide_goes_on_before_the_promise_is_called_broken(
    copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Three blocks save 23.1%, and 20% was asked for."""
    monkeypatch.setattr(stages, "compare", disturbed_until(1.2))
    asked = {**given, **TWENTY_PERCENT}
    with device():
        build = make_build(copied(), **asked)
        release = build.release
        again = make_build(build.context.run.folder, **asked)
        assert again.bench is not None and again.bench.speedup == release.speedup
        assert again.context.run.decisions["bench-again-2"].startswith("kept")
    assert release.verdict.kept and release.verdict.exit_code == 0
    assert {"bench", "bench-again-1", "bench-again-2"} <= set(build.context.run.decisions)
    assert "then 1.300 [1.050, 1.700] did not tell whether what was asked is met" in release.bench.notes[-1]


def test_further_measurement_that_the_device_does_not_let_end_loses_nothing(
    copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def compared(before: Path, after: Path, stand: MeasurementSetup, progress: Progress, **how: Any) -> Comparison:
        if stand.stopping_rule.budget_s > 0.3:
            raise Disturbed("7 valid rounds of 84 cannot carry an interval", remedy="find what disturbs it")
        return disturbed_until(1e9)(before, after, stand, progress)

    monkeypatch.setattr(stages, "compare", compared)
    asked = {**given, **TWENTY_PERCENT}
    with device():
        release = make_build(copied(), **asked).release
    assert (release.verdict.answer, release.verdict.exit_code) == (Answer.NOT_PROVEN, 1)
    assert release.bench is not None
    assert (
        release.bench.notes[-1] == "measured again for longer, in vain: 7 valid rounds of 84 cannot carry an interval"
    )


def test_final_measurement_that_never_decides_ends_as_not_proven(
    copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "compare", disturbed_until(1e9))
    asked = {**given, **TWENTY_PERCENT}
    with device():
        build = make_build(copied(), **asked)
        release = build.release
    assert "bench-again-2" in build.context.run.decisions and "bench-again-3" not in build.context.run.decisions
    assert (release.verdict.answer, release.verdict.exit_code) == (Answer.NOT_PROVEN, 1)
    assert "its interval does not tell" in release.verdict.reasons[0]


def exported_wrongly(network: torch.fx.GraphModule, shape: Any, **how: Any) -> Any:
    """Another classifier."""
    wrong = copy.deepcopy(network)
    with torch.no_grad():
        wrong.get_submodule("fc").weight.neg_()
    return to_onnx(wrong, shape, **how)


def test_wrongly_exported_network_is_exit_4(copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages, "to_onnx", exported_wrongly)
    folder = copied()
    (folder / "model.onnx").unlink()
    with device():
        release = make_build(folder, **given).release
    assert not release.verification.faithful and release.verdict.exit_code == 4
    assert "student -> ONNX" in release.verdict.reasons[0]


def test_missing_backend_is_exit_3(tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EnvironmentProblem, match="'trt'") as raised:
        assert make_build(tmp_path / "run", **{**given, "backend": "trt"}).release
    assert raised.value.exit_code == 3 and "pip install" in raised.value.remedy
    assert not (tmp_path / "run").exists()


# The gate.


def test_gate_that_fails_is_exit_1_and_names_the_nearest_set_that_passes(copied: Copy, given: dict[str, Any]):
    """Two blocks give 1.18; the neighbours with three give 1.3."""
    with device():
        release = make_build(copied(), **{**given, "min_speedup": 1.25}).release
    assert release.verdict.exit_code == 1 and not release.verdict.kept
    assert release.verdict.reasons[0].startswith("--min-speedup: measured 1.182, lower bound 1.182")
    assert release.gate is not None and release.gate.nearest is not None
    assert len(release.gate.nearest.dropped) == 3
    assert release.gate.nearest.dropped in [point.dropped for point in release.frontier.points]
    assert release.verdict.reasons[-1].endswith("build it with --drop 3")


@pytest.mark.parametrize(("max_drop", "answer", "code"), [(100.0, Answer.KEPT, 0), (1.0, Answer.NOT_PROVEN, 1)])
def test_demand_on_the_accuracy_without_labels_is_judged_by_an_estimate(
    copied: Copy, given: dict[str, Any], max_drop: float, answer: Answer, code: int
):
    with device():
        release = make_build(copied(), **{**given, "max_drop": max_drop}).release
    assert release.gate is not None and release.verification.loss is not None
    (demand,) = release.gate.constraints
    assert (demand.answer, demand.estimated, demand.by_default) == (answer, True, False)
    assert demand.measured == release.verification.loss.points
    assert (release.verdict.answer, release.verdict.exit_code) == (answer, code)
    assert "estimated without labels" in release.verdict.sentence


def of_one_number(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "network": given["network"].replace("tiny_resnet", "one_number")}


def test_network_that_is_no_classifier_is_judged_by_agreement_and_no_accuracy_is_claimed(
    tmp_path: Path, given: dict[str, Any]
):
    with device():
        release = make_build(tmp_path / "run", **{**of_one_number(given), "iterations": 1, "max_drop": 100.0}).release
    loss = release.verification.loss
    assert release.network.task.kind is TaskKind.REGRESSION and release.verification.accuracy == {}
    assert release.verification.faithful and loss is not None and not loss.estimated
    assert loss.points.estimate == pytest.approx(100 - loss.agreement_percent.estimate)
    assert all(point.loss.kind is TaskKind.REGRESSION for point in release.frontier.points)
    assert (release.verdict.answer, release.verdict.exit_code) == (Answer.KEPT, 0)
    assert "points of agreement lost" in release.verdict.sentence and "top-1" not in release.verdict.sentence
    page = (tmp_path / "run" / "report.html").read_text()
    assert "estimated without labels" not in page and "Agreement lost" in page and "Variance explained" in page
    assert "top-1" not in page.lower() and "accuracy lost" not in page.lower()


def test_loss_of_accuracy_is_judged_on_labelled_images(copied: Copy, given: dict[str, Any], tmp_path: Path):
    asked = {**given, "data": _as_the_original_answers(copied(), tmp_path, given), "iterations": 1}
    with device():
        release = make_build(tmp_path / "run", **{**asked, "max_drop": 100.0}).release
        strict = make_build(tmp_path / "run", **{**asked, "max_drop": 0.0, "frontier": False}).release
    assert release.gate is not None and not release.gate.fails
    assert all(point.loss is not None and not point.loss.estimated for point in release.frontier.points)
    assert strict.gate is not None and strict.gate.fails and strict.verdict.exit_code == 1
    assert any(reason.startswith("--max-drop: ") and "at most 0 allowed" in reason for reason in strict.verdict.reasons)


def test_labels_that_the_original_does_not_know_prove_nothing(tmp_path: Path, given: dict[str, Any]):
    """Its answers are one and the same for noise, the labels are not."""
    _, data = write_inputs(tmp_path, labelled=True)
    with device():
        build = make_build(tmp_path / "run", **{**given, "data": data, "iterations": 0, "frontier": False})
        release = build.release
    assert (
        release.verdict.answer is Answer.NOT_PROVEN and "is indistinguishable from chance" in release.verdict.sentence
    )
    assert any("is indistinguishable from chance" in note for note in build.context.images.summary.notes)


def test_demand_on_the_accuracy_by_such_labels_is_refused_before_anything_is_measured(
    tmp_path: Path, given: dict[str, Any]
):
    _, data = write_inputs(tmp_path, labelled=True)
    with (
        device(),
        pytest.raises(InputError, match=r"--max-drop 1 cannot be judged: .*indistinguishable from chance") as raised,
    ):
        assert make_build(tmp_path / "run", **{**given, "data": data, "max_drop": 1.0}).release
    assert "--max-drop none" in raised.value.remedy
    assert not (tmp_path / "run" / "latency.json").exists() and not (tmp_path / "run" / "original.onnx").exists()


def _as_the_original_answers(run: Path, folder: Path, given: dict[str, Any]) -> Path:
    """Images with the class that the original gives most of them."""
    build = make_build(run, **given)
    with device(), torch.no_grad():
        answers = build.context.network.traced(build.context.images.fit.batch(slice(None))).argmax(1)
    arrays = dict(np.load(given["data"]))
    np.savez(folder / "known.npz", **arrays, labels=np.full(len(arrays["images"]), int(answers.mode().values)))
    return folder / "known.npz"


# The rehearsal.


def wrong_engine(spoil: Callable[[np.ndarray], np.ndarray]) -> ScriptedOrt:
    """A device whose results are not the network's."""

    class Wrong(ScriptedOrt):
        def open(self, artifact: Artifact, conditions: Conditions) -> Any:
            engine = super().open(artifact, conditions)
            right = engine.run
            engine.run = lambda tensors: {name: spoil(value) for name, value in right(tensors).items()}
            return engine

    return Wrong()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda outputs: outputs * np.float32(np.nan), "no numbers"), (lambda outputs: -outputs, "lowest cosine")],
    ids=["overflow", "sign"],
)
def test_device_that_computes_the_original_wrongly_is_exit_4_before_anything_is_measured(
    tmp_path: Path, given: dict[str, Any], spoil: Callable[[np.ndarray], np.ndarray], said: str
):
    build = make_build(tmp_path / "run", **given)
    with device(wrong_engine(spoil)), pytest.raises(VerificationFailed, match="ONNX -> engine") as refused:
        assert build.release
    assert said in refused.value.message and refused.value.remedy and refused.value.exit_code == 4
    assert set(build.context.run.decisions) == {"export-original", "rehearse"}


def test_original_that_is_exported_wrongly_is_exit_4_before_anything_is_planned(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "to_onnx", exported_wrongly)
    build = make_build(tmp_path / "run", **given)
    with device(), pytest.raises(VerificationFailed, match="teacher -> ONNX"):
        assert build.plan
    assert "recoverability" not in build.context.run.decisions


def test_disk_without_room_is_exit_3_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    build = make_build(tmp_path / "run", **given)
    with device(), pytest.raises(EnvironmentProblem, match="has 0 MB left") as refused:
        assert build.release
    assert "--out" in refused.value.remedy and not (tmp_path / "run" / "original.onnx").exists()


# A target that costs too much accuracy.


def losing(points: dict[int, float]) -> Callable[..., Verified]:
    """Recovery in closed form that leaves so many points of loss by the number of blocks, known to +-1."""

    def verified(calibration: CalibrationProblem, dropped: Sequence[Block], progress: Progress) -> Verified:
        known = verified_without(calibration, dropped, progress)
        estimate = points[len(dropped)]
        ends = Interval(estimate=estimate, low=estimate - 1, high=estimate + 1, confidence=0.95)
        assert known.loss is not None
        return Verified(known.errors, replace(known.loss, points=ends))

    return verified


@pytest.fixture
def _steep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "verified_without", losing({1: 1.0, 2: 1.5, 3: 15.0}))


@pytest.mark.usefixtures("_steep")
def test_target_that_costs_too_much_accuracy_is_exit_1_before_anything_is_finetuned(
    copied: Copy, given: dict[str, Any]
):
    """Three blocks lose 15 points, of which finetuning leaves three and a half at the very least."""
    build = make_build(copied(), **{**given, "drop": None, "reduce": 20})
    with device(), pytest.raises(TargetOutOfReach, match="within --max-drop 2, the default") as raised:
        assert build.release
    assert raised.value.exit_code == 1
    assert "costs 15.0 points of accuracy [14.0, 16.0]" in raised.value.message
    assert "15.4% less latency" in raised.value.message and "costs 1.5 points" in raised.value.message
    assert "--best-within-drop" in raised.value.remedy and "--reduce 15.3%" in raised.value.remedy
    assert not {"recover", "finetune", "export"} & set(build.context.run.decisions)


@pytest.mark.usefixtures("_steep")
def test_most_that_can_be_saved_within_the_demand_is_built_where_that_is_asked(copied: Copy, given: dict[str, Any]):
    asked = {**given, "drop": None, "reduce": 20, "iterations": 1, "frontier": False}
    with device():
        build = make_build(copied(), **asked, best_within_drop=True)
        release = build.release
    assert len(build.unreduced_plan.dropped) == 3 and len(release.plan.dropped) == 2
    assert release.plan.within_drop is not None and release.plan.target_percent is None
    assert release.plan.budget.reduce_percent == 20.0
    assert release.plan.measured_percent is not None
    assert (release.verdict.answer, release.verdict.exit_code) == (Answer.NOT_PROVEN, 0)
    assert "; the target, 20% less latency, would have cost more than --max-drop 2 allows" in release.verdict.sentence
    assert "Taken instead" in (build.context.run.folder / "report.html").read_text()


@pytest.mark.usefixtures("_steep")
def test_target_that_costs_too_much_accuracy_is_built_where_the_demand_is_waived_or_large(
    copied: Copy, given: dict[str, Any]
):
    folder, asked = copied(), {**given, "drop": None, "reduce": 20, "iterations": 1, "frontier": False}
    with device():
        for max_drop in ("none", 50.0):
            release = make_build(folder, **asked, max_drop=max_drop).release
            assert len(release.plan.dropped) == 3 and release.plan.within_drop is None
            assert release.verdict.kept


# A table of another device.


class ElsewhereOrt(ScriptedOrt):
    """Another device than the table's."""

    def device(self) -> Device:
        return Device(name="another device", fingerprint="0" * 64, versions={}, facts={})


def test_table_of_another_device_plans_by_its_prediction_and_says_so(copied: Copy, given: dict[str, Any]):
    folder = copied()
    table = folder.parent / "board.json"
    table.write_bytes((folder / "latency.json").read_bytes())
    asked = {**given, "drop": None, "reduce": 20, "latency_table": table, "iterations": 1, "frontier": False}
    with device(ElsewhereOrt()):
        build = make_build(folder, **asked)
        release = build.release
    assert "latency" not in build.context.run.decisions
    assert release.plan.measured_percent is None and release.plan.device == "scripted device"
    assert release.plan.reached and len(release.plan.dropped) == 3
    assert release.verdict.exit_code == 0
    assert "23.1% less latency predicted for scripted device" in release.verdict.sentence
    assert "not measured there; on another device" in release.verdict.sentence


def test_demanded_speedup_on_a_device_that_is_not_at_hand_fails_closed(copied: Copy, given: dict[str, Any]):
    folder = copied()
    table = folder.parent / "board.json"
    table.write_bytes((folder / "latency.json").read_bytes())
    with device(ElsewhereOrt()):
        release = make_build(
            folder, **{**given, "latency_table": table, "min_speedup": 1.05, "frontier": False}
        ).release
    assert release.speedup.low > 1.05
    assert release.verdict.exit_code == 1
    assert "not measured on scripted device" in release.verdict.reasons[0]


def test_table_of_this_device_is_planned_with_as_if_it_had_just_been_measured(
    copied: Copy, given: dict[str, Any], finished: Path
):
    build = make_build(copied(), **{**given, "latency_table": finished / "latency.json"})
    with device():
        assert build.plan.measured_percent is not None
    assert "latency" not in build.context.run.decisions


def test_table_of_another_network_is_refused_before_anything_is_measured(
    finished: Path, given: dict[str, Any], tmp_path: Path
):
    other = {**given, "network": given["network"].replace("tiny_resnet", "tiny_mobilenet"), "drop": 1}
    build = make_build(tmp_path / "run", **other, latency_table=finished / "latency.json")
    with device(), pytest.raises(InputError, match="another network"):
        assert build.release
    assert build.context.run.decisions == {}
