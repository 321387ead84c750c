"""Builds that are killed inside their writes and at random moments, and go on: does the same network come out, and is nothing left over?"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import server
from bases import NETWORK, SIDE, make_inputs
from programs import run_deploy

from pipeline.scripted import device
from practise_backends import files
from practise_deploy.training import mimic

Row = dict[str, Any]
_BUILD = (
    *(
        "build",
        NETWORK,
        "--data",
        "tiny.npz",
        "--drop",
        "1",
        "--input-size",
        str(SIDE),
        "--max-drop",
        "none",
        "--out",
        "run",
        "--quiet",
    ),
    *("--iterations", "10", "--batch-size", "8", "--measure-budget-s", "0.3"),
)
_WRITES = 6
"""A build is killed in one of its next so many writes."""
_A_BUILD = 10
"""No build is killed more often."""
_MOMENTS = ("some of the bytes", "before the name is taken", "after the name is taken")


def kill_all(place: Path, count: int, seed: int) -> Row:
    """So many kills inside writes and so many at random moments; what was not as in an undisturbed build."""
    place.mkdir()
    began = time.monotonic()
    undisturbed, faults = _build(_fresh(place / "undisturbed"))
    seconds = time.monotonic() - began
    if faults:
        raise RuntimeError(f"the undisturbed build failed: {faults}")
    rng = random.Random(f"{seed}:kills")
    inside = _killed(place / "writes", count, undisturbed, lambda: _in_a_write(rng))
    anywhere = _killed(place / "moments", count, undisturbed, lambda: _at_a_moment(rng, seconds))
    return {"inside_writes": inside, "at_random_moments": anywhere, "files": len(undisturbed)}


Kill = Callable[[], None]
"""Arms a build with its end."""


def _killed(place: Path, count: int, undisturbed: dict[str, bytes], drawn: Callable[[], tuple[str, Kill]]) -> Row:
    """Builds, each killed and going on in its folder until it ends by itself or was killed often enough."""
    kills, builds = Counter[str](), 0
    failures: list[Row] = []
    while kills.total() < count:
        here = _fresh(place / str(builds))
        told: list[str] = []
        while kills.total() < count and len(told) < _A_BUILD:
            what, arm = drawn()
            ended = server.run(functools.partial(_main, arm), _BUILD, here)
            if ended.code != -signal.SIGKILL:
                break
            kills[what.partition(":")[0]] += 1
            told.append(what)
        found, faults = _build(here)
        builds += 1
        faults += _differences(found, undisturbed)
        failures += [{"fault": fault, "kills": told} for fault in faults]
        print(
            f"{place.name}: {kills.total()} of {count} kills in {builds} builds; {faults or 'as undisturbed'}",
            flush=True,
        )
    return {"kills": kills.total(), "where": dict(kills), "builds": builds, "failures": failures}


def _fresh(folder: Path) -> Path:
    here = folder / "here"
    here.mkdir(parents=True)
    make_inputs(here)
    return here


def _build(here: Path) -> tuple[dict[str, bytes], list[str]]:
    """The run folder of a build that ends by itself, and what is wrong with how it ended."""
    ended = server.run(functools.partial(_main, lambda: None), _BUILD, here)
    faults = [f"ended with {ended.code}: {ended.err[-300:]}"] if ended.code or ended.hung else []
    faults += [f"left: {path.name}" for path in (here.parent / "tmp").iterdir()]
    run = here / "run"
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}, faults


def _differences(found: dict[str, bytes], undisturbed: dict[str, bytes]) -> list[str]:
    told = [f"left: {name}" for name in sorted(found.keys() - undisturbed.keys())]
    told += [f"missing: {name}" for name in sorted(undisturbed.keys() - found.keys())]
    return told + [
        f"another {name}" for name in ("model.onnx", "original.onnx") if found.get(name) != undisturbed[name]
    ]


def _main(arm: Kill, arguments: list[str]) -> None:
    """The build, on the scripted device; half-done descents are kept at every step, and so can be killed in."""
    mimic._SAVE_EVERY_S = 0.0
    arm()
    with device():
        run_deploy(arguments)


def _in_a_write(rng: random.Random) -> tuple[str, Kill]:
    number, moment, share = rng.randrange(_WRITES), rng.choice(_MOMENTS), rng.random()
    return f"{moment}: write {number}, {100 * share:.0f}% of it", functools.partial(_arm_writes, number, moment, share)


def _arm_writes(number: int, moment: str, share: float) -> None:
    """Kill this process in its write of that number."""
    put, left = files._put, [number]

    def armed(place: Path, data: bytes, mode: int | None) -> None:
        if left[0] == 0:
            with mock.patch("os.replace", _replace_and_die(os.replace, moment)):
                cut = mock.patch("os.fsync", lambda _: _die()) if moment == _MOMENTS[0] else mock.patch("os.fsync")
                with cut:
                    put(place, data[: int(share * len(data))] if moment == _MOMENTS[0] else data, mode)
        left[0] -= 1
        put(place, data, mode)

    files._put = armed


def _replace_and_die(replace: Callable[..., None], moment: str) -> Callable[..., None]:
    def replaced(*paths: Path) -> None:
        if moment == _MOMENTS[2]:
            replace(*paths)
        _die()

    return replaced


def _at_a_moment(rng: random.Random, seconds: float) -> tuple[str, Kill]:
    after = rng.random() * seconds
    return f"at a moment: after {after:.1f} s", functools.partial(_arm_clock, after)


def _arm_clock(after: float) -> None:
    """A process beside this one, which kills it."""
    victim = os.getpid()
    if not os.fork():
        time.sleep(after)
        os.kill(victim, signal.SIGKILL)
        os._exit(0)


def _die() -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
