"""Bad input: one clear message on stderr, the documented exit code, no traceback, nothing written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from networks import tiny_resnet
from practise_backends.runtimes.catalog import load_backend
from practise_deploy.errors import InputError
from practise_deploy.pipeline.build import Build

Job = tuple[object, ...]
Cli = Callable[..., Any]


def refused(said: Any, code: int, *words: str) -> None:
    """One error, with these words in it, and nothing on stdout or on the disk."""
    assert said.code == code, said.err
    assert said.err.count("error: ") == 1 and said.out == ""
    for word in words:
        assert word in said.err, said.err
    assert not list(Path.cwd().iterdir())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def on(job: Job, data: Path) -> Job:
    """The same job on other images."""
    return (job[0], "--input-size", 16, "--data", data, *job[3:])


def test_missing_weights_file(cli: Cli, job: Job):
    refused(cli("build", *job, "--weights", "nowhere.pth"), 2, "no such weights file: nowhere.pth")


def test_wrong_weights_are_listed(cli: Cli, job: Job, tmp_path: Path):
    weights = tiny_resnet().state_dict()
    weights["head.weight"] = weights.pop("fc.weight")
    weights["fc.bias"] = torch.zeros(7)
    torch.save(weights, tmp_path / "other.pth")
    said = cli("build", *job, "--weights", tmp_path / "other.pth")
    refused(said, 2, "missing: fc.weight", "unexpected: head.weight", "wrong shape: fc.bias (7,) instead of (10,)")


def test_weights_that_are_no_weights(cli: Cli, job: Job, tmp_path: Path):
    (tmp_path / "text.pth").write_text("these are not weights")
    said = cli("build", *job, "--weights", tmp_path / "text.pth")
    refused(said, 2, "cannot read the weights file", "text.pth", "torch.save(network.state_dict(), path)")
    assert "weights_only" not in said.err


@pytest.mark.parametrize("flag", ["--eval", "--classes"])
def test_images_to_judge_beside_the_embedded_ones_are_refused_and_not_ignored(cli: Cli, tmp_path: Path, flag: str):
    refused(cli("plan", "digits", flag, "nope", "--out", tmp_path / "run"), 2, f"{flag} without --data")
    assert not (tmp_path / "run" / "settings.json").exists()


def test_setting_out_of_its_bounds_is_told_by_its_flag(cli: Cli, job: Job):
    refused(cli("build", *job, "--target-ms", 0), 2, "--target-ms 0.0: must be greater than 0")
    refused(cli("build", *job, "--seed", 2**32), 2, "--seed 4294967296: must be less than 4294967296")


def test_broken_image_is_named(cli: Cli, job: Job, photos: Path):
    (photos / "07.png").write_bytes(b"no image at all")
    refused(cli("build", *on(job, photos), "--drop", 1), 2, "broken image", "07.png", "--skip-bad-images")


def test_truncated_image_is_named(cli: Cli, job: Job, photos: Path):
    (photos / "07.png").write_bytes((photos / "07.png").read_bytes()[:300])
    refused(cli("build", *on(job, photos), "--drop", 1), 2, "broken image", "07.png")


def test_broken_image_is_skipped_and_counted(cli: Cli, job: Job, photos: Path, monkeypatch: pytest.MonkeyPatch):
    (photos / "07.png").write_bytes(b"no image at all")
    seen: list[Build] = []

    def stop(build: Build) -> None:
        seen.append(build)
        raise InputError("far enough", remedy="go on")

    monkeypatch.setattr("practise_deploy.pipeline.context.BuildContext.candidates", property(stop))
    refused(cli("build", *on(job, photos), "--skip-bad-images"), 2, "far enough")
    images = seen[0].images.summary
    assert len(images.skipped) == 1 and "07.png" in images.skipped[0]
    assert images.fit + images.held_out == 19


def test_empty_folder(cli: Cli, job: Job, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refused(cli("build", *on(job, tmp_path / "empty")), 2, "holds no images")


def test_fewer_than_eight_images_says_why(cli: Cli, job: Job, photos: Path):
    for file in sorted(photos.iterdir())[6:]:
        file.unlink()
    refused(cli("build", *on(job, photos)), 2, "at least 8", "memorised")


def test_missing_images(cli: Cli, job: Job):
    refused(cli("build", *on(job, Path("nowhere"))), 2, "no such folder or file: nowhere")


def test_no_images_at_all(cli: Cli, job: Job):
    refused(cli("build", job[0], "--input-size", 16), 2, "tiny set is missing", "--data")


def test_broken_npz(cli: Cli, job: Job, inputs: tuple[Path, Path], tmp_path: Path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(inputs[1].read_bytes()[:2000])
    refused(cli("build", *on(job, broken)), 2, "broken.npz")


def test_npz_without_images(cli: Cli, job: Job, tmp_path: Path):
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    refused(cli("build", *on(job, tmp_path / "other.npz")), 2, "no array 'images'", "pictures")


@pytest.mark.parametrize("command", ["latency", "plan", "build"])
def test_network_without_residual_block(cli: Cli, job: Job, inputs: tuple[Path, Path], command: str):
    plain = (f"{inputs[0]}:plain_network", *job[1:])
    refused(cli(command, *plain), 2, "no block can be dropped: nowhere does a value meet", "x + f(x)")


def test_inspecting_a_network_without_residual_block(cli: Cli, inputs: tuple[Path, Path]):
    said = cli("inspect", f"{inputs[0]}:plain_network", "--input-size", 16, "--json")
    assert said.code == 2 and said.err.count("error: ") == 1 and "no block can be dropped" in said.err
    assert said.document["blocks"] == []


def test_unreachable_target_says_the_best_that_can_be_had(cli: Cli, job: Job):
    said = cli("build", *job, "--target-ms", "0.3", "--out", "run")
    assert said.code == 1 and said.out == "" and said.err.count("error: ") == 1
    assert "out of reach" in said.err and "1.200 ms of 2.600 ms" in said.err and "--reduce 53%" in said.err
    assert not (Path("run") / "release.json").exists() and not (Path("run") / "model.onnx").exists()


def test_more_blocks_than_there_are(cli: Cli, job: Job):
    said = cli("plan", *job, "--drop", 8, "--out", "run")
    assert said.code == 2 and "--drop 8: only 7 blocks" in said.err and said.err.count("error: ") == 1


@pytest.mark.parametrize("below", [".", "run", "deep/run"])
def test_unwritable_output(cli: Cli, job: Job, tmp_path: Path, below: str):
    """Below a file nobody can write, not even root."""
    (tmp_path / "file").write_text("a file")
    said = cli("build", *job, "--out", tmp_path / "file" / below)
    refused(said, 3, "cannot write", "choose another --out")
    assert (tmp_path / "file").read_text() == "a file"


def test_unknown_option(cli: Cli, job: Job):
    refused(cli("build", *job, "--redcue", "20%"), 2, "--redcue", "see practise-deploy build --help")


def test_unknown_command(cli: Cli):
    refused(cli("bild"), 2, "bild", "see practise-deploy --help")


@pytest.mark.parametrize(
    "option, words",
    [
        (("--threads", "many"), ("--threads", "integer")),
        (("--threads", 0), ("threads", "greater than or equal to 1")),
        (("--reduce", "120%"), ("reduce", "below 100%")),
        (("--reduce", "much"), ("reduce", "number")),
        (("--recipe", "secret"), ("recipe", "refit")),
        (("--drop", 0), ("drop",)),
        (("--mean", "a,b"), ("mean",)),
        (("--compute", "tpu"), ("compute", "cuda")),
    ],
)
def test_option_with_a_bad_value(cli: Cli, job: Job, option: Job, words: tuple[str, ...]):
    refused(cli("build", *job, *option), 2, *words)


def test_two_targets_at_once(cli: Cli, job: Job):
    refused(cli("build", *job, "--drop", 1, "--reduce", "20%"), 2, "one target", "--reduce and --drop")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("s.toml", "treads = 2", ("unknown setting 'treads'", "did you mean 'threads'")),
        ("s.json", '{"threads": "x"}', ("--threads x: must be a valid integer",)),
        ("s.toml", "threads = = 2", ("not valid",)),
        ("s.json", "[1]", ("must hold a table",)),
        ("s.toml", "drop = 1\nreduce = 20", ("one target",)),
    ],
    ids=["unknown key", "bad value", "bad syntax", "no table", "two targets"],
)
def test_bad_settings_file(cli: Cli, job: Job, tmp_path: Path, name: str, content: str, words: tuple[str, ...]):
    (tmp_path / name).write_text(content)
    refused(cli("build", *job, "--config", tmp_path / name), 2, *words)


def test_missing_settings_file(cli: Cli, job: Job):
    refused(cli("build", *job, "--config", "nowhere.toml"), 2, "cannot read the settings file nowhere.toml")


@pytest.mark.parametrize(
    "network, words",
    [
        ("resnet34", ("unknown network 'resnet34'", "torchvision:NAME")),
        ("torchvision:resnet43", ("no network 'resnet43'", "did you mean")),
        ("nowhere.py:make", ("no such file: nowhere.py",)),
        ("nowhere.pt2", ("no such file: nowhere.pt2",)),
        ("", ("unknown network ''",)),
        ("nowhere.onnx", ("no such file: nowhere.onnx",)),
        ("model.engine", ("model.engine is compiled", "practise-deploy bench model.engine")),
    ],
)
def test_unknown_network(cli: Cli, job: Job, network: str, words: tuple[str, ...]):
    refused(cli("build", network, *job[1:]), 2, *words)


@pytest.mark.parametrize(
    "file, words",
    [("settings.json", ("is a run folder", "give it as --out ")), ("config.json", ("Hugging Face", "write hf:"))],
)
def test_folder_for_a_network(cli: Cli, job: Job, tmp_path: Path, file: str, words: tuple[str, ...]):
    (tmp_path / file).write_text("{}")
    refused(cli("finetune", tmp_path, *job[1:]), 2, *words)


@pytest.mark.parametrize(
    "function, words",
    [
        (
            "broken",
            (
                "nets.py:broken failed in line ",
                "RuntimeError: no such layer",
            ),
        ),
        ("missing", ("has no function 'missing'", "broken", "tiny_resnet")),
        ("number", ("has no function 'number'",)),
    ],
)
def test_function_of_a_file(cli: Cli, job: Job, inputs: tuple[Path, Path], function: str, words: tuple[str, ...]):
    refused(cli("build", f"{inputs[0]}:{function}", *job[1:]), 2, *words)


def test_file_with_a_syntax_error(cli: Cli, job: Job, tmp_path: Path):
    (tmp_path / "bad.py").write_text("def make(:")
    refused(cli("build", f"{tmp_path / 'bad.py'}:make", *job[1:]), 2, "bad.py", "SyntaxError")


@pytest.mark.parametrize(
    "body, words",
    [
        ("import sys\ndef make():\n    sys.exit(1)\n", ("make ended with exit(1) in line 3", "__main__")),
        (
            "from torch import nn\nclass Two(nn.Module):\n    def forward(self, image, mask):\n        return image\nmake = Two\n",
            ("needs image, mask", "FILE.py:wrapped"),
        ),
        (
            "from torch import nn\nclass Dict(nn.Module):\n    def forward(self, x):\n        return {'out': 'x'}\nmake = Dict\n",
            ("returns a dict of out, and no tensor in it", "FILE.py:FUNCTION"),
        ),
    ],
    ids=["exits", "two inputs", "a dict"],
)
def test_network_of_a_file_that_cannot_be_taken(cli: Cli, tmp_path: Path, body: str, words: tuple[str, ...]):
    (tmp_path / "nets.py").write_text(body)
    refused(
        cli("inspect", f"{tmp_path / 'nets.py'}:make", "--input-size", 16),
        2,
        "nets.py" if "exit" in body else "",
        *words,
    )


def test_weights_that_are_no_plain_numbers(cli: Cli, job: Job, tmp_path: Path):
    weights = tiny_resnet().state_dict()
    torch.save({"net": {**weights, "fc.bias": weights["fc.bias"].to_sparse()}}, tmp_path / "odd.pth")
    refused(cli("inspect", job[0], "--weights", tmp_path / "odd.pth"), 2, "odd.pth", "fc.bias is sparse", ".to_dense()")


def test_backend_is_missed_before_anything_is_read(cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("practise_deploy.deployment.target.load_backend", load_backend)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    refused(cli("latency", *job, "--backend", "trt"), 3, "backend 'trt'")


def test_missing_backend(cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("practise_deploy.deployment.target.load_backend", load_backend)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    refused(cli("build", *job, "--backend", "trt"), 3, "backend 'trt'", "pip install", "practise-backends[trt]")


def test_exported_file_cannot_be_built_but_measured_and_exported(cli: Cli, job: Job, tmp_path: Path):
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(tiny_resnet(), (torch.zeros(1, 3, 16, 16),)), file)
    refused(cli("build", file, *job[1:]), 2, "torch.export file", "not replanned", "FILE.py:FUNCTION")
    refused(cli("finetune", file, *job[1:]), 2, "torch.export file")
    measured = cli("latency", file, *job[3:], "--out", "run", "--json")
    assert measured.code == 0 and len(measured.document["savings"]) == 7, measured.err
    exported = cli("export", file, *job[3:], "--out", "run", "--json")
    assert exported.code == 0 and exported.document["path"] == "original.onnx", exported.err
    assert (Path("run") / "original.onnx").is_file() and not (Path("run") / "model.onnx").exists()


def test_damaged_settings_of_an_earlier_run(cli: Cli):
    Path("run").mkdir()
    for content in ('{"network": ', "[1]", '"text"'):
        (Path("run") / "settings.json").write_text(content)
        said = cli("plan", "--out", "run")
        assert said.code == 2 and said.err.count("error: ") == 1 and "settings.json" in said.err


def test_failed_command_leaves_the_settings_of_the_earlier_run_alone(cli: Cli, job: Job):
    assert cli("latency", *job, "--out", "run").code == 0
    before = (Path("run") / "settings.json").read_text()
    assert cli("latency", "--out", "run", "--weights", "nowhere.pth").code == 2
    assert (Path("run") / "settings.json").read_text() == before
    assert json.loads(before)["weights"] is None


def test_python_file_without_a_function_name_says_so(cli: Cli, inputs: tuple[Path, Path]):
    said = cli("inspect", inputs[0])
    assert said.code == 2 and "names no function" in said.err


def test_input_that_does_not_fit_into_memory_is_said(cli: Cli, inputs: tuple[Path, Path]):
    said = cli("inspect", f"{inputs[0]}:tiny_resnet", "--input-size", 10_000_000)
    assert said.code in (2, 3) and "memory" in said.err


class Unforeseen(Exception):
    """What no line of the product knows."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Unforeseen("the moon"), 70, ("unexpected Unforeseen: the moon", "PRACTISE_DEBUG=1")),
        (MemoryError(), 3, ("out of memory", "--batch-size")),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 3, ("out of memory",)),
        (RuntimeError("std::bad_alloc"), 3, ("out of memory",)),
        (OSError(24, "Too many open files"), 3, ("the system refused: Too many open files", "remedy: ", "ulimit")),
        (
            PermissionError(13, "Permission denied", "a.bin"),
            3,
            ("cannot read or write a.bin: Permission denied", "remedy: "),
        ),
    ],
)
def test_what_nobody_foresaw_is_one_message(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words
):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("practise_deploy.cli.running.read_settings", fails)
    refused(cli("inspect", "digits"), code, *words)


def test_what_nobody_foresaw_is_raised_for_who_looks_into_it(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> None:
        raise Unforeseen

    monkeypatch.setattr("practise_deploy.cli.running.read_settings", fails)
    monkeypatch.setenv("PRACTISE_DEBUG", "1")
    with pytest.raises(Unforeseen):
        cli("inspect", "digits")
