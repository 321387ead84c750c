"""Which code made a result."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
_CODE = (":/practise_deploy", ":/backends", ":/benchmarks/*.py")


@cache
def commit() -> str | None:
    """The commit that is checked out, with "+" where its code was changed since; None outside a clone."""
    try:
        found = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
