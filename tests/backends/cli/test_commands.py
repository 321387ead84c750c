"""`practise-measure` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from practise_backends.cli import main
from practise_backends.fake import FakeBackend, steady
from practise_backends.machine.device import describe_cpu
from practise_backends.results import doctor
from practise_backends.results.checks import Finding
from practise_backends.results.doctor import Checkup
from practise_backends.runtimes import catalog
from practise_backends.runtimes.onnx_file import content_of, read_network
from practise_backends.terms import Artifact, Environment

QUICK = ["--measure-budget-s", "0.3"]


@pytest.fixture
def slow_and_fast(make_network: Callable, tmp_path: Path) -> list[str]:
    """A network of six convolutions and one of two."""
    paths = [tmp_path / name for name in ("slow.onnx", "fast.onnx")]
    for path, convolutions in zip(paths, (6, 2), strict=True):
        onnx.save(make_network(convolutions), path)
    return [str(path) for path in paths]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which a convolution takes a millisecond."""

    def ms_of(artifact: Artifact) -> float:
        return float(sum(node.op == "Conv" for node in read_network(content_of(artifact.content)).nodes))

    backend = FakeBackend(script=lambda artifact: steady(ms_of(artifact)))
    monkeypatch.setattr(catalog, "load_backend", lambda name, options: backend)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command printed; nothing on stderr."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"practise-measure {version('practise-backends')}\n")


