"""The errors of practise-deploy, each with what happened, a remedy and the exit code of the command line.

Refusal                      with those of the device half (practise_backends/errors.py)
├── PromiseBroken (1)        the result does not keep what was asked
│   └── TargetOutOfReach     no choice of blocks meets the latency target
├── InputError (2)           a file, an option or a network is not usable as given
│   └── NoDroppableBlock     the network has nothing this method can remove
└── VerificationFailed (4)   the shipped network does not compute what the student computes
"""

from __future__ import annotations

from practise_backends.errors import Refusal


class PromiseBroken(Refusal):
    """The result does not keep what was asked."""

    exit_code = 1


class TargetOutOfReach(PromiseBroken):
    """No choice of blocks meets the latency target."""


class InputError(Refusal):
    """A file, an option or a network is not usable as given."""

    exit_code = 2


class NoDroppableBlock(InputError):
    """The network has nothing this method can remove."""


class VerificationFailed(Refusal):
    """The shipped network does not compute what the student computes."""

    exit_code = 4


def reason(error: Exception) -> str:
    """Why a file could not be read: of the system's errors the words alone, since the message names the file."""
    return getattr(error, "strerror", None) or first_line(error)


def first_line(error: BaseException) -> str:
    """An error in one line: the first of its own, else its kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
