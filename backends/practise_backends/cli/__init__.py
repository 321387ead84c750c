"""`practise-measure`: compare networks, bench one, and look at the machine; none of it needs torch.

Exit codes: 0 kept, 1 the requirement is not met, 2 usage (a file, an option), 3 environment (a backend, a disturbed device,
memory), 70 a fault of this program, reported in one message; with PRACTISE_DEBUG set in the environment, with its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from practise_backends import __version__
from practise_backends.cli.program import begin
from practise_backends.cli.progress import Pace
from practise_backends.cli.result import of_the_system, put
from practise_backends.errors import BackendError, OutOfMemory, lacks_memory
from practise_backends.flags import Flag, nearest, option_flags
from practise_backends.options import (
    BenchOptions,
    CompareOptions,
    Measuring,
    Options,
    TableOptions,
    flags_of,
)
from practise_backends.terminal import clean, one_line

COMMANDS = ("compare", "bench", "table", "doctor")
KEPT, BROKEN, USAGE, ENVIRONMENT, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130
_CLEARED = "\r\x1b[K"
_OptionsT = TypeVar("_OptionsT", bound=Options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the result goes to stdout, progress and an error to stderr."""
    begin()
    args = _parser().parse_args(_spelled_out(sys.argv[1:] if arguments is None else arguments))
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except KeyboardInterrupt:
        return _refuse("interrupted", "run the same command again", INTERRUPTED)
    except Exception as error:
        return _report_error(error)


def _report_error(error: Exception) -> int:
    """One message and the exit code; an unexpected error is raised again if PRACTISE_DEBUG is set."""
    if not isinstance(error, BackendError) and lacks_memory(error):
        error = OutOfMemory()
    if isinstance(error, OSError):
        error = of_the_system(error)
    if isinstance(error, BackendError):
        return _refuse(error.message, error.remedy, error.exit_code)
    if os.environ.get("PRACTISE_DEBUG"):
        raise error
    summary = f"{type(error).__name__}: {error}".rstrip(": ")
    remedy = "this is a fault of practise-measure: report it, with what PRACTISE_DEBUG=1 shows"
    return _refuse(f"unexpected {summary}", remedy, BUG)


def _spelled_out(arguments: Sequence[str]) -> Sequence[str]:
    """`practise-measure kit/` is `practise-measure table kit/`: what is no command is a folder or a path."""
    first = arguments[0] if arguments else ""
    if first in ("", *COMMANDS, "-h", "--help", "--version"):
        return arguments
    is_place = any(mark in first for mark in "/\\") or any(os.path.isdir(argument) for argument in arguments)
    return ["table", *arguments] if is_place else arguments


def _refuse(message: str, remedy: str, code: int) -> int:
    _clear()
    sys.stderr.write(_error_line(message, remedy))
    return code


def _compare(args: argparse.Namespace) -> int:
    from practise_backends.cli.commands import compare_files
    from practise_backends.results.documents import to_json
    from practise_backends.results.render import comparison_text

    options = _options(CompareOptions, args)
    comparison, requirement = compare_files(args.before, args.after, options, _screen())
    _print(
        to_json(comparison, requirement=requirement)
        if options.json
        else comparison_text(comparison, requirement)
    )
    return KEPT if requirement.kept else BROKEN


def _bench(args: argparse.Namespace) -> int:
    from practise_backends.cli.commands import bench_file
    from practise_backends.results.documents import to_json
    from practise_backends.results.render import benchmark_text

    options = _options(BenchOptions, args)
    benchmark = bench_file(args.file, options, _screen())
    _print(to_json(benchmark) if options.json else benchmark_text(benchmark))
    return KEPT


def _table(args: argparse.Namespace) -> int:
    from practise_backends.cli.commands import table_of_kit
    from practise_backends.results.documents import to_json
    from practise_backends.results.render_table import next_step, table_text

    overrides = {
        flag.name: value for flag in flags_of(Measuring) if (value := getattr(args, flag.name)) is not None
    }
    overrides["options"] = _backend_options(args)
    table, kit, place = table_of_kit(args.kit, overrides, args.output, _screen())
    _print(to_json(table) if args.json else table_text(table))
    sys.stderr.write(next_step(kit, table, place))
    return KEPT


