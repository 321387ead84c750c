"""Kits from the command line: where one goes, and the run that it is of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from practise_deploy.cli.app import Given, Parameter
from practise_deploy.errors import InputError
from practise_deploy.settings import EMBEDDED

_WHERE = "where the kit goes (default: kit in the run folder)"
PLACE = Parameter(
    "kit", Annotated[Path | None, typer.Option("--kit", help=_WHERE, metavar="FOLDER", show_default=False)]
)


def in_its_run(own: Given, asked: Given) -> tuple[Given, Given]:
    """The command's flags and settings, where a run folder was named instead of a network: as with --out and no network.

    Raises: InputError where both name a run folder, or where a table is given to what is to measure one.
    """
    if "latency_table" in asked:
        raise InputError(
            f"a kit measures a latency table, and takes none: --latency-table {asked['latency_table']}",
            remedy="leave --latency-table out",
        )
    named = own["network"]
    if named is None or not os.path.isdir(named) or _means_the_embedded(Path(named)):
        return own, asked
    if "out" in asked and Path(asked["out"]).resolve() != Path(named).resolve():
        raise InputError(
            f"{named} and --out {asked['out']} are two run folders", remedy="name one; --kit says where the kit goes"
        )
    return {**own, "network": None}, {**asked, "out": Path(named)}


def _means_the_embedded(folder: Path) -> bool:
    """Whether the embedded network is named, and a folder that is no run only happens to be called so."""
    return str(folder) == EMBEDDED and not (folder / "settings.json").is_file()
