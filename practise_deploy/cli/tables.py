"""Latency tables as files: write the one that `latency` measured, and compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from practise_backends.cli.result import put
from practise_deploy.cli.app import Arguments, Parameter
from practise_deploy.cli.files import OverFiles
from practise_deploy.errors import InputError

if TYPE_CHECKING:
    from practise_deploy.pipeline.build import Build

_OUTPUT = "also write the table here, as portable JSON; its raw samples go beside it as .npz"
_DIFF = "compare two tables instead of measuring one"


def keep(build: Build, extra: Arguments) -> None:
    """Write the table where --output says."""
    from practise_deploy.deployment.latency_table import check_place, write_table

    if extra["output"] is not None:
        if build.context.settings.latency_table is not None:
            raise InputError(
                "--output writes a table that was measured; --latency-table reads one",
                remedy="copy the table and the .npz beside it",
            )
        check_place(extra["output"])
        write_table(build.latency, extra["output"])


def _diff(common: Arguments, settings: Arguments, extra: Arguments) -> int:
    """Compare two tables block by block; nothing is measured."""
    from practise_backends.results.table_diff import diff_tables
    from practise_deploy.cli.console import Console
    from practise_deploy.deployment.latency_table import read_table
    from practise_deploy.run import to_json

    flags = [name for name, value in {**settings, "output": extra["output"]}.items() if value is not None]
    flags += [name for name in ("network", "config", "explain", "fresh") if common[name]]
    if flags:
        raise InputError(
            f"'{flags[0]}' says nothing about two tables that were measured already",
            remedy="give --diff A B alone, with --json if you like",
        )
    diff = diff_tables(*(read_table(path) for path in extra["diff"]))
    if common["json"]:
        put(to_json(diff))
    else:
        Console(quiet=common["quiet"]).show_table_diff(diff)
    return 0


DIFF = OverFiles(
    target="two latency tables",
    parameters=[
        Parameter("output", Annotated[Path | None, typer.Option("--output", "-o", help=_OUTPUT, metavar="FILE.json")]),
        Parameter(
            "diff", Annotated[tuple[Path, Path] | None, typer.Option("--diff", help=_DIFF, metavar="A.json B.json")]
        ),
    ],
    run=_diff,
    takes=lambda common, extra: extra["diff"] is not None,
    stays=("output", "network"),
)