def _doctor(args: argparse.Namespace) -> int:
    from practise_backends.cli.program import users_variables
    from practise_backends.results.doctor import examine, exit_code, render
    from practise_backends.results.documents import to_json

    checkup = examine(args.backend, variables=users_variables(), progress=_screen())
    _print(to_json(checkup) if args.json else render(checkup))
    return exit_code(checkup)


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports its errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave with the code for usage."""
        self.exit(USAGE, _error_line(message, _meant(message) or f"see {self.prog} --help"))


def _meant(message: str) -> str:
    """The option that may be meant where argparse names one that there is not; empty where none is like it."""
    _, unknown, words = message.partition("unrecognized arguments: ")
    first = words.split("=")[0].split()[:1] if unknown else []
    own = (flag for kind in (CompareOptions, BenchOptions, TableOptions) for flag in flags_of(kind))
    flags = {flag.written for flag in (*own, *option_flags())}
    near = nearest(first[0], flags) if first else ""
    return f"did you mean {near}?" if near else ""


class _Line:
    """Progress as one line that is written over, and cleared before anything else is said."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._pace = Pace(now_s)

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Say how far it is, and how long it will take."""
        share = min(1.0, done / total) if total > 0 else 0.0
        text = ", ".join(part for part in (self._pace.left(done, total), one_line(note)) if part)
        sys.stderr.write(f"{_CLEARED}{100 * share:3.0f}% {text}")
        sys.stderr.flush()


def _screen() -> _Line | None:
    """Progress where somebody sees it."""
    return _Line() if sys.stderr.isatty() else None


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(prog="practise-measure", description="Measure ONNX networks in paired rounds.")
    parser.add_argument("--version", action="version", version=f"practise-measure {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    compare = commands.add_parser(
        "compare", help="is the second network faster than the first?", description=_COMPARE
    )
    compare.add_argument("before", type=Path, metavar="A", help="the network that is there (.onnx, .ort)")
    compare.add_argument("after", type=Path, metavar="B", help="the one that should be faster")
    _add_flags(compare, CompareOptions, _compare)
    bench = commands.add_parser("bench", help="all figures of one network", description=_BENCH)
    bench.add_argument("file", type=Path, metavar="FILE", help="the network (.onnx, .ort)")
    _add_flags(bench, BenchOptions, _bench)
    table = commands.add_parser(
        "table", help="what every block costs: measure a kit (or: KIT alone)", description=_TABLE
    )
    table.add_argument(
        "kit", type=Path, metavar="KIT", help="the folder that practise-deploy kit has written"
    )
    _add_flags(table, TableOptions, _table)
    doctor = commands.add_parser("doctor", help="can figures of this machine be believed?")
    doctor.add_argument("--backend", metavar="NAME", help="look at this backend (default: at all)")
    doctor.add_argument("--json", action="store_true", help="print exactly one JSON document")
    doctor.set_defaults(run=_doctor)
    return parser


_COMPARE = (
    "Measure two networks in the same rounds: faster, slower, or cannot tell. Exit code 0 when the requirement "
    "holds at the lower bound of the interval, 1 when it does not."
)
_BENCH = "Latency percentiles, noise floor, cold start, memory and size; throughput and LoadGen where asked."

_TABLE = (
    "Measure what every block of a network costs on this device, from a kit that practise-deploy has written, and "
    "write a latency table for practise-deploy plan. What is not asked here is as the kit's maker asked."
)


def _add_flags(
    parser: argparse.ArgumentParser, options: type, run: Callable[[argparse.Namespace], int]
) -> None:
    """Every option of the record, under its field's name."""
    for flag in (*flags_of(options), *option_flags()):
        if flag.parse is None:
            action = "store_false" if flag.default is True else "store_true"
            parser.add_argument(flag.written, dest=flag.name, action=action, default=None, help=flag.help)
        else:
            parser.add_argument(
                flag.written,
                dest=flag.name,
                type=_checked(flag),
                action="append" if flag.repeated else "store",
                metavar=flag.metavar,
                help=f"{flag.help}{_default(flag, options)}",
            )
    parser.set_defaults(run=run)


def _default(flag: Flag, options: type) -> str:
    """An option's default, for its help text."""
    if options is TableOptions and flag.name in {
        known.name for known in (*flags_of(Measuring), *option_flags())
    }:
        return "" if "(default:" in flag.help else " (default: the kit's)"
    return "" if flag.default in (None, ()) else f" (default: {flag.default})"


def _checked(flag: Flag) -> Callable[[str], Any]:
    """The option's reader, whose words argparse repeats."""

    def read(text: str) -> Any:
        try:
            return flag.parse(text) if flag.parse else text
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _options(kind: type[_OptionsT], args: argparse.Namespace) -> _OptionsT:
    """The record of the options on the command line; the others keep their defaults."""
    values = {flag.name: getattr(args, flag.name) for flag in flags_of(kind)}
    given = {name: value for name, value in values.items() if value is not None}
    return kind(**given, options=_backend_options(args))


def _backend_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of backends on the command line."""
    values = {flag.name: getattr(args, flag.name) for flag in option_flags()}
    return {name: value for name, value in values.items() if value is not None}


def _print(text: str) -> None:
    """The result, the line of progress taken away."""
    _clear()
    put(clean(text))


def _clear() -> None:
    """Take the line of progress away."""
    if sys.stderr.isatty():
        sys.stderr.write(_CLEARED)
        sys.stderr.flush()


def _error_line(message: str, remedy: str) -> str:
    """One message: what, and in the next line the remedy."""
    return f"error: {one_line(message)}\nremedy: {one_line(remedy)}\n"
