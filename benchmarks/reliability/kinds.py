"""The kinds of inputs: each draws a damaged one into a copy of the bases, and a command that is given it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import options
import tomllib
from bases import NETWORK, SIDE, SMALL, state_dict
from graphs import damage_network, move_weights
from mutators import damage, damage_text, link_outside, replace_file
from pictures import damage_folder, damage_image, damage_list
from programs import DEPLOY, MEASURE
from tensors import damage_arrays, damage_weights

Rng = random.Random
_SIZE = ("--input-size", str(SIDE))
_ROUNDS = ("--measure-budget-s", "0.05", "--sessions", "2")
_PLAN = (NETWORK, *SMALL, "--latency-table", "table.json")
_WORK = (
    "input_size",
    "resize",
    "iterations",
    "score_iterations",
    "sessions",
    "measure_budget_s",
    "batch",
    "batch_size",
    "threads",
)
_CODES = {
    "compare": {0, 1, 2, 3}, "bench": {0, 2, 3}, "table": {0, 2, 3}, "report": {0, 2, 3}, "inspect": {0, 2, 3}, "latency": {0, 2, 3, 4},
    "kit": {0, 2, 3, 4}, "doctor": {0, 2, 3}, "plan": {0, 1, 2, 3, 4}, "finetune": {0, 1, 2, 3, 4}, "export": {0, 1, 2, 3, 4},
    "verify": {0, 1, 2, 3, 4}, "build": {0, 1, 2, 3, 4},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A command to be run. what: what was done to its input. may_open: the user himself names files outside, which may be read."""

    program: str
    arguments: tuple[str, ...]
    what: str
    may_open: bool = False

    @property
    def codes(self) -> set[int]:
        """The exit codes that are documented for the command."""
        return _CODES.get(self.arguments[0], {0, 2, 3})


Draw = Callable[[Path, Rng], Case]
"""From a folder with a fresh copy of the bases."""


def _onnx(here: Path, rng: Rng) -> Case:
    name = rng.choice(("plain", "plain", "outside", "dynamic", "attributes"))
    path = here / "onnx" / f"{name}.onnx"
    act = rng.random()
    if act < 0.4:
        what = _damaged_bytes(path, rng)
    elif act < 0.8:
        what = damage_network(path, rng)
    elif act < 0.93:
        what = move_weights(path, rng)
    elif act < 0.97:
        what = replace_file(path.with_name("weights.bin") if name == "outside" else path, rng)
    else:
        what = link_outside(path.with_name("weights.bin"), here.parent / "outside")
        path = path.with_name("outside.onnx")
    return _on_networks(str(path.relative_to(here)), rng, f"{name}.onnx: {what}")


def _on_networks(file: str, rng: Rng, what: str) -> Case:
    quick = () if rng.random() < 0.02 else ("--no-footprint",)
    shape = ("--shape", f"x=1x3x{SIDE}x{SIDE}") if rng.random() < 0.1 else ()
    pair = ("onnx/plain.onnx", file) if rng.random() < 0.5 else (file, "onnx/plain.onnx")
    tail = (*quick, *shape, *(("--json",) if rng.random() < 0.2 else ()))
    program = rng.choice((DEPLOY, MEASURE))
    if rng.random() < 0.5:
        return Case(program, ("compare", *pair, *_ROUNDS, *tail), what)
    return Case(program, ("bench", file, *_ROUNDS, *tail), what)


def _damaged_bytes(path: Path, rng: Rng) -> str:
    content, what = damage(path.read_bytes(), rng)
    path.write_bytes(content)
    return what


def _images(here: Path, rng: Rng) -> Case:
    data, may_open = rng.choice(("photos", "photos", "classes", "tiny.npz", "list.txt", "names.txt")), False
    if data == "list.txt":
        what, may_open = damage_list(here / data, rng), True  # a list is its user's, and may name what it likes
        os.mkfifo(here / "pipe.png")
    elif data == "names.txt":
        content, what = damage_text(json.dumps((here / data).read_text().splitlines()), rng)
        (here / data).write_bytes(content.replace(b",", b"\n"))
    elif data == "tiny.npz":
        what = damage_arrays(here / data, rng) if rng.random() < 0.6 else _damaged_bytes(here / data, rng)
    else:
        file = rng.choice(sorted(path for path in (here / data).rglob("*") if path.is_file()))
        act = rng.random()
        what = (
            damage_image(file, rng)
            if act < 0.4
            else _damaged_bytes(file, rng)
            if act < 0.6
            else damage_folder(here / data, rng)
        )
    flags = ("--data", "tiny.npz", "--classes", data) if data == "names.txt" else ("--data", data)
    if data != "names.txt" and rng.random() < 0.2:
        flags = ("--data", "photos", "--eval", data) if data != "photos" else ("--data", "tiny.npz", "--eval", data)
    if rng.random() < 0.3:
        flags = (*flags, "--skip-bad-images")
    return Case(DEPLOY, ("plan", *_PLAN, "--out", "other", *flags), f"{data}: {what}", may_open)


