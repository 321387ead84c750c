"""Kits from the command line: their folder, and the run that they belong to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from practise_deploy.cli.app import Arguments, Parameter
from practise_deploy.errors import InputError
from practise_deploy.settings import EMBEDDED

_WHERE = "where the kit goes (default: kit in the run folder)"
PLACE = Parameter(
    "kit", Annotated[Path | None, typer.Option("--kit", help=_WHERE, metavar="FOLDER", show_default=False)]
)


def with_run_folder(common: Arguments, overrides: Arguments) -> tuple[Arguments, Arguments]:
    """The common flags and the settings, where a run folder as the network means --out of that folder and no network.

    Raises: InputError where network and --out name different run folders, or where a latency table is given.
    """
    if "latency_table" in overrides:
        raise InputError(
            f"a kit measures a latency table, and takes none: --latency-table {overrides['latency_table']}",
            remedy="leave --latency-table out",
        )
    named = common["network"]
    if named is None or not os.path.isdir(named) or _means_the_embedded(Path(named)):
        return common, overrides
    if "out" in overrides and Path(overrides["out"]).resolve() != Path(named).resolve():
        raise InputError(
            f"{named} and --out {overrides['out']} are two run folders",
            remedy="name one; --kit says where the kit goes",
        )
    return {**common, "network": None}, {**overrides, "out": Path(named)}


def _means_the_embedded(folder: Path) -> bool:
    """Whether the name means the embedded network, since the folder of that name is no run."""
    return str(folder) == EMBEDDED and not (folder / "settings.json").is_file()
