"""What is wrong with how a program ended: nothing, or one of a few things by name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from kinds import Case
from server import Ended

FAULTS = ("tracebacks", "hangs", "reads outside", "partial files", "wrong exit codes", "commands to a terminal")
SECRET = "the secret of the folder outside"
_COMMANDS = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
Tree = dict[str, str]


def tree_of(folder: Path) -> Tree:
    """Every regular file under a folder, with its hash; links, pipes and folders by what they are."""
    return {
        str(path.relative_to(folder)): "other"
        if path.is_symlink() or not path.is_file()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


def faults_of(case: Case, ended: Ended, here: Path, before: Tree) -> list[tuple[str, str]]:
    """What is wrong, by its kind, and in words."""
    found: list[tuple[str, str]] = []
    said = ended.out + ended.err
    if "Traceback (most recent call last)" in said:
        found.append(("tracebacks", said.strip().splitlines()[-1][:200]))
    if ended.hung:
        return [*found, ("hangs", ended.hung)]
    if SECRET in said or (ended.opened and not case.may_open):
        found.append(("reads outside", ", ".join(ended.opened) or "its text was shown"))
    if written := [each for each in ended.opened if each.startswith("changed")]:
        found.append(("reads outside", f"wrote: {', '.join(written)}"))
    if wrong := _wrong_code(case, ended):
        found.append(("wrong exit codes", wrong))
    found += [("partial files", each) for each in _partial(here, before)]
    if match := _COMMANDS.search(said):
        found.append(
            ("commands to a terminal", f"{match[0]!r} in {said[max(0, match.start() - 40) : match.end() + 20]!r}")
        )
    return found


def _wrong_code(case: Case, ended: Ended) -> str:
    if ended.code < 0:
        return f"ended by signal {-ended.code}: {ended.err[-3000:][:800]!r}"
    if ended.code not in case.codes:
        return f"{ended.code}: {ended.err[-200:]!r}"
    told = len(re.findall(r"^(?:\r?\x1b\[K)?error: ", ended.err, re.MULTILINE))
    if ended.code == 0 and told:
        return f"0 with an error: {ended.err[-200:]!r}"
    if ended.code in (2, 3) and told != 1 and not ended.out:
        return f"{ended.code} with {told} messages: {ended.err[-200:]!r}"
    return ""


def _partial(here: Path, before: Tree) -> list[str]:
    """Files that are left half written, and what temporary files are left."""
    found = [f"left: {path.name}" for path in (here.parent / "tmp").iterdir()]
    for name, content in tree_of(here).items():
        if re.search(r"\.part$|/practise-", name) and name not in before:
            found.append(f"left: {name}")
        if content != "other" and content != before.get(name) and (why := _unreadable(here / name)):
            found.append(f"{name} is written and cannot be read: {why}")
    return found


def _unreadable(path: Path) -> str:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        elif path.suffix == ".onnx":
            onnx.checker.check_model(str(path))
        elif path.suffix == ".npz":
            with np.load(path) as file:
                _ = [file[name].shape for name in file.files]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def _no_number(word: str) -> Any:
    raise ValueError(f"it holds {word}")