def _weights(here: Path, rng: Rng) -> Case:
    path = here / rng.choice(("plain.pth", "plain.pth", "older.pth", "checkpoint.pth", "plain.safetensors"))
    act = rng.random()
    if act < 0.4:
        what = _damaged_bytes(path, rng)
    elif act < 0.95:
        what = damage_weights(path, state_dict(here), rng)
    else:
        what = replace_file(path, rng)
    flags = ("--weights", path.name)
    if rng.random() < 0.08:
        return Case(DEPLOY, ("plan", *_PLAN, "--out", "other", "--data", "tiny.npz", *flags), f"{path.name}: {what}")
    json_too = ("--json",) if rng.random() < 0.2 else ()
    return Case(DEPLOY, ("inspect", NETWORK, *_SIZE, *flags, *json_too), f"{path.name}: {what}")


def _settings(here: Path, rng: Rng) -> Case:
    path = here / rng.choice(("settings.toml", "settings.json"))
    if rng.random() < 0.95:
        content, what = damage_text(path.read_text(), rng, path.suffix[1:])
        path.write_bytes(content)
    else:
        what = replace_file(path, rng, pipe=False)  # whose writer is waited for, as a shell's <(...) is
    verb = "plan" if rng.random() < 0.1 and not _asks_for_much(path) else "inspect"
    return Case(
        DEPLOY,
        (verb, "--config", path.name, *(("--out", "other") if rng.random() < 0.5 else ())),
        f"{path.name}: {what}",
    )


def _asks_for_much(path: Path) -> bool:
    """Whether settings ask for more work than the bases do, which is then done, and no hang; or for nothing, which means the embedded network."""
    if not path.is_file():
        return True
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        network, work = found["network"], [float(found.get(name) or 0) for name in _WORK]
    except Exception:
        return not path.stat().st_size
    return network != NETWORK or any(not abs(each) <= 2 * SIDE for each in work)


def _tables(here: Path, rng: Rng) -> Case:
    path, act = here / "table.json", rng.random()
    if act < 0.85:
        content, what = damage_text(path.read_text(), rng)
        path.write_bytes(content)
    elif act < 0.93:
        npz = here / "table.npz"
        what = damage_arrays(npz, rng) if rng.random() < 0.5 else _damaged_bytes(npz, rng)
    else:
        what = replace_file(path, rng)
    act = rng.random()
    if act < 0.5:
        pair = ("table.json", "run/latency.json") if rng.random() < 0.5 else ("run/latency.json", "table.json")
        arguments: tuple[str, ...] = ("latency", "--diff", *pair, *(("--json",) if rng.random() < 0.3 else ()))
    elif act < 0.85:
        arguments = ("latency", NETWORK, *_SIZE, "--latency-table", "table.json", "--out", "other", "--sessions", "2")
    else:
        arguments = ("plan", *_PLAN, "--out", "other", "--data", "tiny.npz")
    return Case(DEPLOY, arguments, f"table: {what}")


def _kits(here: Path, rng: Rng) -> Case:
    manifest, files = (
        here / "kit" / "kit.json",
        sorted(p for p in (here / "kit").rglob("*") if p.is_file() and p.suffix != ".whl"),
    )
    act = rng.random()
    if act < 0.55:
        content, what = damage_text(manifest.read_text(), rng)
        manifest.write_bytes(content)
    elif act < 0.9:
        path = rng.choice([path for path in files if "networks" in path.parts])
        is_network = path.suffix == ".onnx" and rng.random() < 0.6
        what = f"{path.name}: {damage_network(path, rng) if is_network else _damaged_bytes(path, rng)}"
        if rng.random() < 0.8:  # whoever means harm writes the hashes anew
            what += ", hashes written anew"
            _vouch(manifest)
    elif act < 0.95:
        what = replace_file(rng.choice(files), rng)
    else:
        what = link_outside(rng.choice([path for path in files if path.suffix != ".md"]), here.parent / "outside")
    if rng.random() < 0.1:
        return Case(DEPLOY, ("kit", "run", "--kit", "kit"), f"kit: {what}")
    flags = ("--measure-budget-s", "0.05", *(("--json",) if rng.random() < 0.2 else ()))
    return Case(MEASURE, ("table", "kit", *flags), f"kit: {what}")


def _vouch(manifest: Path) -> None:
    found = json.loads(manifest.read_text())
    found["sha256"] = {
        name: hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() for name in found["sha256"]
    }
    manifest.write_text(json.dumps(found))


