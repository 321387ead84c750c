"""Kits from the command line: where one goes, and the run that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from practise_deploy.cli.app import Given, Parameter
from practise_deploy.errors import InputError

_WHERE = "where the kit goes (default: kit in the run folder)"
PLACE = Parameter(
    "kit", Annotated[Path | None, typer.Option("--kit", help=_WHERE, metavar="FOLDER", show_default=False)]
)


def in_its_run(own: Given, asked: Given) -> tuple[Given, Given]:
    """The command's flags and settings, where a run folder was named instead of a network: as with --out and no network.

    Raises: InputError where both name a run folder.
    """
    named = own["network"]
    if named is None or not Path(named).is_dir():
        return own, asked
    if "out" in asked and Path(asked["out"]).resolve() != Path(named).resolve():
        raise InputError(
            f"{named} and --out {asked['out']} are two run folders", remedy="name one; --kit says where the kit goes"
        )
    return {**own, "network": None}, {**asked, "out": Path(named)}
