"""The application, and how a command gets its flags from a list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from practise_backends.cli.result import put
from practise_backends.flags import Flag, option_flags
from practise_backends.options import Measuring, flags_of
from practise_deploy import __version__

app = typer.Typer(
    name="practise-deploy",
    help="Make a pretrained network faster on its device from a handful of images, and prove it.",
    no_args_is_help=True,
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
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


JSON = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="print errors alone")]

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
    app.command(name, help=help)(command)


def parameters_of(options: type, *, without: Sequence[str] = ()) -> list[Parameter]:
    """The flags of a record of options of the device half."""
    flags = (*flags_of(options), *(option_flags() if issubclass(options, Measuring) else ()))
    return [Parameter(flag.name, flag_annotation(flag)) for flag in flags if flag.name not in without]


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


def flag_annotation(flag: Flag) -> Any:
    if flag.parse is None:
        return Annotated[bool | None, typer.Option(flag.written, help=flag.help, show_default=False)]
    shown = f" (default: {flag.default})" if flag.default not in (None, ()) else ""
    option = typer.Option(
        flag.written, help=flag.help + shown, parser=_checked(flag), metavar=flag.metavar, show_default=False
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