@pytest.mark.usefixtures("scripted")
class TestCompare:
    def test_json_is_exactly_one_document(self, slow_and_fast: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        document = json.loads(run(capsys, "compare", *slow_and_fast, *QUICK, "--batch", "2", "--json"))
        assert document["schema"] == 2
        assert document["verdict"] == "faster"
        assert document["speedup"]["estimate"] == pytest.approx(3)
        assert document["conditions"]["batch"] == 2
        assert document["requirement"]["kept"] and document["requirement"]["min_speedup"] is None
        assert [engine["file"] for engine in document["engines"]] == slow_and_fast
        assert document["engines"][0]["p50_ms"]["estimate"] == pytest.approx(6)
        assert "samples" not in document

    def test_table_names_the_files_the_verdict_and_the_noise_floor(
        self, slow_and_fast: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = run(capsys, "compare", *slow_and_fast, *QUICK)
        assert all(path in out for path in slow_and_fast)
        assert "speed-up: 3.0000" in out and "faster" in out
        assert "noise floor" in out and "stopped because" in out and "passed: " in out

    @pytest.mark.parametrize(
        ("files", "more", "code"),
        [
            ((0, 1), [], 0),
            ((1, 0), [], 1),
            ((0, 0), [], 1),
            ((0, 1), ["--min-speedup", "2.9"], 0),
            ((0, 1), ["--min-speedup", "3.1"], 1),
            ((0, 0), ["--min-speedup", "0.99"], 0),
            ((1, 0), ["--min-speedup", "0.99"], 1),
        ],
    )
    def test_exit_code_is_of_the_requirement(
        self,
        files: tuple[int, int],
        more: list[str],
        code: int,
        slow_and_fast: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        before, after = (slow_and_fast[at] for at in files)
        out = run(capsys, "compare", before, after, *QUICK, *more, code=code)
        assert ("FAILED: the speed-up is not shown to be" in out) == bool(code)

    def test_files_that_were_asked_for_are_written(
        self, slow_and_fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page, report, samples = (tmp_path / "out" / name for name in ("a.md", "a.xml", "a.npz"))
        further = ["--markdown", str(page), "--junit", str(report), "--samples", str(samples)]
        document = json.loads(run(capsys, "compare", *slow_and_fast, *QUICK, *further, "--json"))
        assert page.read_text().startswith("**passed**")
        assert ElementTree.parse(report).getroot().get("failures") == "0"
        with np.load(samples) as found:
            assert found["rounds_ms"].shape == (document["rounds"], 12)
            assert list(found["engines"]) == ["original"] * 6 + ["new"] * 6
        assert sorted(path.name for path in page.parent.iterdir()) == ["a.md", "a.npz", "a.xml"]

    def test_comparison_that_cannot_be_made_leaves_no_earlier_success(
        self, slow_and_fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        report = tmp_path / "a.xml"
        run(capsys, "compare", *slow_and_fast, *QUICK, "--junit", str(report))
        assert main(["compare", slow_and_fast[0], "absent.onnx", "--junit", str(report)]) == 2
        root = ElementTree.parse(report).getroot()
        assert (root.get("failures"), root.get("errors")) == ("0", "1")
        problem = root.find(".//testcase/error")
        assert problem is not None and "absent.onnx" in problem.get("message", "")

    def test_comparison_that_ends_otherwise_leaves_no_earlier_success(
        self, slow_and_fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        report = tmp_path / "a.xml"
        monkeypatch.setattr("practise_backends.cli.commands.compare", interrupted)
        assert main(["compare", *slow_and_fast, "--junit", str(report)]) == 130
        assert ElementTree.parse(report).getroot().get("errors") == "1"

    @pytest.mark.parametrize("words", [["compare", "{long}", "{long}"], ["bench", "{long}"], ["{long}"]])
    def test_name_that_no_folder_takes_is_said(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        try:
            code = main([word.format(long=f"{'a' * 300}.onnx") for word in words])
        except SystemExit as left:
            code = left.code
        assert code == 2 and "Traceback" not in capsys.readouterr().err

    def test_place_that_cannot_be_written_is_said(
        self, slow_and_fast: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        below_a_file = f"{slow_and_fast[0]}/page.md"
        assert main(["compare", *slow_and_fast, *QUICK, "--markdown", below_a_file]) == 3
        assert capsys.readouterr().err.startswith("error: cannot read or write ")

    def test_networks_of_different_inputs_are_not_compared(
        self,
        make_network: Callable,
        slow_and_fast: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        wide = tmp_path / "wide.onnx"
        onnx.save(make_network(2, shape=("N", 4, 9, 9)), wide)
        assert main(["compare", slow_and_fast[0], str(wide), *QUICK]) == 2
        assert "input 'image'" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
class TestBench:
    def test_network_alone_has_a_noise_floor_and_no_speedup(
        self, slow_and_fast: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        document = json.loads(run(capsys, "bench", slow_and_fast[0], *QUICK, "--json"))
        assert document["speedup"] is None and document["verdict"] is None
        assert document["aa_ratio"]["estimate"] == pytest.approx(1)
        (engine,) = document["engines"]
        assert engine["name"] == "network" and engine["p50_ms"]["estimate"] == pytest.approx(6)
        assert document["throughput"] == document["scenarios"] == []

    def test_network_against_another_is_measured_in_the_same_rounds(
        self, slow_and_fast: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        slow, fast = slow_and_fast
        document = json.loads(run(capsys, "bench", fast, "--against", slow, *QUICK, "--json"))
        assert document["speedup"]["estimate"] == pytest.approx(3) and document["verdict"] == "faster"
        assert [engine["file"] for engine in document["engines"]] == [slow, fast]

    def test_throughput_is_measured_at_every_point(
        self, slow_and_fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = tmp_path / "a.md"
        points = ["--batches", "1,4", "--thread-counts", "1, 2", "--markdown", str(page)]
        document = json.loads(run(capsys, "bench", slow_and_fast[0], *QUICK, *points, "--json"))
        found = {(one["batch"], one["threads"]): one["images_per_s"] for one in document["throughput"]}
        assert set(found) == {(1, 1), (4, 1), (1, 2), (4, 2)}
        assert found[4, 1]["estimate"] == pytest.approx(4000 / 6)
        assert "images/s" in page.read_text()
        assert "images/s" in run(capsys, "bench", slow_and_fast[0], *QUICK, "--batches", "1")


def test_doctor_prints_what_was_found_and_leaves_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(subject="swap", level="note", said="it is in use", remedy="free memory")
    checkup = Checkup(
        asked=None,
        device=describe_cpu({}),
        usable=(),
        findings=(finding,),
        environment=Environment(seconds=0.0),
        self_test=None,
    )
    monkeypatch.setattr(doctor, "examine", lambda backend, variables, progress: checkup)
    assert "swap: it is in use" in run(capsys, "doctor", code=3)
    assert json.loads(run(capsys, "doctor", "--json", code=3))["findings"][0]["remedy"] == "free memory"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["compare", "{file}", "absent.onnx"], 2, "absent.onnx"),
        (["compare", "{file}", "{text}"], 2, "not an ONNX network"),
        (["bench", "absent.onnx"], 2, "absent.onnx"),
        (["bench", "{file}", "--against", "absent.onnx"], 2, "absent.onnx"),
        (["bench", "{file}", "--backend", "trt"], 3, "needs the package tensorrt"),
        (["bench", "{file}", "--backend", "abacus"], 3, "available: "),
        (["bench", "{file}", "--shape", "image=2x4x8x8"], 2, "batch of 1"),
        (["bench", "{file}", "--no-tf32"], 2, "backend 'ort' has no --no-tf32"),
        (["bench", "{file}", "--timing-cache", "cache"], 2, "backend 'ort' has no --timing-cache"),
        (["bench", "{file}", "--clock", "gpu_compute"], 2, "it has end_to_end"),
        (["compare", "{file}", "{file}", "--cuda-graph"], 2, "backend 'ort' has no --cuda-graph"),
        (["bench", "{file}", "--shape", "picture=1x4x8x8"], 2, "no network has an input 'picture'"),
    ],
)
def test_errors_are_one_line_with_a_code(
    arguments: list[str],
    code: int,
    said: str,
    network_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    assert main([one.format(file=network_file, text=text) for one in arguments] + QUICK) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 2
    assert said in err
    assert "\nremedy: " in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["a.onnx", "b.onnx"], "invalid choice"),
        (["compare", "a.onnx"], "required: B"),
        (["bench", "a.onnx", "--threads", "0"], "0 is not 1 or more"),
        (["bench", "a.onnx", "--shape", "1x2"], "name=1x3x224x224"),
        (["bench", "a.onnx", "--batches", "1,many"], "'many' is not a whole number"),
        (["bench", "a.onnx", "--scenarios", "Marathon"], "SingleStream"),
        (["bench", "a.onnx", "--sessions", "1"], "2 or more"),
        (["bench", "a.onnx", "--sessions", "1001"], "all are open at once"),
        (["bench", "a.onnx", "--seed", "-1"], "0 or more"),
        (["bench", "a.onnx", "--clock", "sundial"], "'sundial' is none of gpu_compute, end_to_end"),
        (["bench", "a.onnx", "--cuda", "opencl"], "none of pycuda, torch, cuda-python"),
        (["bench", "a.onnx", "--optimisation-level", "6"], "between 0 and 5"),
        (["bench", "a.onnx", "--measure-budget-s", "nan"], "above 0"),
        (["compare", "a.onnx", "b.onnx", "--min-speedup", "0"], "above 0"),
        (["compare", "a.onnx", "b.onnx", "--budget-s", "3"], "did you mean --measure-budget-s?"),
        (["table", "kit/", "--budget-s=3"], "did you mean --measure-budget-s?"),
        (["bench", "-x", "a"], "error: "),
    ],
)
def test_usage_errors_leave_with_two(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "\nremedy: " in err and err.count("\n") == 2
    assert said in err


def test_help_of_every_command_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["compare", "--help"], ["bench", "--help"], ["doctor", "--help"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        assert "usage: practise-measure" in capsys.readouterr().out


def test_reader_who_has_gone_away_does_not_change_the_exit_code(slow_and_fast: list[str]) -> None:
    arguments = ["compare", *reversed(slow_and_fast), *QUICK, "--min-speedup", "1000", "--no-footprint"]
    script = f"import sys; from practise_backends.cli import main; sys.exit(main({arguments!r}))"
    started = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()
    assert (started.stderr.read(), started.wait(timeout=60)) == ("", 1)
    started.stderr.close()
