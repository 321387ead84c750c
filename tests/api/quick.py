"""The settings of a build in seconds."""

from typing import Any

from pipeline.scripted import FAST

SETTINGS: dict[str, Any] = {**FAST, "iterations": 2, "drop": 1, "frontier": False, "max_drop": "none"}
