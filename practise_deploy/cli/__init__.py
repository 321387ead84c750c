"""The command line. Verbs are stages; stdout is the result, progress and prose go to stderr.

Exit codes: 0 kept the promise, 1 promise broken, 2 usage, 3 environment, 4 verification failed.
"""

from __future__ import annotations

import sys

from practise_backends.program import begin
from practise_backends.result import unwritable
from practise_deploy.cli import files, stages
from practise_deploy.cli.app import app
from practise_deploy.errors import PractiseError

__all__ = ["app", "main"]

stages.register()
files.register()


def main() -> None:
    """Run the command line; every known error is one message and its exit code."""
    begin()
    try:
        code = app(standalone_mode=False)
        if code == 130:  # what typer makes of an interrupt
            code = _interrupted()
    except PractiseError as error:
        code = _refuse(error.message, error.remedy, error.exit_code)
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:
        code = _of_a_library(error)
    sys.exit(code if isinstance(code, int) else 0)


def _of_a_library(error: Exception) -> int:
    """Usage errors of the command line, errors of the device half and of files; anything else is a bug of ours and raised."""
    from practise_backends.errors import BackendError

    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return 2
    if hasattr(error, "format_message"):
        return _refuse(error.format_message(), "practise-deploy --help lists commands and options", 2)
    if isinstance(error, BackendError):
        return _refuse(error.message, error.remedy, error.exit_code)
    if isinstance(error, OSError) and error.filename:
        return _refuse(f"{error.filename}: {error.strerror}", "check the path and its permissions", 3)
    if isinstance(error, OSError) and not error.filename:
        return _of_a_library(unwritable(error))
    if type(error).__name__ == "Abort":
        return _interrupted()
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, ImportError)) and _lacks_memory(str(error))):
        return _refuse("out of memory", "use a smaller --input-size, --batch or --batch-size, or fewer images", 3)
    raise error


def _lacks_memory(said: str) -> bool:
    """Whether a library's words mean that there was no memory left."""
    return any(word in said.lower() for word in ("memory", "failed to map segment", "bad_alloc"))


def _interrupted() -> int:
    return _refuse("interrupted", "the same command goes on where it was", 130)


def _refuse(message: str, remedy: str, code: int) -> int:
    from practise_deploy.console import Console  # brings numpy, which --help can do without

    Console().error(message, remedy)
    return code
