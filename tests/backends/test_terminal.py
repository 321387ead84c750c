"""What files and networks are called commands no terminal, whichever way it gets there."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from backends.kits import make_kit, scripted_device
from practise_backends import cli
from practise_backends.cli import main
from practise_backends.results.bundle import MANIFEST, read_kit
from practise_backends.results.documents import to_json
from practise_backends.runtimes import catalog
from practise_backends.terminal import clean, one_line

CLEAR, CSI, RIGHT_TO_LEFT, ISOLATE = "\x1b[2J", "\x9b2J", "\u202e", "\u2067"
HOSTILE = f"a{CLEAR}b{CSI}c\x07{RIGHT_TO_LEFT}d{ISOLATE}e\x7f\r"


def commands(text: str) -> list[str]:
    """The characters that a terminal would obey."""
    return [each for each in text if unicodedata.category(each) in ("Cc", "Cf") and each != "\n"]


def test_letters_of_every_language_stay_and_commands_go() -> None:
    assert clean(f"Größe 模型 שלום\t{HOSTILE}\n") == "Größe 模型 שלום\ta[2Jb2Jcde\n"
    assert one_line("a\nerror: b\tc\u2028d") == "a error: b cd"


@pytest.mark.parametrize(
    "words",
    [
        ["bench", HOSTILE],
        ["compare", "{file}", f"{HOSTILE}/x.onnx"],
        ["bench", "{file}", "--shape", f"{HOSTILE}=1x4x8x8"],
        ["bench", "{file}", "--backend", HOSTILE],
        ["bench", "{file}", "--samples", f"{{file}}/{HOSTILE}"],
        ["bench", "{operator}"],
        ["bench", "{input}"],
        [f"./{HOSTILE}"],
    ],
)
def test_errors_hold_no_commands(
    words: list[str], network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in (HOSTILE, "y")]
    for name, operator in (("operator", HOSTILE), ("input", "Relu")):
        graph = helper.make_graph([helper.make_node(operator, [HOSTILE], ["y"])], "g", values[:1], values[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / name)
    places = {"file": network_file, "operator": tmp_path / "operator", "input": tmp_path / "input"}
    assert main([word.format(**places) for word in words]) in (2, 3)
    out, err = capsys.readouterr()
    assert (
        out == "" and err.startswith("error: ") and err.count("\n") == 2 and "\nremedy: " in err and not commands(err)
    )


@pytest.mark.parametrize("words", [["--batch", HOSTILE], [HOSTILE], ["--clock", HOSTILE], [f"--{HOSTILE}"]])
def test_usage_errors_hold_no_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "a.onnx", *words])
    assert not commands(capsys.readouterr().err)


def test_results_and_the_next_step_hold_no_commands(
    tmp_path: Path, network_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "load_backend", lambda name, options: scripted_device())
    folder = tmp_path / HOSTILE.replace("\r", "")
    make_kit(folder, network_file)
    kit = replace(read_kit(folder), network=f"net{HOSTILE}", plan=f"plan{HOSTILE}")
    (folder / MANIFEST).write_text(to_json(kit))
    assert main(["table", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "net" in out and "written: " in err and "  plan" in err and not commands(out + err)


def test_progress_holds_no_commands_but_its_own(
    network_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli._Line().advance(1, 2, HOSTILE)
    assert not commands(capsys.readouterr().err.removeprefix(cli._CLEARED))


# What nobody foresaw.


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    def fail_with(error: Exception) -> None:
        def load(*_: object) -> None:
            raise error

        monkeypatch.setattr(catalog, "load_backend", load)

    return fail_with


def test_what_nobody_foresaw_is_one_message_and_no_broken_promise(
    failing: Callable[[Exception], None],
    network_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PRACTISE_DEBUG", raising=False)
    failing(TypeError(f"no\n{HOSTILE}"))
    assert main(["bench", str(network_file)]) == cli.BUG == 70
    err = capsys.readouterr().err
    assert err.startswith("error: unexpected TypeError: no a") and "PRACTISE_DEBUG=1" in err
    assert err.count("\n") == 2 and not commands(err)
    monkeypatch.setenv("PRACTISE_DEBUG", "1")
    with pytest.raises(TypeError):
        main(["bench", str(network_file)])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_does_not_suffice_is_trouble_of_the_environment(
    error: Exception, failing: Callable[[Exception], None], network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert main(["bench", str(network_file)]) == 3
    assert capsys.readouterr().err.startswith("error: out of memory\nremedy: use a smaller --batch")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize(
    ("seam", "said"),
    [
        ("onnxruntime.InferenceSession.__init__", "out of memory: two.onnx does not load"),
        ("onnxruntime.InferenceSession.run", "two.onnx: out of memory: the engine could not run"),
    ],
)
def test_memory_that_the_runtime_lacks_is_said_with_what_lacks_it(
    seam: str,
    said: str,
    error: Exception,
    network_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(seam, fail)
    assert main(["bench", str(network_file), "--no-footprint", "--measure-budget-s", "0.3"]) == 3
    assert (
        capsys.readouterr()
        .err.replace(f"{network_file.parent}/", "")
        .startswith(f"error: {said}\nremedy: use a smaller --batch")
    )


def test_memory_that_a_backend_lacks_is_no_fault_of_its_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("practise_backends.results.doctor.load_backend", fail)
    assert main(["doctor", "--backend", "ort"]) == 3
    assert capsys.readouterr().err.startswith("error: out of memory\nremedy: use a smaller --batch")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files"), "the system refused: Too many open files\nremedy: "),
        (PermissionError(13, "Permission denied", "a.bin"), "cannot read or write a.bin: Permission denied\nremedy: "),
    ],
)
def test_what_the_system_refuses_is_not_told_as_of_stdout(
    error: Exception,
    said: str,
    failing: Callable[[Exception], None],
    network_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(error)
    assert main(["bench", str(network_file)]) == 3
    assert said in capsys.readouterr().err


def test_runtime_logs_nothing_in_colours_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An output of 2**62 numbers is an error that is told; ONNX Runtime would write it to stderr besides."""
    many = helper.make_tensor("many", TensorProto.INT64, [1], [2**62])
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["many"], ["y"])],
        "huge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [many],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    assert main(["bench", str(tmp_path / "n.onnx"), "--no-footprint", "--measure-budget-s", "0.05"]) in (2, 3)
    said = capfd.readouterr().err
    assert said.startswith("error: ") and not commands(said), said
