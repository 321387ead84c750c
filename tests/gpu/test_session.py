"""benchmarks/gpu/session.sh where there is no GPU: what can be done is done, and all else is said to be skipped, and why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "session.sh"
STAGES = ["recoverability", "whole_recovery", "choice", "refit", "finetuning"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("bash", "timeout"))), reason="needs Linux, bash and timeout"
)


def session(folder: Path, *parts: str, **variables: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    plain |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "DEVICE": "cpu"}
    places = {name: str(folder / name.lower()) for name in ("RESULTS", "WORK", "DATA")}
    return subprocess.run(
        ["bash", str(SCRIPT), *parts], capture_output=True, text=True, env={**plain, **places, **variables}, timeout=300
    )


def written(folder: Path, name: str) -> Any:
    return json.loads((folder / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_without_a_gpu_the_rest_is_done_and_what_is_not_has_its_reason(tmp_path: Path) -> None:
    words = "--images 16 --steps 2 --paper-steps 1"
    ended = session(tmp_path, "learning-tiny", "tests", "events", "rtx", LEARNING=words)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]

    parts = written(tmp_path, "gpu_session")["parts"]
    assert {part: parts[part]["state"] for part in ("learning-tiny", "tests", "events", "rtx")} == {
        "learning-tiny": "done",
        "tests": "skipped",
        "events": "skipped",
        "rtx": "skipped",
    }
    for part in ("tests", "events", "rtx"):
        reason = parts[part]["reason"]
        assert ("NVIDIA driver" in reason or "No module" in reason) and reason in parts[part]["skipped"]
        assert f"skipped: {reason}" in ended.stdout
    assert [what.split(":")[0] for what in parts["learning-tiny"]["skipped"]] == ["images of tiny", "weights of tiny"]
    assert not (tmp_path / "results" / "gpu_tests.json").exists()

    found = written(tmp_path, "gpu_learning")["networks"]["tiny"]
    for side in ("there", "here"):
        assert list(found[side]["stages"]) == STAGES
        assert all(stage["seconds"] >= 0 for stage in found[side]["stages"].values())
    assert list(found["seconds_over_the_cpu"]) == STAGES
    assert (found["paper"]["scoring"]["steps"], found["paper"]["finetuning"]["steps"]) == (1000, 2000)
    assert all(found["paper"][which]["over_ours"] > 0 for which in ("scoring", "finetuning"))
    beside = found["beside_the_cpu"]["there"]
    assert beside["recoverability"]["rank_correlation"] == pytest.approx(1)
    assert beside["recoverability"]["largest_relative_difference"] < 1e-6
    assert beside["choice"]["same"] and beside["choice"]["sets"][0]
    for stage in ("refit", "finetuning"):
        assert beside[stage]["same_answers_percent"] == 100
        assert beside[stage]["mse"][0] == pytest.approx(beside[stage]["mse"][1], rel=1e-6)
        assert "top1_percent" not in beside[stage]  # nothing was learned, and nothing real was seen


def test_parts_that_no_time_is_left_for_are_skipped_and_earlier_results_stay(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    kept = {"schema": 1, "parts": {"events": {"state": "done", "reason": "", "seconds": 3, "skipped": []}}}
    (tmp_path / "results" / "gpu_session.json").write_text(json.dumps(kept))
    ended = session(tmp_path, "learning", "tests", LIMIT="5")
    assert ended.returncode == 0, ended.stderr
    parts = written(tmp_path, "gpu_session")["parts"]
    assert parts["events"] == kept["parts"]["events"]
    for part in ("learning-efficientnet-lite0", "learning-resnet50", "tests"):
        assert (parts[part]["state"], parts[part]["reason"]) == ("skipped", "no time was left of 5 s")


def test_an_unknown_part_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    ended = session(tmp_path, "evnets")
    assert ended.returncode == 2
    assert "evnets" in ended.stderr and "events" in ended.stderr
    assert not (tmp_path / "results").exists()
