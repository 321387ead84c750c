"""What the tables share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ABSENT = "Not measured yet."


def read(name: str) -> Any:
    """A JSON under the results, or None where it is missing."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.is_file() else None


def points(found: dict | None) -> str:
    """A difference with its interval, where there is one."""
    if found is None or found["estimate"] is None:
        return ""
    if found.get("low") is None:
        return f"{found['estimate']:+.2f}"
    return f"{found['estimate']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
