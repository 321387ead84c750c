"""The result on stdout: a reader who has gone away changes neither what is kept nor the exit code.

Nor does an encoding that lacks some letters, which are replaced. Where stdout is closed, nobody reads; where it is full, that is an error.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from practise_backends.errors import PlaceUnwritable

_ROOM = "make room for files (TMPDIR says where temporary ones go) and memory, and see what limits hold: ulimit -a"


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


def of_the_system(error: OSError) -> PlaceUnwritable:
    """What the system refused that nobody foresaw: a file, stdout, or something that it does not name."""
    if error.filename:
        return PlaceUnwritable(
            f"cannot read or write {error.filename}: {error.strerror}",
            remedy="check the path and its permissions, or choose another place",
        )
    stop_telling()  # it may be stdout, whose buffer would fail again
    return PlaceUnwritable(f"the system refused: {error.strerror or error}", remedy=_ROOM)


def stop_telling() -> None:
    """Send the rest of stdout nowhere: what is still in its buffer would fail again when Python ends."""
    with (
        suppress(io.UnsupportedOperation),
        open(os.devnull, "wb") as nowhere,
    ):  # what is no file has no buffer
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
