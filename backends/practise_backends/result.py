"""The result on stdout: a reader who has gone away changes neither what is kept nor the exit code.

Nor does an encoding that lacks some letters, which are replaced. Where stdout is closed, nobody reads; where it is full, that is an error.
"""

from __future__ import annotations

import os
import sys

from practise_backends.errors import PlaceUnwritable


def put(text: str) -> None:
    """Print the result, with one line end at its end.

    Raises: PlaceUnwritable where stdout takes no more.
    """
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop_telling()
    except OSError as error:
        raise unwritable(error) from None


def unwritable(error: OSError) -> PlaceUnwritable:
    """That stdout takes no more; the rest goes nowhere."""
    stop_telling()
    return PlaceUnwritable(
        f"cannot write the result to stdout: {error.strerror}", remedy="make room where stdout goes"
    )


def stop_telling() -> None:
    """Send the rest of stdout nowhere: what is still in its buffer would fail again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
