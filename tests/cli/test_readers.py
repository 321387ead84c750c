"""A reader of stdout who goes away changes neither the exit code nor what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def deaf(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command with nobody at the other end of its stdout."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "practise_deploy.cli", *map(str, arguments)],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_exit_code_stays(more: tuple[str, ...], tmp_path: Path):
    done = deaf("inspect", "digits", "--out", tmp_path / "run", *more)
    assert done.returncode == 0 and "Error" not in done.stderr


def test_table_is_kept(tmp_path: Path):
    quick = ("--measure-budget-s", 5)
    done = deaf("latency", "digits", "--out", tmp_path / "run", "-o", tmp_path / "t.json", *quick)
    if done.returncode == 3 and "find what disturbs the device" in done.stderr:
        assert not (tmp_path / "t.json").exists()
        pytest.skip("other work leaves this machine too few undisturbed rounds to measure a table by")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.json").is_file()
