"""The application, and how a command gets its flags from a list of them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from practise_backends.cli.result import put
from practise_backends.flags import Flag, option_flags
from practise_backends.options import Measuring, flags_of
from practise_deploy import __version__

app = typer.Typer(
    name="practise-deploy",
    help="Make a pretrained network faster on its device from a handful of images, and prove it.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        put(f"practise-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


JSON = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="print errors alone")]

BACKENDS_OWN = "Options of backends"
Arguments = dict[str, Any]
_Options = TypeVar("_Options")


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or a flag of a command, with its typer annotation."""

    name: str
    annotation: Any
    default: Any = None


def add(name: str, help: str, run: Callable[[Arguments], int], parameters: Sequence[Parameter]) -> None:
    """Register a command; `run` gets its arguments by name."""

    def command(**arguments: Any) -> int:
        return run(arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = [
        inspect.Parameter(parameter.name, keyword, default=parameter.default, annotation=parameter.annotation)
        for parameter in parameters
    ]
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    first_sentence = help.partition(". ")[0] + ("." if ". " in help else "")
    app.command(name, cls=_GroupedHelp, help=help, short_help=first_sentence)(command)


class _GroupedHelp(TyperCommand):
    """A command whose --help lists options under the titles of their panels, as typer does only with rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            title = "Arguments" if parameter.param_type_name == "argument" else None
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(title or getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def parameters_of(options: type, *, without: Sequence[str] = ()) -> list[Parameter]:
    """The flags of a record of options of the device half."""
    flags = (*flags_of(options), *(option_flags() if issubclass(options, Measuring) else ()))
    return [Parameter(flag.name, flag_annotation(flag)) for flag in flags if flag.name not in without]


def backends_own_parameters() -> list[Parameter]:
    """The flags of the installed backends."""
    return [Parameter(flag.name, flag_annotation(flag, BACKENDS_OWN)) for flag in option_flags()]


def options_of(options_type: type[_Options], arguments: Mapping[str, Any]) -> _Options:
    """The record of the arguments; absent ones keep their defaults. A switch inverts its default."""
    fields: Arguments = {}
    options = {"options": backend_options_in(arguments)} if issubclass(options_type, Measuring) else {}
    for flag in flags_of(options_type):
        value = arguments.get(flag.name)
        if flag.parse is None and value is not None:
            fields[flag.name] = value != flag.default if flag.default else value
        elif value is not None and value != []:
            fields[flag.name] = tuple(value) if flag.repeated else value
    return options_type(**fields, **options)


def backend_options_in(arguments: Mapping[str, Any]) -> Arguments:
    """The options of backends among the arguments; a switch inverts its default."""
    given = [flag for flag in option_flags() if arguments.get(flag.name) is not None]
    return {flag.name: not flag.default if flag.parse is None else arguments[flag.name] for flag in given}


def flag_annotation(flag: Flag, panel: str | None = None) -> Any:
    """A flag as typer has it. panel: the title that --help lists it under."""
    if flag.parse is None:
        return Annotated[
            bool | None, typer.Option(flag.written, help=flag.help, show_default=False, rich_help_panel=panel)
        ]
    shown = f" (default: {flag.default})" if flag.default not in (None, ()) else ""
    option = typer.Option(
        flag.written,
        help=flag.help + shown,
        parser=_checked(flag),
        metavar=flag.metavar,
        show_default=False,
        rich_help_panel=panel,
    )
    return Annotated[list[str] | None if flag.repeated else str | None, option]


def _checked(flag: Flag) -> Callable[[Any], Any]:
    """The option's reader, whose words typer repeats."""

    def read(text: Any) -> Any:
        try:
            return flag.parse(text) if flag.parse and isinstance(text, str) else text
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return read
