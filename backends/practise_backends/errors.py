"""The errors of the device half.

Refusal                     what both programs report as it is; the errors of practise-deploy are refusals too
├── EnvironmentProblem      a backend, a package, a device or a place to write is missing, or the device is too disturbed
└── BackendError
    ├── BackendMissing      the backend, or a package it needs, is not installed (an EnvironmentProblem)
    ├── DeviceUnavailable   the package is there, the device is not (an EnvironmentProblem)
    ├── PlaceUnwritable     a requested file cannot be written (an EnvironmentProblem)
    ├── CompileError        the network cannot be compiled for this backend
    └── MeasureError        the measurement cannot support what was asked of it
        ├── Disturbed       the device was disturbed for nearly all of it
        ├── OutOfMemory     the memory did not suffice for it
        └── EngineClosed    its engine was closed before
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_NO_MEMORY = (
    "bad_alloc",
    "allocate memory",
    "out of memory",
    "failed to map segment",
    "failed to serialize proto",
)
"""What libraries say without memory; protobuf says the same of 2 GiB and more, which is refused before."""


class Refusal(Exception):
    """What went wrong, where, and (`remedy`) what to do about it.

    snippet: Python to write, where the remedy is that. exit_code: of a command that it ends: 2 what was asked, 3 the environment.
    """

    exit_code = 2

    def __init__(self, message: str, *, remedy: str, snippet: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.snippet = snippet


class EnvironmentProblem(Refusal):
    """A backend, a package, a device or a place to write is missing, or the device is too disturbed to plan on."""

    exit_code = 3


class BackendError(Refusal):
    """A refusal of the device half."""


class BackendMissing(EnvironmentProblem, BackendError):
    """The backend, or a package it needs, is not installed."""


class DeviceUnavailable(EnvironmentProblem, BackendError):
    """The package is installed, but its device cannot be used."""


class PlaceUnwritable(EnvironmentProblem, BackendError):
    """A requested file cannot be written."""


class CompileError(BackendError):
    """The network cannot be compiled for this backend."""


class MeasureError(BackendError):
    """The measurement cannot support what was asked of it."""


class Disturbed(MeasureError):
    """There were rounds enough, but the device was disturbed in nearly all of them."""

    exit_code = 3


class OutOfMemory(MeasureError):
    """The memory did not suffice. cause: the library's message."""

    exit_code = 3

    def __init__(self, cause: str = "") -> None:
        super().__init__(
            f"out of memory: {cause}" if cause else "out of memory",
            remedy="use a smaller --batch or --shape or fewer --sessions, or end what else takes memory here",
        )


class EngineClosed(MeasureError):
    """An engine was asked to run after it was closed."""

    def __init__(self, inputs: Iterable[str]) -> None:
        super().__init__(
            f"the engine that takes {', '.join(inputs)} is closed", remedy="open the artefact again"
        )


@contextmanager
def about(thing: object) -> Iterator[None]:
    """Refusals in here say what they are about: its name goes before a message that does not hold it.

    Raises: what was raised.
    """
    try:
        yield
    except Refusal as error:
        if str(thing) not in error.message:
            error.message = f"{thing}: {error.message}"
            error.args = (error.message,)
        raise


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, or what caused it, means that there was no memory left."""
    message = str(error).lower()
    if isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY):
        return True
    return error.__cause__ is not None and lacks_memory(error.__cause__)
