"""A reader of stdout who goes away changes neither the exit code nor what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from practise_deploy.latency_table import read_table

ON_A_SCRIPTED_DEVICE = """
from practise_deploy.cli import main
from story.scripted import device

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


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_exit_code_stays(more: tuple[str, ...], tmp_path: Path):
    done = deaf("inspect", "digits", "--out", tmp_path / "run", *more)
    assert done.returncode == 0 and "Error" not in done.stderr


def test_table_is_kept(tmp_path: Path):
    quick = ("--measure-budget-s", 0.3)
    done = deaf("latency", "digits", "--out", tmp_path / "run", "-o", tmp_path / "t.json", "--json", *quick)
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "t.json").savings
