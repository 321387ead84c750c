"""The result on stdout: a reader who has gone away changes neither what is kept nor the exit code."""

from __future__ import annotations

import os
import sys


def put(text: str) -> None:
    """Print the result, with one line end at its end."""
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop_telling()


def stop_telling() -> None:
    """Send the rest of stdout nowhere: what is still in its buffer would fail again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
