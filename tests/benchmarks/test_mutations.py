"""The benchmark of damaged inputs: the same number is the same damage, and what goes wrong is seen."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "reliability"))

import mutators
import server
from checks import SECRET, faults_of, tree_of
from kinds import Case

RELIABILITY = Path(server.__file__).parent
Run = Callable[..., list[str]]


@pytest.fixture
def faults(tmp_path: Path) -> Run:
    """The kinds of faults of a program that is a function."""
    here, outside = tmp_path / "here", tmp_path / "outside"
    here.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)

    def run(program: Callable[[list[str]], int], verb: str = "report") -> list[str]:
        before, watched = tree_of(here), server.Watched(outside)
        ended = server.run(program, [], here, watched)
        watched.close()
        return [name for name, _ in faults_of(Case("", (verb,), ""), ended, here, before)]

    return run


def says(text: str, code: int) -> Callable[[list[str]], int]:
    return lambda _: sys.stderr.write(text) * 0 + code


def reads(path: str) -> Callable[[list[str]], int]:
    return lambda _: Path(path).read_bytes().__len__() * 0


def writes(name: str, text: str) -> Callable[[list[str]], int]:
    return lambda _: Path(name).write_text(text) * 0


@pytest.mark.parametrize(
    "program, found",
    [
        (says("error: no such file; remedy: none\n", 2), []),
        (says("", 0), []),
        (says("", 2), ["wrong exit codes"]),
        (says("error: one\nerror: two\n", 2), ["wrong exit codes"]),
        (says("error: x\n", 1), ["wrong exit codes"]),
        (says("error: unexpected\n", 70), ["wrong exit codes"]),
        (says("error: \x1b[31mx\n", 2), ["commands to a terminal"]),
        (lambda _: 1 // 0, ["tracebacks", "wrong exit codes"]),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL) or 0, ["wrong exit codes"]),
        (reads("../outside/secret.txt"), ["reads outside"]),
        (writes(".0.part", ""), ["partial files"]),
        (writes("x.json", '{"a": NaN}'), ["partial files"]),
        (writes("x.json", '{"a": 1}'), []),
    ],
)
def test_what_goes_wrong_is_seen(faults: Run, program: Callable[[list[str]], int], found: list[str]):
    assert faults(program) == found


@pytest.mark.parametrize("program", [lambda _: time.sleep(600), lambda _: sum(1 for _ in iter(int, 1))])
def test_waiting_and_computing_for_long_are_hangs(
    faults: Run, monkeypatch: pytest.MonkeyPatch, program: Callable[[list[str]], int]
):
    monkeypatch.setattr(server, "LIMIT_S", 1.0)
    assert faults(program) == ["hangs"]


def test_same_number_is_the_same_damage():
    text = json.dumps({"a": [1, {"b": "c"}], "d": 2.5})

    def damaged(number: int) -> tuple[bytes, str]:
        return mutators.damage_text(text, random.Random(f"0:x:{number}"))

    assert [damaged(number) for number in range(50)] == [damaged(number) for number in range(50)]
    assert len({content for content, _ in map(damaged, range(50))}) > 30


@pytest.mark.slow
def test_some_inputs_of_every_kind_do_no_harm(tmp_path: Path):
    output = tmp_path / "found.json"
    command = [sys.executable, RELIABILITY / "mutations.py", "--share", "0.012", "--kills", "2", "--output", output]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    kinds = json.loads(output.read_text())["kinds"]
    kills = kinds.pop("kills")
    assert sum(row["inputs"] for row in kinds.values()) > 40
    assert [failure for row in kinds.values() for failure in row["failures"]] == []
    assert [kills[part]["failures"] for part in ("inside_writes", "at_random_moments")] == [[], []]
