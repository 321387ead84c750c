"""`practise-deploy kit`, from a network or a run, and the plan made with the table that a kit brought home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.scripted import ScriptedOrt
from practise_backends.cli import main as measure
from practise_backends.results.bundle import read_kit
from practise_backends.runtimes import catalog

Cli = Callable[..., Any]


@pytest.fixture
def network(inputs: tuple[Path, Path]) -> str:
    return f"{inputs[0]}:tiny_resnet"


def test_kit_of_a_network_lies_in_its_run_folder(cli: Cli, network: str):
    said = cli("kit", network, "--out", "r", "--threads", 2, "--json")
    assert said.code == 0, said.err
    assert said.document["folder"] == "r/kit"
    kit = read_kit(Path("r/kit"))
    assert kit.asked.threads == 2 and kit.network == network
    assert kit.plan == f"practise-deploy plan {network} --threads 2 --out r --data IMAGES"
    assert [path.name for path in Path("r").iterdir()] == ["kit"]  # a kit is asked for, not a run with these settings


def test_kit_of_a_run_takes_its_network_and_settings(cli: Cli, network: str):
    asked = (network, "--out", "r", "--batch", 3, "--input-size", 16)
    assert cli("latency", *asked).code == cli("kit", *asked, "--kit", "one").code == 0
    before = Path("r/settings.json").read_text()
    said = cli("kit", "r", "--threads", 2, "--kit", "elsewhere/two")
    assert Path("r/settings.json").read_text() == before
    assert said.code == 0, said.err
    told = " ".join(said.out.split())  # long lines are folded
    assert "Kit of" in told and "practise-measure ." in told and "--latency-table latency.json" in told
    assert read_kit(Path("elsewhere/two")).input_shape == read_kit(Path("one")).input_shape == (3, 3, 16, 16)


def test_kit_needs_neither_the_backend_nor_its_device(cli: Cli, network: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("a kit loads no backend")

    monkeypatch.setattr("practise_deploy.deployment.target.load_backend", refuse)
    said = cli("kit", network, "--backend", "trt", "--cuda-graph", "--no-tf32", "--clock", "end_to_end", "--kit", "k")
    assert said.code == 0, said.err
    asked = read_kit(Path("k")).asked
    assert (asked.backend, asked.cuda_graph, asked.options, asked.clock) == ("trt", True, {"tf32": False}, "end_to_end")
    assert "[trt]" in Path("k/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--backend", "abacus"), 3, "there is no backend 'abacus'"),
        (("--cuda-graph",), 2, "backend 'ort' has no --cuda-graph"),
        (("--clock", "gpu_compute"), 2, "backend 'ort' has no --clock gpu_compute"),
        (("--no-tf32",), 2, "backend 'ort' has no --no-tf32"),
        (("--kit", "mine"), 2, "mine holds photo.jpg, which is no part of a kit"),
        (("--kit", "mine/photo.jpg"), 2, "photo.jpg is a file"),
    ],
)
def test_kit_that_could_not_be_used_is_refused(cli: Cli, network: str, words: tuple[str, ...], code: int, said: str):
    Path("mine").mkdir()
    Path("mine/photo.jpg").write_text("mine")
    found = cli("kit", network, *words)
    assert (found.code, found.out) == (code, "") and said in found.err
    assert [path.name for path in Path("mine").iterdir()] == ["photo.jpg"]


def test_folder_that_is_no_run_and_two_runs_are_refused(cli: Cli, network: str):
    Path("empty").mkdir()
    found = cli("kit", "empty")
    assert found.code == 2 and "no run in empty" in found.err
    found = cli("kit", "empty", "--out", "other")
    assert found.code == 2 and "two run folders" in found.err


def test_place_of_a_kit_is_for_that_command_alone(cli: Cli):
    assert cli("plan", "digits", "--kit", "k").code == 2


def test_plan_is_made_with_the_table_that_a_kit_brought_home(
    cli: Cli, job: tuple[object, ...], network: str, monkeypatch: pytest.MonkeyPatch
):
    assert cli("kit", *job, "--kit", "k").code == 0
    scripted = ScriptedOrt()
    monkeypatch.setattr(catalog, "load_backend", lambda name, options: scripted)
    assert measure(["k"]) == 0
    said = cli("plan", *job, "--latency-table", "k/latency.json", "--drop", 2, "--json")
    assert said.code == 0, said.err
    assert len(said.document["dropped"]) == 2
    table = ("--latency-table", "k/latency.json")
    other = cli("plan", f"{network.partition(':')[0]}:tiny_mobilenet", *job[1:], *table)
    assert other.code == 2 and "another network" in other.err
    larger = cli("plan", *job, *table, "--input-size", 32)
    assert larger.code == 2 and "measured with input [1, 3, 16, 16], this network has [1, 3, 32, 32]" in larger.err
