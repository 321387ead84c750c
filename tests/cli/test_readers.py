"""A reader of stdout who goes away changes neither the exit code nor what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from practise_deploy.deployment.latency_table import read_table

ON_A_SCRIPTED_DEVICE = """
from practise_deploy.cli import main
from pipeline.scripted import device

with device():
    main()
"""


def deaf(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with nobody at the other end of its stdout."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-c", ON_A_SCRIPTED_DEVICE, *map(str, arguments)],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    finally:
        os.close(writing)


@pytest.mark.parametrize("more", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_exit_code_stays(more: tuple[str, ...], tmp_path: Path):
    done = deaf("inspect", "digits", "--out", tmp_path / "run", *more)
    assert done.returncode == 0 and "Error" not in done.stderr


def test_table_is_kept(tmp_path: Path):
    quick = ("--measure-budget-s", 0.3)
    done = deaf("latency", "digits", "--out", tmp_path / "run", "-o", tmp_path / "t.json", "--json", *quick)
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "t.json").savings


def spoken(stdout: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, its stdout as the shell is told."""
    command = [sys.executable, "-c", ON_A_SCRIPTED_DEVICE, *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'"$@" {stdout}', "sh", *command], capture_output=True, encoding="utf-8", errors="replace", check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | more,
    )  # fmt: skip


@pytest.mark.parametrize("more", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_closed_stdout_is_one_that_nobody_reads(more: tuple[str, ...], tmp_path: Path):
    done = spoken(">&-", "inspect", "digits", "--out", tmp_path / "run", *more)
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("more", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_full_stdout_is_an_error_of_the_environment(more: tuple[str, ...], tmp_path: Path):
    done = spoken(">/dev/full", "inspect", "digits", "--out", tmp_path / "run", *more)
    assert done.returncode == 3 and "cannot write the result to stdout" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_letters_that_stdout_lacks_are_replaced(encoding: str, tmp_path: Path):
    """Tables have letters that neither of them has."""
    done = spoken("", "inspect", "digits", "--out", tmp_path / "run", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "MACs" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("name", ["TERM", pytest.param("HUP", marks=pytest.mark.slow)])
def test_being_told_to_end_is_an_interrupt(name: str, tmp_path: Path):
    script = ON_A_SCRIPTED_DEVICE.replace(
        "with device():", f"import os, signal\nfrom practise_deploy.pipeline import build\nsignal.signal(signal.SIG{name}, signal.SIG_DFL)\n"
        f"build.Build.check = lambda self, **_: os.kill(os.getpid(), signal.SIG{name})\nwith device():",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", "digits", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 130 and "interrupted" in done.stderr and "Traceback" not in done.stderr
