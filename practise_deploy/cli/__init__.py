"""The command line. Verbs are stages; stdout is the result, progress and prose go to stderr.

Exit codes: 0 kept the promise, 1 promise broken, 2 usage, 3 environment, 4 verification failed, 70 a fault of this program.
"""

from __future__ import annotations

import os
import sys

import typer

from practise_backends.cli.program import begin
from practise_backends.cli.result import of_the_system
from practise_backends.errors import OutOfMemory, Refusal, lacks_memory
from practise_deploy.cli import files, stages
from practise_deploy.cli.app import app
from practise_deploy.environment import set_library_defaults

__all__ = ["app", "main"]

BUG = 70

stages.register()
files.register()


def main() -> None:
    """Run the command line; every known error is one message and its exit code."""
    set_library_defaults()
    begin()
    try:
        code = app(standalone_mode=False)
        if code == 130:  # what typer makes of an interrupt
            code = _interrupted()
    except Refusal as error:
        code = _refuse(error.message, error.remedy, error.exit_code, error.snippet)
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:
        code = _of_a_library(error)
    sys.exit(code if isinstance(code, int) else 0)


def _of_a_library(error: Exception) -> int:
    """Translate usage errors, file errors and memory errors; any other is a bug, raised if PRACTISE_DEBUG is set."""
    if hasattr(error, "format_message"):
        return _refuse(error.format_message(), f"see {_command_of(error)} --help", 2)
    if isinstance(error, typer.Abort):
        return _interrupted()
    if isinstance(error, typer.Exit):
        return error.exit_code
    if lacks_memory(error):
        remedy = "use a smaller --input-size, --batch or --batch-size, or fewer images"
        return _refuse(OutOfMemory().message, remedy, OutOfMemory.exit_code)
    if isinstance(error, OSError):
        refusal = of_the_system(error)
        return _refuse(refusal.message, refusal.remedy, refusal.exit_code)
    if os.environ.get("PRACTISE_DEBUG"):
        raise error
    message = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
    return _refuse(message, "this is a fault of practise-deploy: report it, with what PRACTISE_DEBUG=1 shows", BUG)


def _command_of(error: Exception) -> str:
    """The command of a usage error, as typed."""
    context = getattr(error, "ctx", None)
    return "practise-deploy" if context is None or context.parent is None else f"practise-deploy {context.info_name}"


def _interrupted() -> int:
    return _refuse("interrupted", "the same command resumes where it stopped", 130)


def _refuse(message: str, remedy: str, code: int, snippet: str = "") -> int:
    from practise_deploy.cli.console import Console  # brings numpy, which --help can do without

    Console().error(message, remedy, snippet)
    return code
