"""The commands over files and finished runs: compare, bench, report, doctor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from practise_backends.errors import BackendMissing, Disturbed
from practise_backends.machine.device import describe_cpu
from practise_backends.results import doctor
from practise_backends.results.checks import Finding
from practise_backends.results.doctor import Checkup
from practise_backends.terms import Environment
from practise_deploy.run import to_json
from samples.releases import release

Cli = Callable[..., Any]
QUICK = ("--measure-budget-s", 0.3)
WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
sys.argv[0] = "practise-deploy"
from practise_deploy.cli import main
main()
"""


def chain(convolutions: int) -> onnx.ModelProto:
    """The script takes 0.5 ms, and 0.1 ms for every convolution."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])
    names = ["input", *(f"x{n}" for n in range(1, convolutions)), "logits"]
    nodes = [helper.make_node("Conv", [a, "w"], [b]) for a, b in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in ("input", "logits")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A slow network and a fast one, by the script."""
    files = tmp_path / "slow.onnx", tmp_path / "fast.onnx"
    for file, convolutions in zip(files, (4, 1), strict=True):
        onnx.save(chain(convolutions), file)
    return files


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished build."""
    return finished(tmp_path / "run")


def finished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    onnx.save(chain(4), folder / "original.onnx")
    onnx.save(chain(1), folder / "model.onnx")
    (folder / "release.json").write_text(to_json(release()))
    return folder


def refused(said: Any, code: int, *words: str) -> None:
    assert (said.code, said.out) == (code, ""), said.err
    assert said.err.count("error: ") == 1
    for word in words:
        assert word in said.err, said.err


def test_compare_holds_the_speedup(cli: Cli, pair: tuple[Path, Path]):
    said = cli("compare", *pair, "--json", *QUICK)
    assert said.code == 0, said.err
    assert set(said.document["speedup"]) == {"estimate", "low", "high", "confidence"}
    assert said.document["speedup"]["estimate"] == pytest.approx(0.9 / 0.6)
    assert said.document["verdict"] == "faster" and said.document["requirement"]["kept"]


def test_compare_says_the_same_as_practise_measure(
    cli: Cli, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    from practise_backends.cli import main as measure

    ours = cli("compare", *pair, "--json", *QUICK).document
    assert measure(["compare", *map(str, pair), "--json", *map(str, QUICK)]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert set(ours) == set(theirs) and ours["speedup"]["estimate"] == theirs["speedup"]["estimate"]


def test_compare_of_a_slower_file_exits_1(cli: Cli, pair: tuple[Path, Path]):
    said = cli("compare", *reversed(pair), *QUICK)
    assert said.code == 1 and "slower" in said.out and "failed: the speed-up is not shown to be above 1" in said.out


@pytest.mark.parametrize("least, code", [(1.4, 0), (1.6, 1)])
def test_compare_requires_what_is_asked(cli: Cli, pair: tuple[Path, Path], least: float, code: int):
    said = cli("compare", *pair, "--min-speedup", least, "--junit", "a.xml", "--markdown", "a.md", *QUICK)
    assert said.code == code, said.err
    assert ElementTree.parse("a.xml").getroot().get("failures") == str(code)
    assert Path("a.md").read_text().startswith("**failed**" if code else "**passed**")


def test_compare_keeps_raw_samples_of_all_sessions(cli: Cli, pair: tuple[Path, Path]):
    said = cli("compare", *pair, "--samples", "a.npz", "--sessions", 3, "--quiet", *QUICK)
    assert (said.code, said.out, said.err) == (0, "", "")
    with np.load("a.npz") as found:
        assert found["rounds_ms"].shape[1] == 6


def test_compare_of_bad_files(cli: Cli, pair: tuple[Path, Path], tmp_path: Path):
    (tmp_path / "text.onnx").write_text("no network")
    for bad, word in (("nowhere.onnx", "no such file: nowhere.onnx"), (tmp_path / "text.onnx", "not an ONNX network")):
        refused(cli("compare", pair[0], bad, "--json"), 2, word)


@pytest.mark.parametrize(
    "options, words",
    [
        (("--threads", 0), ("--threads", "1 or more")),
        (("--shape", "many"), ("--shape", "name=1x3x224x224")),
        (("--min-speedup", "fast"), ("--min-speedup", "not a number")),
        (("--shape", "picture=1x1x8x8"), ("no network has an input 'picture'",)),
    ],
)
def test_compare_with_a_bad_option(cli: Cli, pair: tuple[Path, Path], options: tuple[object, ...], words: tuple):
    refused(cli("compare", *pair, *QUICK, *options), 2, *words)


def test_device_too_disturbed_to_measure_on_is_the_environment(
    cli: Cli, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    def disturbed(*_: object) -> None:
        raise Disturbed("3 valid rounds of 90 cannot carry an interval", remedy="find what disturbs it")

    monkeypatch.setattr("practise_backends.cli.commands.compare_files", disturbed)
    said = cli("compare", *pair)
    assert (said.code, said.out) == (3, "") and "cannot carry an interval" in said.err


def test_missing_backend_of_a_comparison(cli: Cli, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    done = deploy(
        "compare",
        *pair,
        "--backend",
        "trt",
        program="import sys; sys.modules['tensorrt'] = None; from practise_deploy.cli import main; main()",
    )
    assert done.returncode == 3 and "backend 'trt'" in done.stderr and done.stdout == ""


def test_run_folder_stands_for_its_model(cli: Cli, pair: tuple[Path, Path], run: Path):
    alone = cli("compare", run, "--json", *QUICK).document
    assert [engine["file"] for engine in alone["engines"]] == [str(run / "original.onnx"), str(run / "model.onnx")]
    assert alone["verdict"] == "faster"
    mixed = cli("compare", pair[0], run, "--json", *QUICK).document
    assert [engine["file"] for engine in mixed["engines"]] == [str(pair[0]), str(run / "model.onnx")]


def test_compare_needs_two_networks(cli: Cli, pair: tuple[Path, Path], tmp_path: Path):
    refused(cli("compare", pair[0]), 2, "has nothing to be compared with")
    refused(cli("compare", tmp_path), 2, "holds no original.onnx")


def deploy(*arguments: object, program: str = WITHOUT_TORCH) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("command", ["compare", "bench", "report"])
def test_commands_over_files_need_no_torch(command: str, pair: tuple[Path, Path], run: Path, tmp_path: Path):
    arguments: dict[str, tuple[object, ...]] = {
        "compare": (*pair, "--measure-budget-s", 0.5, "--no-footprint", "--min-speedup", 0.01),
        "bench": (pair[0], "--measure-budget-s", 0.5, "--no-footprint"),
        "report": (run, "--out", tmp_path / "page.html"),
    }
    done = deploy(command, *arguments[command], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_bench_of_a_file_is_not_the_stage(cli: Cli, pair: tuple[Path, Path]):
    said = cli("bench", pair[0], "--measure-budget-s", 0.3, "--batches", "1,2", "--json")
    assert said.code == 0, said.err
    (engine,) = said.document["engines"]
    assert engine["p50_ms"]["estimate"] == pytest.approx(0.9) and said.document["speedup"] is None
    first, second = said.document["throughput"]
    assert first["images_per_s"]["estimate"] == pytest.approx(1000 / 0.9) and "fixed batch" in second["refused"]
    assert not list(Path.cwd().iterdir())


def test_file_that_cannot_be_built_from_is_measured_by_what_its_refusal_names(cli: Cli, pair: tuple[Path, Path]):
    compiled = pair[0].with_suffix(".ort")
    refused = cli("build", compiled)
    assert refused.code == 2 and f"practise-deploy bench {compiled}" in refused.err
    assert cli("bench", pair[0], *QUICK, "--no-footprint").code == 0


def test_bench_of_a_file_shows_tables(cli: Cli, pair: tuple[Path, Path]):
    alone = cli("bench", pair[0], "--measure-budget-s", 0.3)
    assert alone.code == 0 and "p99, ms" in alone.out and "Noise floor" in alone.out
    both = cli("bench", pair[1], "--against", pair[0], "--measure-budget-s", 0.3, "--thread-counts", "1,2")
    assert both.code == 0 and "1.500×" in both.out and "Throughput by batch and threads" in both.out


def test_bench_of_a_run_measures_model_against_original_and_keeps_it(cli: Cli, run: Path):
    conditions = release().bench.conditions
    said = cli("bench", run, "--measure-budget-s", 0.3, "--batch", 1, "--thread-counts", "1,2", "--json")
    assert said.code == 0, said.err
    assert said.document["speedup"]["estimate"] == pytest.approx(1.5)
    assert said.document["conditions"]["threads"] == conditions.threads
    assert [one["threads"] for one in said.document["throughput"]] == [1, 1, 2, 2]
    assert json.loads((run / "bench.json").read_text()) == said.document


@pytest.mark.parametrize(
    "options, words",
    [
        (("--clock", "sundial"), ("--clock sundial", "'end_to_end', 'wall' or 'cpu'")),
        (("--optimisation-level", 9), ("--optimisation-level", "9 is not between 0 and 5")),
        (("--threads", 0), ("--threads 0",)),
        (("--clock", "gpu_compute"), ("has no --clock gpu_compute",)),
        (("--cuda-graph",), ("has no --cuda-graph",)),
    ],
)
def test_bench_of_a_file_keeps_the_bounds_of_the_settings(
    cli: Cli, pair: tuple[Path, Path], options: tuple, words: tuple
):
    refused(cli("bench", pair[0], *options), 2, *words)


@pytest.mark.parametrize("command", ["bench", "compare"])
def test_options_of_a_backend_reach_it_from_commands_over_files(
    command: str, cli: Cli, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    found: list[Any] = []

    def load(name: str, options: Any) -> Any:
        found.append((name, options))
        raise BackendMissing("backend 'trt' is not here", remedy="install it")

    monkeypatch.setattr("practise_backends.runtimes.catalog.load_backend", load)
    files = pair if command == "compare" else pair[:1]
    asked = ("--backend", "trt", "--no-tf32", "--cuda", "torch", "--workspace-mib", 64, "--timing-cache", "cache")
    refused(cli(command, *files, *asked), 3, "not here")
    own = {"workspace_mib": 64, "timing_cache": Path("cache"), "cuda": "torch", "tf32": False}
    assert found == [("trt", own)]


def test_bench_of_a_run_asks_of_the_backend_what_the_build_asked(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch):
    found: list[Any] = []

    def load(name: str, options: Any) -> Any:
        found.append(options)
        raise BackendMissing("not here", remedy="install it")

    monkeypatch.setattr("practise_backends.runtimes.catalog.load_backend", load)
    (run / "settings.json").write_text(json.dumps({"schema": 1, "tf32": False, "workspace_mib": 64, "drop": 2}))
    for words in ((), ("--workspace-mib", 32), ("--backend", "another")):
        refused(cli("bench", run, *words), 3, "not here")
    assert found == [{"tf32": False, "workspace_mib": 64}, {"tf32": False, "workspace_mib": 32}, {}]


def test_bench_of_a_run_keeps_to_its_clock_unless_the_backend_is_another(cli: Cli, run: Path):
    built = release().bench
    clock = replace(built, conditions=replace(built.conditions, clock="gpu_compute"))
    (run / "release.json").write_text(to_json(replace(release(), bench=clock)))
    refused(cli("bench", run), 2, "has no --clock gpu_compute")
    said = cli("bench", run, "--backend", "another", "--measure-budget-s", 0.3, "--thread-counts", 1, "--json")
    assert (said.code, said.document["conditions"]["clock"]) == (0, "end_to_end"), said.err


def test_bench_of_a_folder_without_a_release(cli: Cli, tmp_path: Path):
    refused(cli("bench", tmp_path), 2, "holds no release.json")


def test_bench_of_a_missing_file(cli: Cli):
    refused(cli("bench", "nowhere.onnx"), 2, "no such file: nowhere.onnx")


def test_settings_of_a_build_say_nothing_about_a_file(cli: Cli, pair: tuple[Path, Path]):
    refused(cli("bench", pair[0], "--drop", 2), 2, "--drop says nothing about", "slow.onnx")
    refused(cli("bench", pair[0], "--fresh"), 2, "--fresh says nothing about")


def test_flags_for_files_say_nothing_about_a_network(cli: Cli):
    refused(cli("bench", "digits", "--against", "other.onnx"), 2, "--against is for a file or a finished run")


def test_report_is_rendered_again_from_the_release(cli: Cli, run: Path):
    said = cli("report", run, "--json")
    assert said.code == 0, said.err
    assert said.document["html"] == str(run / "report.html")
    assert release().network.name in (run / "report.html").read_text()
    assert (run / "report.md").is_file()


def test_several_runs_are_one_page(cli: Cli, tmp_path: Path):
    runs = [finished(tmp_path / place / "run") for place in ("a", "b")]
    said = cli("report", *runs)
    assert said.code == 0, said.err
    assert said.out.split() == ["runs.html", "runs.md"]
    assert all(str(folder) in Path("runs.md").read_text().replace("\\", "") for folder in runs)
    elsewhere = cli("report", *runs, "--out", "pages/both.html", "--json")
    assert elsewhere.document["markdown"] == "pages/both.md" and Path("pages/both.md").is_file()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("network", "preprocessing", "size"), [0, 0], "network.preprocessing.size"),
        (("recipe",), "x", "recipe: Input should be 'refit' or 'paper'"),
        (("recoverability", 0, "relative"), 1e308, "it holds the figure 1e+308"),
        (("recoverability", 0, "relative"), 5e-324, "it holds the figure 4.94066e-324"),
    ],
)
def test_report_of_figures_that_no_build_can_have_written(cli: Cli, run: Path, place: Any, value: Any, words: str):
    document = json.loads((run / "release.json").read_text())
    part = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (run / "release.json").write_text(json.dumps(document))
    refused(cli("report", run), 2, str(run / "release.json"), "is damaged", words, "build again")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("rounds_ms", np.full((9, 2), "x"), "'bench/rounds_ms' is of <U1"),
        ("rounds_ms", np.full((9, 2), 1e308), "'bench/rounds_ms' holds the figure 1e+308"),
        ("engines", np.str_("original"), "'bench/engines' is of <U8, in 0 dimensions"),
    ],
)
def test_report_of_samples_that_no_clock_can_have_given(cli: Cli, run: Path, name: str, array: Any, words: str):
    np.savez(
        run / "samples.npz", **{"bench/rounds_ms": np.ones((9, 2)), "bench/engines": ["a", "b"], f"bench/{name}": array}
    )
    refused(cli("report", run), 2, str(run / "samples.npz"), "is damaged", words, "build again")


@pytest.mark.parametrize("error", [ValueError("a"), ZeroDivisionError("b"), KeyError("c")])
def test_fault_of_rendering_is_no_damage_of_the_file(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("PRACTISE_DEBUG", raising=False)
    monkeypatch.setattr("practise_deploy.report.page.headline", fail)
    refused(cli("report", run), 70, f"unexpected {type(error).__name__}", "a fault of practise-deploy")
    assert not (run / "report.html").exists()


def test_report_of_a_folder_without_a_release(cli: Cli, run: Path, tmp_path: Path):
    refused(cli("report", tmp_path), 2, "holds no release.json")
    refused(cli("report", run, tmp_path / "nowhere"), 2, "nowhere holds no release.json")
    refused(cli("report", run, "--out", "page.pdf"), 2, "page.pdf", ".html")


@pytest.mark.parametrize("usable, code", [(("ort",), 0), ((), 3)])
def test_doctor_says_what_it_found(cli: Cli, monkeypatch: pytest.MonkeyPatch, usable: tuple[str, ...], code: int):
    checkup = Checkup(
        asked=None,
        device=describe_cpu({}),
        usable=usable,
        findings=(Finding(subject="load", level="bad", said="other work is running", remedy="stop that work"),),
        environment=Environment(seconds=0.0),
        self_test=None,
    )
    monkeypatch.setattr(doctor, "examine", lambda backend, variables, progress: checkup)
    said = cli("doctor", "--json")
    assert said.code == code and said.document["usable"] == list(usable)
    plain = cli("doctor")
    assert plain.code == code and "load: other work is running" in plain.out and "-> stop that work" in plain.out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = cli("doctor")
    assert shown.code == code and "other work is running" in shown.out and "Remedy" in shown.out


def test_module_is_a_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "practise_deploy.cli", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "compare" in done.stdout


def test_settings_of_a_run_of_before_that_hold_defaults_of_another_backend_ask_for_nothing(cli: Cli, run: Path):
    (run / "settings.json").write_text(json.dumps({"schema": 1, "tf32": True, "max_batch": 8, "cuda": None}))
    assert cli("bench", run, "--measure-budget-s", 0.3, "--thread-counts", 1, "--json").code == 0