def _runs(here: Path, rng: Rng) -> Case:
    files = sorted(path for path in (here / "run").rglob("*") if path.is_file())
    told = [_damaged_file(rng.choice(_weighted(files)), rng) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.7:
        told.append("hashes written anew")
        _vouch_in_run(here / "run")
    quick = ("--sessions", "2", "--no-footprint")
    arguments = rng.choice(
        (("report", "run"),) * 6
        + (("report", "run", "--json"), ("report", "run", "run", "--out", "two.html"))
        + (("compare", "run", "--measure-budget-s", "0.05", *quick),) * 3
        + (("bench", "run", "--measure-budget-s", "0.05", *quick),)
        + (
            ("build", NETWORK, *SMALL, "--data", "tiny.npz", "--out", "run", "--latency-table", "table.json"),
            ("verify", "--out", "run"),
            ("plan", "--out", "run"),
            ("kit", "run"),
            ("latency", "--out", "run"),
        )
        + (("bench", "run/model.onnx", "--measure-budget-s", "0.05", *quick),)
    )
    if "--out" in arguments and arguments[0] != "build" and _asks_for_much(here / "run" / "settings.json"):
        arguments = ("report", "run")
    return Case(DEPLOY, arguments, "; ".join(told))


def _vouch_in_run(run: Path) -> None:
    """As whoever means harm would: the manifest and the steps' keys hold the hashes of what is there now."""
    for path, key in (
        (run / "manifest.json", "files_sha256"),
        *((path, "files") for path in (run / "steps").glob("*.key.json")),
    ):
        if not path.is_file():  # a pipe would be waited for
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            names = [name for name in found[key] if (path.parent / name).is_file()]
            found[key] |= {name: hashlib.sha256((path.parent / name).read_bytes()).hexdigest() for name in names}
        except Exception:  # damaged itself
            continue
        path.write_text(json.dumps(found))


def _weighted(files: list[Path]) -> list[Path]:
    """What is read most, more often."""
    often = ("release.json", "settings.json", "latency.json", "plan.json", "manifest.json")
    return [
        path for path in files for _ in range(4 if path.name in often else 1) if path.exists() and not path.is_symlink()
    ]


def _damaged_file(path: Path, rng: Rng) -> str:
    if rng.random() < 0.08 or not path.is_file() or not path.stat().st_size:
        what = replace_file(path, rng) if path.is_file() else "gone already"
    elif path.suffix == ".json":
        try:
            content, what = damage_text(path.read_text(encoding="utf-8"), rng)
        except ValueError:
            content, what = damage(path.read_bytes(), rng)
        path.write_bytes(content)
    elif path.suffix == ".npz" and rng.random() < 0.5:
        try:
            what = damage_arrays(path, rng)
        except Exception:  # damaged before
            what = _damaged_bytes(path, rng)
    else:
        what = _damaged_bytes(path, rng)
    return f"run/{path.name}: {what}"


def _options(here: Path, rng: Rng) -> Case:
    os.mkfifo(here / "pipe")
    program = rng.choice((DEPLOY, DEPLOY, MEASURE))
    commands = options.of_deploy() if program == DEPLOY else options.of_measure()
    verb = rng.choice(options.DRAWN[program])
    flags, what = options.draw(commands[verb], rng)
    return Case(program, (verb, *_given(verb), *flags), what, may_open=True)


def _given(verb: str) -> tuple[str, ...]:
    """What the command is given besides, so that it ends soon."""
    rounds = (*_ROUNDS, "--no-footprint")
    return {
        "compare": ("onnx/plain.onnx", "onnx/dynamic.onnx", *rounds),
        "bench": ("onnx/plain.onnx", *rounds),
        "table": ("kit", "--measure-budget-s", "0.05"),
        "report": ("run",),
        "doctor": (),
        "inspect": (NETWORK, *_SIZE),
        "latency": (NETWORK, *_SIZE, "--latency-table", "table.json", "--out", "other"),
        "kit": (NETWORK, *_SIZE, "--kit", "other"),
        "verify": ("--out", "run"),
        "build": ("--out", "run", "--quiet"),
    }.get(verb, (*_PLAN, "--out", "other", "--data", "tiny.npz"))


KINDS: dict[str, Draw] = {
    "tables": _tables, "settings": _settings, "onnx": _onnx, "weights": _weights, "options": _options, "runs": _runs, "kits": _kits,
    "images": _images,
}  # fmt: skip
COUNTS = {
    "tables": 650,
    "settings": 650,
    "onnx": 720,
    "weights": 680,
    "options": 320,
    "runs": 500,
    "kits": 250,
    "images": 300,
}
