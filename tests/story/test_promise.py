"""The promise: kept, broken, out of reach, or shipped wrong, each with its exit code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from practise_backends.terms import Artifact
from practise_deploy import build as story
from practise_deploy.errors import EnvironmentProblem, TargetOutOfReach
from practise_deploy.shipping.export import export_onnx
from story.scripted import ScriptedOrt, device, make_build, ms_by_convolutions

Copy = Callable[[], Path]


def test_reachable_reduction_is_reached_with_the_fewest_blocks(copied: Copy, given: dict[str, Any]):
    """A block is 0.2 of 2.6 ms, 7.7%: 20% takes three of them."""
    with device():
        release = make_build(copied(), **{**given, "drop": None, "reduce": 20, "iterations": 1}).release
    assert len(release.plan.dropped) == 3 and release.plan.reached
    assert release.verdict.kept and release.verdict.exit_code == 0
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
    with device(ScriptedOrt(lambda artifact: 1.0)), pytest.raises(TargetOutOfReach, match="told from none"):
        assert build.release
    assert build.plan.dropped == () and not build.plan.reached


def test_model_that_is_no_faster_in_the_end_breaks_the_promise(copied: Copy, given: dict[str, Any]):
    """Variants (bytes) are timed honestly, the finished files are not faster."""

    def deceiving(artifact: Artifact) -> float:
        return ms_by_convolutions(artifact) if isinstance(artifact.content, bytes) else 2.6

    with device(ScriptedOrt(deceiving)):
        release = make_build(copied(), **{**given, "threads": 3}).release
    assert not release.verdict.kept and release.verdict.exit_code == 1
    assert "does not exclude 1" in release.verdict.reasons[0]


def test_less_than_was_asked_breaks_the_promise(copied: Copy, given: dict[str, Any]):
    """The finished model is a little slower than its plan was."""

    def optimistic(artifact: Artifact) -> float:
        worse = not isinstance(artifact.content, bytes) and artifact.content.name == "model.onnx"
        return ms_by_convolutions(artifact) * (1.1 if worse else 1.0)

    with device(ScriptedOrt(optimistic)):
        release = make_build(copied(), **{**given, "drop": None, "reduce": 15, "threads": 3}).release
    assert release.verdict.exit_code == 1 and "asked for 15.0% less latency" in release.verdict.reasons[0]
    assert release.speedup.low > 1


def test_wrongly_exported_network_is_exit_4(copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    def export_wrongly(network: torch.fx.GraphModule, shape: Any, path: Path, *, dynamic_batch: bool) -> Any:
        wrong = copy.deepcopy(network)
        if path.name == story.MODEL:
            with torch.no_grad():
                wrong.get_submodule("fc").weight.neg_()
        return export_onnx(wrong, shape, path, dynamic_batch=dynamic_batch)

    monkeypatch.setattr(story, "export_onnx", export_wrongly)
    folder = copied()
    (folder / "model.onnx").unlink()
    with device():
        release = make_build(folder, **given).release
    assert not release.verification.faithful and release.verdict.exit_code == 4
    assert "student -> ONNX" in release.verdict.reasons[0]


def test_missing_backend_is_exit_3(tmp_path: Path, given: dict[str, Any]):
    with pytest.raises(EnvironmentProblem, match="'trt'") as raised:
        assert make_build(tmp_path / "run", **{**given, "backend": "trt"}).release
    assert raised.value.exit_code == 3 and "ort" in raised.value.remedy
    assert not (tmp_path / "run").exists()
