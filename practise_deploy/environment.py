"""Environment variables that libraries read once, when they are loaded. The user's own values stay."""

from __future__ import annotations

import os
import sys

from practise_backends.cli.program import disable_telemetry, set_default

_WAITING = "OMP_WAIT_POLICY"
_LOADED_BEFORE = (
    "torch was imported before practise_deploy could tell its idle threads to sleep; where measurements are noisy, "
    f"start Python with {_WAITING}=PASSIVE"
)
_unsaid: list[str] = []


def set_library_defaults() -> None:
    """Set them for this process, before torch and ONNX Runtime are imported.

    Torch's idle threads sleep instead of spinning. Spinning ones disturb the engine that is measured beside them, and on a busy machine
    make every parallel section wait for a core.
    """
    disable_telemetry()
    torch = sys.modules.get("torch")
    if torch is not None and _WAITING not in os.environ and torch.get_num_threads() > 1:
        _unsaid.append(_LOADED_BEFORE)
    set_default(_WAITING, "PASSIVE")


def unsaid_notes() -> list[str]:
    """What came too late to have an effect, told once."""
    notes = _unsaid.copy()
    _unsaid.clear()
    return notes
