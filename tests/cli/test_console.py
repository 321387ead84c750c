"""Tables go to stdout, prose and progress to stderr, and nothing but errors where quiet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from practise_deploy.cli.console import Console
from practise_deploy.network.tracing.inputs import wrapper
from practise_deploy.outcome import Answer
from samples import plans, releases

Shown = Callable[[Console], None]

SHOWN: dict[str, tuple[Shown, tuple[str, ...]]] = {
    "blocks": (
        lambda c: c.show_blocks(plans.blocks(), plans.network()),
        (
            "layer4.1",
            "64 × 56 × 56",
            "231 M",
            "no: its skip has a convolution",
            "14, of which 13 can be dropped",
        ),
    ),
    "latency": (
        lambda c: c.show_latency(plans.latency()),
        ("1.92 (1.85 to 1.99)", "31.42 ms (31.31 to 31.53)", "1 of 640 rounds discarded", "95%"),
    ),
    "plan": (
        lambda c: c.show_plan(plans.plan(), plans.recoverability()),
        (
            "layer2.2",
            "kept: no measurable saving",
            "0.00360",
            "21.90% (21.59 to 22.21)",
            "cut latency by 20%",
            "Sets that were considered",
            "chosen in 71.0% of the resamples",
        ),
    ),
    "student": (
        lambda c: c.show_student(releases.student("feature mimicking", 0.0124), "Finetuned"),
        ("Finetuned", "feature mimicking", "0.0931 → 0.0124", "stopped early"),
    ),
    "exported": (lambda c: c.show_exported(releases.shipped()), ("runs/resnet34/network.onnx", "85.9 MB")),
    "verification": (
        lambda c: c.show_verification(releases.verification()),
        ("teacher", "0.9713", "0.9999999", "73.4% (69.5 to 77.3)", "0.6 points (−0.2 to 1.4)"),
    ),
    "comparison": (
        lambda c: c.show_comparison(releases.comparison()),
        (
            "1.281× (1.275 to 1.287)",
            "– (not determined by these samples)",
            "4 of each network",
            "24.50 (24.42 to 24.58)",
        ),
    ),
    "throughput": (
        lambda c: c.show_throughput(releases.throughput()),
        ("Throughput by batch and threads", "51.7 (51.1 to 52.3)", "– (more memory than the device has)"),
    ),
    "scenarios": (
        lambda c: c.show_scenarios(releases.scenarios()),
        ("SingleStream", "32.5 ms (90th percentile)", "no: Min queries not satisfied", "min_duration_s 10"),
    ),
    "release that fails its gate": (
        lambda c: c.show_release(replace(releases.release(), gate=releases.gate(most_points=1.0)), Path("runs/r")),
        ("at least 1.2×", "at most 1 point"),
    ),
    "release": (
        lambda c: c.show_release(releases.release(), Path("runs/resnet34")),
        (releases.SENTENCE, "31.40 ms (31.32 to 31.48) → 24.50 ms", "73.4% (69.5 to 77.3)", "4: layer1.1"),
    ),
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


class Ticking:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        return self.time_s


@pytest.mark.parametrize("name", SHOWN)
def test_results_go_to_stdout_in_plain_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show, expected = SHOWN[name]
    show(Console())
    out, err = capsys.readouterr()
    for text in expected:
        assert text in out
    assert err == ""
    assert "\x1b" not in out


@pytest.mark.parametrize("name", SHOWN)
def test_quiet_shows_no_results(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    SHOWN[name][0](Console(quiet=True))
    assert capsys.readouterr() == ("", "")


def test_absent_figures_are_shown_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    bare, console = releases.bare_release(), Console()
    console.show_release(bare, Path("runs"))
    console.show_verification(bare.verification)
    console.show_comparison(bare.bench)
    console.show_plan(bare.plan, bare.recoverability)
    out = capsys.readouterr().out
    assert "None" not in out
    assert "– (no answers to the task)" in out
    assert "Promise broken" in " ".join(out.split())


def test_summary_says_how_many_rounds_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show_release(releases.release(), Path("runs"))
    assert "5 of 412 rounds discarded" in capsys.readouterr().out


@pytest.mark.parametrize("answer", Answer)
def test_promise_is_told_with_its_answer(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    whole = releases.release()
    Console().show_release(replace(whole, verdict=replace(whole.verdict, answer=answer)), Path("runs"))
    assert f"Promise {answer.value}" in " ".join(capsys.readouterr().out.split())


def test_loss_without_labels_is_shown_as_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show_verification(releases.unlabelled().verification)
    assert "0.6 points (−0.2 to 1.4), estimated" in capsys.readouterr().out


def test_notes_of_a_plan_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show_plan(replace(releases.release().plan, notes=("something decided",)), plans.recoverability())
    assert "something decided" in capsys.readouterr().out


def test_prose_goes_to_stderr_and_stops_where_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        console = Console(quiet=quiet)
        console.note("measuring [bold]blocks[/bold]")
        console.note("kept from the earlier run")
    assert capsys.readouterr() == ("", "measuring [bold]blocks[/bold]\nkept from the earlier run\n")


def test_errors_are_said_even_where_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).error("cannot read [x]\x1b[31m", "give another --data")
    assert capsys.readouterr() == ("", "error: cannot read [x][31m\nremedy: give another --data\n")


def test_python_of_a_remedy_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).error("it takes a mask", "wrap it", wrapper("self.network(images, mask=...)"))
    message, _, code = capsys.readouterr().err.partition("wrap it\n")
    assert message == "error: it takes a mask\nremedy: "
    names: dict[str, object] = {}
    exec(compile(code, "wrapped", "exec"), names)
    assert callable(names["wrapped"])


def test_progress_outside_a_terminal_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Ticking()
    with Console(now_s=clock).progress("measuring") as progress:
        for second in range(31):
            clock.time_s = float(second)
            progress.advance(second, 40.0, f"{second} rounds")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "measuring ...",
        "measuring: 25%, 10 s elapsed, about 30 s left, 10 rounds",
        "measuring: 50%, 20 s elapsed, about 20 s left, 20 rounds",
        "measuring: 75%, 30 s elapsed, about 10 s left, 30 rounds",
        "measuring: 30 s",
    ]


def test_progress_of_unknown_length_says_how_long_it_took_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Ticking()
    with Console(now_s=clock).progress("compiling") as progress:
        clock.time_s = 12.0
        progress.advance(0.0, 0.0)
    assert "compiling: 12 s elapsed" in capsys.readouterr().err.splitlines()


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(quiet=True).progress("measuring") as progress:
        progress.advance(1.0, 0.0)
    assert capsys.readouterr() == ("", "")


def test_progress_in_a_terminal_is_a_bar_and_may_be_nested(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    with console.progress("planning") as outer, console.progress("measuring [x]") as inner:
        outer.advance(1.0, 2.0)
        inner.advance(3.0, 4.0, "12 rounds")
    out, err = capsys.readouterr()
    assert out == ""
    assert "measuring [x]" in err and "planning" in err
    assert "elapsed" in err and "left" in err


def test_console_imports_neither_torch_nor_rich() -> None:
    code = "import sys, practise_deploy.cli.console; sys.exit(bool({'torch', 'rich', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_name_with_a_line_of_its_own_forges_none(capsys: pytest.CaptureFixture[str]):
    """What a weight or a setting is called is part of a message."""
    Console().error("unexpected: a\nerror: forged", "b\nremedy: forged")
    Console().note("note: c\nerror: forged")
    assert (
        capsys.readouterr().err
        == "error: unexpected: a error: forged\nremedy: b remedy: forged\nnote: c error: forged\n"
    )
