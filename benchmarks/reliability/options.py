"""Every option of every command of both programs, as the programs themselves list them, with odd values."""

from __future__ import annotations

import argparse
import random
from functools import cache
from typing import Any

import typer
from mutators import NUMBERS, TEXTS

from practise_backends import cli as measure
from practise_deploy import cli as deploy

Rng = random.Random
DRAWN = {
    "practise-deploy": ("inspect",) * 4
    + (
        "latency",
        "latency",
        "compare",
        "bench",
        "report",
        "report",
        "kit",
        "plan",
        "verify",
        "build",
        "export",
        "finetune",
    ),
    "practise-measure": ("compare", "compare", "bench", "bench", "table", "table", "doctor"),
}
"""The commands, the quick ones more often."""
_WORK = (
    "budget",
    "scenario",
    "iterations",
    "sessions",
    "batch",
    "threads",
    "thread-counts",
    "size",
    "resize",
    "workspace",
    "images",
)
"""Options that ask for an amount of work: a large one is asked for, and no fault."""
_PATHS = (
    "onnx/plain.onnx",
    "nowhere",
    "photos",
    "tiny.npz",
    "table.json",
    "run",
    "pipe",
    "/dev/null",
    "/dev/zero",
    "nets.py",
    "run/nowhere/x.json",
    "nets.py/x",
)


@cache
def of_deploy() -> dict[str, dict[str, bool]]:
    """command -> option -> whether it takes a value."""
    group: Any = typer.main.get_command(deploy.app)
    return {
        verb: {
            name: not one.is_flag
            for one in command.params
            for name in (*one.opts, *one.secondary_opts)
            if name.startswith("-")
        }
        for verb, command in group.commands.items()
    }


@cache
def of_measure() -> dict[str, dict[str, bool]]:
    """The same of the other program."""
    parser = measure._parser()
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return {
        verb: {name: one.nargs != 0 for one in command._actions for name in one.option_strings}
        for verb, command in commands.choices.items()
    }


def draw(options: dict[str, bool], rng: Rng) -> tuple[tuple[str, ...], str]:
    """One to three options with values, and what they are."""
    found: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice([name for name in options if name not in ("--help", "-h")])
        act = rng.random()
        if act < 0.03:
            found.append(rng.choice(("--nothing", "-", "--", "-x", "", "\x1b[31m", name[:-1], "---" + name)))
        elif not options[name]:
            found.append(name if act < 0.9 else f"{name}=1")
        elif act < 0.06:
            found.append(name)  # without its value
        else:
            value = _value(name, rng)
            found += [f"{name}={value}"] if rng.random() < 0.3 else [name, value]
    return tuple(found), " ".join(ascii(each)[1:-1][:40] for each in found)


def _value(name: str, rng: Rng) -> str:
    texts = [text for text in TEXTS if "\0" not in text and text != "\ud800"]  # which no command line can hold
    numbers = [number for number in NUMBERS if not any(word in name for word in _WORK) or not 4 < number < float("inf")]
    kind = rng.choice(("text", "number", "number", "path", "list"))
    if kind == "text":
        return rng.choice(texts)
    if kind == "path":
        return rng.choice(
            [path for path in _PATHS if (name, path) != ("--config", "pipe")]
        )  # a shell's <(...) is waited for
    if kind == "list":
        return ",".join(str(rng.choice((*texts[:4], *numbers[:6]))) for _ in range(rng.choice((2, 3, 30))))
    number = rng.choice(numbers)
    return f"{number!r}" if abs(number) < 10**300 or number != number or isinstance(number, float) else "9" * 5000
