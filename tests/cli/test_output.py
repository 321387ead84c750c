"""What a program reads: one JSON document on stdout, all else on stderr; and going on in a run folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

Job = tuple[object, ...]
Cli = Callable[..., Any]
COMMANDS = (
    "inspect",
    "latency",
    "plan",
    "finetune",
    "export",
    "verify",
    "bench",
    "build",
    "compare",
    "report",
    "doctor",
)
BLOCK = {"name", "shape", "parameters", "macs", "latency_class", "droppable", "reason"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(cli: Cli, command: str):
    said = cli(command, "--help")
    assert said.code == 0 and "Usage" in said.out and "--json" in said.out and said.err == ""


def test_help_lists_settings_under_the_part_that_they_are_of(cli: Cli):
    sections = dict(re.findall(r"^(\w[\w ]*):\n(.*?)(?=^\w|\Z)", cli("build", "--help").out, re.M | re.S))
    assert list(sections)[1:] == [
        "Options", "Network", "Images", "Device and measurement", "Target and gates", "Recovery", "Options of backends",
    ]  # fmt: skip
    assert "--weights" in sections["Network"] and "--data" in sections["Images"] and "--out" in sections["Options"]
    assert "--workspace-mib" in sections["Options of backends"]


def test_help_lists_all_commands(cli: Cli):
    said = cli("--help")
    assert said.code == 0 and all(command in said.out for command in COMMANDS)


def test_version_is_that_of_the_package(cli: Cli):
    said = cli("--version")
    assert (said.code, said.out, said.err) == (0, f"practise-deploy {version('practise-deploy')}\n", "")


def test_no_command_shows_the_help_without_an_error(cli: Cli):
    said = cli()
    assert said.code == 2 and said.out == "" and "Usage" in said.err and "error" not in said.err


def test_help_needs_no_heavy_library():
    script = (
        "import sys; sys.argv = ['practise-deploy', '--help']\n"
        "from practise_deploy.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "build" in done.stdout
    assert done.stderr.strip() == "[]"


def test_inspect_keeps_its_contract(cli: Cli, inputs: tuple[Path, Path]):
    said = cli("inspect", f"{inputs[0]}:tiny_resnet", "--input-size", 16, "--json")
    assert said.code == 0
    document = said.document
    assert document["schema"] == 1
    blocks = {block["name"]: block for block in document["blocks"]}
    assert all(set(block) >= BLOCK for block in blocks.values())
    assert blocks["layer1.0"]["shape"] == [8, 16, 16] and blocks["layer1.0"]["parameters"] == 2 * 8 * 8 * 9 + 4 * 8
    assert blocks["layer1.0"]["macs"] == 2 * 8 * 8 * 9 * 16 * 16
    assert blocks["layer1.0"]["latency_class"] == blocks["layer1.1"]["latency_class"]
    assert {name for name, block in blocks.items() if not block["droppable"]} == {"layer2.0", "layer3.0"}
    assert all(bool(block["reason"]) != block["droppable"] for block in blocks.values())
    assert not list(Path.cwd().iterdir())


def test_every_stage_alone_goes_on_in_the_run_folder(cli: Cli, job: Job):
    first = cli("latency", *job, "--drop", 1, "--out", "run", "--json")
    assert first.code == 0 and first.document["schema"] == 2 and len(first.document["savings"]) == 7
    planned = cli("plan", "--out", "run", "--json", "--explain")
    assert planned.code == 0 and planned.document["reached"] and len(planned.document["dropped"]) == 1
    assert "latency: kept" in planned.err and "plan: computing, because" in planned.err
    assert "within-drop: computing, because" in planned.err
    for stage, key in (("finetune", "mse"), ("export", "sha256"), ("verify", "faithful"), ("bench", "speedup")):
        said = cli(stage, "--out", "run", "--json")
        measured = stage == "bench"  # a record of the device half, which has a schema of its own
        assert said.code == 0 and key in said.document and said.document["schema"] == (2 if measured else 4), said.err
    built = cli("build", "--out", "run", "--json", "--explain")
    assert built.code == 0 and set(built.document["speedup"]) == {"estimate", "low", "high", "confidence"}
    computed = [line.split(":")[0] for line in built.err.splitlines() if "computing, because" in line]
    assert computed == ["throughput", "frontier"]
    assert built.document == json.loads(Path("run/release.json").read_text())
    shown = cli("build", "--out", "run")
    assert shown.code == 0 and "Speed-up" in shown.out and "Verdict" in shown.out
    again = cli("plan", "--out", "run", "--explain", "--fresh")
    assert "plan: computing, because a fresh one was asked for" in again.err and "latency: kept" in again.err
    quiet = cli("plan", "--out", "run", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_what_a_users_file_prints_is_kept_off_stdout(cli: Cli, inputs: tuple[Path, Path], tmp_path: Path):
    chatty = tmp_path / "chatty.py"
    chatty.write_text("print('hello from the file')\n" + inputs[0].read_text())
    said = cli("inspect", f"{chatty}:tiny_resnet", "--input-size", 16, "--json")
    assert said.document["blocks"] and "hello from the file" in said.err


def test_run_folder_that_is_none_is_refused_rather_than_built(cli: Cli, tmp_path: Path):
    said = cli("verify", "--out", tmp_path / "typo")
    assert said.code == 2 and "no run in" in said.err and not (tmp_path / "typo").exists()


@pytest.mark.slow
def test_fresh_build_computes_every_stage_again(cli: Cli, job: Job, tmp_path: Path):
    command = ("build", *job, "--drop", 1, "--out", tmp_path / "run", "--explain")
    cli(*command)
    kept, fresh = cli(*command).err, cli(*command, "--fresh").err
    assert kept.count("kept from the earlier run") == 14 and "computing" not in kept
    assert fresh.count("a fresh one was asked for") == 14


def test_settings_of_a_run_are_a_settings_file(cli: Cli, job: Job, tmp_path: Path):
    first = cli("latency", *job, "--out", tmp_path / "a", "--json")
    again = cli("latency", "--config", tmp_path / "a" / "settings.json", "--out", tmp_path / "b", "--json")
    assert first.code == again.code == 0
    assert [s["block"] for s in again.document["savings"]] == [s["block"] for s in first.document["savings"]]


def test_unreached_plan_is_shown_and_exits_1(cli: Cli, job: Job):
    said = cli("plan", *job, "--reduce", "90", "--out", "run", "--json")
    assert said.code == 1 and not said.document["reached"] and len(said.document["dropped"]) == 7


def test_interrupted_command_says_how_to_go_on(cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("practise_deploy.pipeline.stages.measure_block_latency", interrupt)
    said = cli("latency", *job, "--out", "run")
    assert said.code == 130 and "interrupted" in said.err and "resumes" in said.err


def test_folder_in_use_is_refused(cli: Cli, job: Job):
    from filelock import FileLock

    Path("run").mkdir()
    with FileLock(Path("run/.lock")):
        said = cli("latency", *job, "--out", "run")
    assert said.code == 2 and "another build is writing" in said.err
    assert [f.name for f in Path("run").iterdir() if f.name not in (".lock", "steps")] == []
