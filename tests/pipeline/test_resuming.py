"""Going on: what is the same is kept, what changed is computed again and nothing else, and it is said why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.scripted import device, make_build, write_inputs
from practise_deploy.pipeline.build import Build
from practise_deploy.run import read_arrays

ALL = {
    "rehearse", "latency", "recoverability", "plan", "within-drop", "recover", "finetune", "export-original", "export", "compile", "verify",
    "bench", "throughput", "frontier",
}  # fmt: skip
Copy = Callable[[], Path]


def go_on(folder: Path, **given: Any) -> Build:
    build = make_build(folder, **given)
    with device():
        assert build.release.verdict
    assert set(build.context.run.decisions) == ALL
    return build


def computed(build: Build) -> dict[str, str]:
    return {k: v.removeprefix("computed: ") for k, v in build.context.run.decisions.items() if v != "kept"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_same_build_again_computes_nothing_and_gives_the_same_release(copied: Copy, given: dict[str, Any]):
    folder = copied()
    before = contents(folder)
    assert computed(go_on(folder, **given)) == {}
    after = contents(folder)
    assert {name for name in before if before[name] != after[name]} <= {"samples.npz", "manifest.json"}
    old, new = (np.load(BytesIO(each["samples.npz"])) for each in (before, after))
    assert all(np.array_equal(old[name], new[name]) for name in old.files)


def test_other_iterations_leave_measurements_and_plan_alone(copied: Copy, given: dict[str, Any]):
    told: list[str] = []
    build = make_build(copied(), tell=told.append, **{**given, "iterations": 7})
    with device():
        assert build.release.finetuned.steps == 7
    assert set(computed(build)) - {"export", "compile", "verify", "bench", "throughput"} == {"finetune"}
    assert "finetune: computing, because steps changed" in told
    assert "plan: kept from the earlier run (same inputs)" in told


@pytest.mark.parametrize(
    "change, again, kept",
    [
        (
            {"threads": 2},
            {"latency", "plan", "verify", "bench", "throughput", "frontier"},
            {"recoverability", "recover", "finetune", "export"},
        ),
        pytest.param(
            {"seed": 1},
            {"latency", "recoverability", "plan", "recover", "finetune", "frontier", "bench"},
            {"export-original"},
            marks=pytest.mark.slow,
        ),
        ({"sessions": 3}, {"plan", "bench"}, {"latency", "recoverability", "export-original"}),
        ({"min_speedup": 1.1}, set(), ALL),
        ({"max_drop": 1.0}, {"within-drop"}, ALL - {"within-drop"}),
        ({"mean": "0.5,0.5,0.5", "std": "0.2,0.2,0.2", "iterations": 0}, {"recover", "verify"}, {"latency"}),
    ],
    ids=["threads", "seed", "sessions", "gate", "accuracy", "preprocessing"],
)
def test_changed_setting_recomputes_what_depends_on_it(
    copied: Copy, given: dict[str, Any], change: dict[str, Any], again: set[str], kept: set[str]
):
    found = computed(go_on(copied(), **{**given, **change}))
    assert again <= set(found) and not kept & set(found), found


def test_other_images_recompute_all_but_the_measurements(copied: Copy, given: dict[str, Any], tmp_path: Path):
    _, data = write_inputs(tmp_path, seed=1)
    found = computed(go_on(copied(), **{**given, "data": data}))
    assert {"recoverability", "recover", "finetune", "verify"} <= set(found)
    assert not {"latency", "export-original"} & set(found)
    assert "images" in found["recover"] and "held out images" in found["verify"]
    assert "held out images" in found["frontier"]


def test_other_blocks_judge_the_neighbours_again(copied: Copy, given: dict[str, Any]):
    """The same neighbouring sets may be around another plan, whose own set is then marked."""
    build = make_build(copied(), **{**given, "drop": 1})
    with device():
        points = build.frontier.points
    assert "dropped blocks" in computed(build)["frontier"]
    assert [len(point.dropped) for point in points if point.chosen] == [1, 1]


def test_same_images_in_another_file_recompute_nothing(copied: Copy, given: dict[str, Any], tmp_path: Path):
    moved = tmp_path / "moved.npz"
    moved.write_bytes(given["data"].read_bytes())
    assert computed(go_on(copied(), **{**given, "data": moved})) == {}


def test_models_that_are_gone_or_damaged_are_exported_again(copied: Copy, given: dict[str, Any]):
    folder = copied()
    model, original = folder / "model.onnx", folder / "original.onnx"
    before = model.read_bytes(), original.read_bytes()
    model.unlink()
    original.write_bytes(before[1][:1000])
    assert set(computed(go_on(folder, **given))) == {"export", "export-original"}
    assert (model.read_bytes(), original.read_bytes()) == before


def test_damaged_step_is_computed_again(copied: Copy, given: dict[str, Any]):
    folder = copied()
    (folder / "steps" / "plan.json").write_text('{"schema": 1, "budget')
    assert computed(go_on(folder, **given)) == {"plan": "plan.json is missing or changed"}


class _Killed:
    """A screen on which the build is interrupted, at the given step of finetuning; it notes where finetuning began."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps: list[float] = []

    @contextmanager
    def __call__(self, title: str) -> Iterator[_Killed]:
        self.finetuning = "inetun" in title
        yield self

    def advance(self, done: float, total: float, note: str = "") -> None:
        if self.finetuning:
            self.steps.append(done)
            if done == self.at:
                raise KeyboardInterrupt


@pytest.mark.parametrize("recipe", ["refit", "paper"])
def test_build_killed_while_finetuning_goes_on_to_the_same_weights(
    copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
):
    monkeypatch.setattr("practise_deploy.training.mimic._SAVE_EVERY_S", 0.0)
    asked = {**given, "iterations": 7, "recipe": recipe, "score_iterations": 2}
    folder, whole = copied(), tmp_path / "whole"
    with device():
        killed = make_build(folder, screen=_Killed(5), **asked)
        with pytest.raises(KeyboardInterrupt):
            assert killed.finetuned
        assert list((folder / "steps").glob("finetune*partial*"))
        resumed = make_build(folder, screen=(screen := _Killed(None)), **asked)
        weights = resumed.finetuned.weights
        assert screen.steps == [5, 6, 7]
        assert not list((folder / "steps").glob("*partial*"))
        uninterrupted = make_build(whole, **asked).finetuned
    assert set(weights) == set(uninterrupted.weights)
    assert all(np.array_equal(weights[name], uninterrupted.weights[name]) for name in weights)
    assert resumed.finetuned.history == uninterrupted.history
    kept = read_arrays(folder / "steps" / "finetune.npz")
    assert all(np.array_equal(weights[name], kept[name]) for name in weights)


def test_partial_weights_of_other_settings_are_not_taken_up(
    copied: Copy, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("practise_deploy.training.mimic._SAVE_EVERY_S", 0.0)
    folder = copied()
    with device():
        with pytest.raises(KeyboardInterrupt):
            assert make_build(folder, screen=_Killed(5), **{**given, "iterations": 8}).finetuned
        screen = _Killed(None)
        assert make_build(folder, screen=screen, **{**given, "iterations": 6}).finetuned
    assert screen.steps == [1, 2, 3, 4, 5, 6]
