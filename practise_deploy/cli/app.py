"""The application, and how a command gets its flags from a list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from practise_backends.cli.result import put
from practise_backends.options import Flag, flags_of
from practise_deploy import __version__

app = typer.Typer(
    name="practise-deploy",
    help="Make a pretrained network faster on its device from a handful of images, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(asked: bool) -> None:
    if asked:
        put(f"practise-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    pass


JSON = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="print errors alone")]

Given = dict[str, Any]
_Options = TypeVar("_Options")


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or a flag of a command, as typer is told of it."""

    name: str
    annotation: Any
    default: Any = None


def add(name: str, help: str, run: Callable[[Given], int], parameters: Sequence[Parameter]) -> None:
    """Register a command; `run` gets what was given, by name."""

    def command(**given: Any) -> int:
        return run(given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = [
        inspect.Parameter(one.name, keyword, default=one.default, annotation=one.annotation) for one in parameters
    ]
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    app.command(name, help=help)(command)


def parameters_of(options: type, *, without: Sequence[str] = ()) -> list[Parameter]:
    """The flags of a record of options of the device half."""
    return [Parameter(flag.name, _annotation(flag)) for flag in flags_of(options) if flag.name not in without]


def options_of(kind: type[_Options], given: Mapping[str, Any]) -> _Options:
    """The record of what was given; what was not keeps its default. A switch that was given is turned over."""
    asked: Given = {}
    for flag in flags_of(kind):
        value = given.get(flag.name)
        if flag.parse is None and value is not None:
            asked[flag.name] = value != flag.default if flag.default else value
        elif value is not None and value != []:
            asked[flag.name] = tuple(value) if flag.repeated else value
    return kind(**asked)


def _annotation(flag: Flag) -> Any:
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
