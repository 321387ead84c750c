"""Every kind of file that a user may name, in every state that it may be in: one error with its path, and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.test_files import finished
from damages import DAMAGES, Damage, below_a_file, empty, pipe, told

Cli = Callable[..., Any]
Words = Callable[[Path, tuple[object, ...]], tuple[object, ...]]


def of_images(file: Path, job: tuple[object, ...]) -> tuple[object, ...]:
    return ("plan", job[0], "--input-size", 16, "--data", file)


FILES: dict[str, tuple[str, Words]] = {
    "weights": ("w.pth", lambda file, job: ("inspect", job[0], "--input-size", 16, "--weights", file)),
    "weights to build with": ("w.pt", lambda file, job: ("build", *job, "--weights", file)),
    "safetensors": ("w.safetensors", lambda file, job: ("inspect", job[0], "--input-size", 16, "--weights", file)),
    "Python file": ("net.py", lambda file, _: ("inspect", f"{file}:make")),
    "exported network": ("net.pt2", lambda file, _: ("inspect", file)),
    "arrays": ("images.npz", of_images),
    "list": ("list.txt", of_images),
    "arrays to judge": ("eval.npz", lambda file, job: ("plan", *job, "--eval", file)),
    "list to judge": ("eval.txt", lambda file, job: ("plan", *job, "--eval", file)),
    "TOML": ("s.toml", lambda file, job: ("plan", *job, "--config", file)),
    "JSON": ("s.json", lambda file, job: ("plan", *job, "--config", file)),
    "table": ("t.json", lambda file, job: ("plan", *job, "--latency-table", file)),
    "tables": ("t.json", lambda file, _: ("latency", "--diff", file, file)),
    "ONNX to bench": ("a.onnx", lambda file, _: ("bench", file)),
    "engine to bench": ("a.engine", lambda file, _: ("bench", file)),
    "ONNX to compare": ("a.onnx", lambda file, _: ("compare", file, file)),
    "ORT to compare": ("a.ort", lambda file, _: ("compare", file, file)),
}
FINE = {("TOML", pipe), ("JSON", pipe), ("TOML", empty)}
"""A shell's <(...), which somebody writes into; and no settings at all."""
NO_FILE = {one for one in DAMAGES if one.__name__ in ("missing", "below_a_file", "folder", "pipe", "circle")}
CASES = [(kind, damage) for kind in FILES for damage in DAMAGES if (kind, damage) not in FINE]


@pytest.mark.parametrize(("kind", "damage"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_file_that_cannot_be_used(cli: Cli, job: tuple[object, ...], tmp_path: Path, kind: str, damage: Damage):
    name, words = FILES[kind]
    file = tmp_path / "given" / name
    file.parent.mkdir()
    damage(file)
    said = cli(*words(file, job))
    assert (said.code, said.out) == (2, "") and told(said.err, file), said.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one not in NO_FILE], ids=lambda one: one.__name__)
def test_image_that_cannot_be_used(cli: Cli, job: tuple[object, ...], tmp_path: Path, damage: Damage):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number:02}.png")
    (folder / "07.png").unlink()
    damage(folder / "07.png")
    said = cli(*of_images(folder, job))
    assert (said.code, said.out) == (2, "") and told(said.err, folder / "07.png"), said.err


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_class_names_that_cannot_be_used(cli: Cli, job: tuple[object, ...], tmp_path: Path, damage: Damage):
    file = tmp_path / "given" / "names.txt"
    file.parent.mkdir()
    damage(file)
    images = np.zeros((20, 16, 16, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    np.savez(tmp_path / "labelled.npz", images=images, labels=np.arange(20) % 10)
    said = cli(*of_images(tmp_path / "labelled.npz", job), "--classes", file)
    assert (said.code, said.out) == (2, "") and told(said.err, file), said.err


def test_class_names_for_images_without_labels_are_not_passed_over(cli: Cli, job: tuple[object, ...], tmp_path: Path):
    np.savez(tmp_path / "plain.npz", images=np.zeros((20, 16, 16, 3), np.uint8))
    said = cli(*of_images(tmp_path / "plain.npz", job), "--classes", "names.txt")
    assert (said.code, said.out) == (2, "") and told(said.err, "names.txt"), said.err


RUNS: dict[str, tuple[str, Words]] = {
    "release": ("release.json", lambda run, _: ("report", run)),
    "release of several": ("release.json", lambda run, _: ("report", run, run.parent / "whole")),
    "samples": ("samples.npz", lambda run, _: ("report", run)),
    "manifest": ("manifest.json", lambda run, _: ("report", run)),
    "release to bench": ("release.json", lambda run, _: ("bench", run)),
    "model to bench": ("model.onnx", lambda run, _: ("bench", run)),
    "model": ("model.onnx", lambda run, _: ("compare", run)),
    "original": ("original.onnx", lambda run, _: ("compare", run)),
    "settings to bench with": ("settings.json", lambda run, _: ("bench", run)),
    "settings": ("settings.json", lambda run, _: ("plan", "--out", run)),
}
NOT_NEEDED = {"samples", "manifest", "settings to bench with"}
OF_RUNS = [
    (kind, damage)
    for kind in RUNS
    for damage in DAMAGES
    if damage is not below_a_file and not (kind in NOT_NEEDED and damage in NO_FILE)
]


@pytest.mark.parametrize(("kind", "damage"), OF_RUNS, ids=lambda one: getattr(one, "__name__", one))
def test_run_folder_that_cannot_be_used(cli: Cli, job: tuple[object, ...], tmp_path: Path, kind: str, damage: Damage):
    name, words = RUNS[kind]
    run, _ = finished(tmp_path / "run"), finished(tmp_path / "whole")
    (run / name).unlink(missing_ok=True)
    damage(run / name)
    said = cli(*words(run, job))
    assert (said.code, said.out) == (2, "") and told(said.err, run), said.err
    assert not (run / "report.html").exists() and not (run / "bench.json").exists()


def test_samples_that_are_no_file_are_not_waited_for(cli: Cli, tmp_path: Path):
    run = finished(tmp_path / "run")
    pipe(run / "samples.npz")
    said = cli("report", run)
    assert said.code == 2 and told(said.err, run / "samples.npz"), said.err
