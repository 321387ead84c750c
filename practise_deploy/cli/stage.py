"""What a stage is to the command line, and what is looked at before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from practise_deploy.cli.app import Given, Parameter
from practise_deploy.cli.files import OverFiles
from practise_deploy.errors import EnvironmentProblem
from practise_deploy.settings import Settings

if TYPE_CHECKING:
    from practise_backends.terms import Backend
    from practise_deploy.cli.console import Console
    from practise_deploy.pipeline.build import Build

Tell = Callable[[str], None]


def at_hand(settings: Settings, tell: Tell) -> Backend | None:
    """The backend, its package and its device are here."""
    from practise_deploy.deployment.target import backend_of

    return backend_of(settings)


def at_hand_or_measured(settings: Settings, tell: Tell) -> Backend | None:
    """The same; None where they are not, and a latency table stands for the device."""
    known(settings, tell)
    try:
        return at_hand(settings, tell)
    except EnvironmentProblem as error:
        if settings.latency_table is None:
            raise
        tell(f"note: {error.message}; going by {settings.latency_table} alone")
        return None


def known(settings: Settings, tell: Tell) -> Backend | None:
    """There is such a backend; its package and its device may be elsewhere."""
    from practise_deploy.deployment.target import check_asked

    check_asked(settings)
    return None


@dataclass(frozen=True, slots=True)
class Stage:
    """A command: the record it ends with, how to show it, the steps that --fresh computes again.

    preflight: finds what is wrong with the backend before torch is imported, which takes seconds.
    needs: finds what is missing or broken before anything is measured or written.
    over_files: the same question about a file or a finished run instead of a network; None where it has none.
    keep: what else becomes of the result, by the command's further flags. further: flags of its own.
    of_a_run: a run folder may be named for the network that it holds. in_run: what it finds goes into the run folder.
    """

    name: str
    help: str
    result: Callable[[Build], object]
    show: Callable[[Console, Build], None]
    steps: tuple[str, ...] = ()
    code: Callable[[Build], int] = lambda _: 0
    preflight: Callable[[Settings, Tell], Backend | None] = at_hand
    needs: Callable[[Build], object] = lambda build: build.check()
    structure_only: bool = False
    over_files: OverFiles | None = None
    keep: Callable[[Build, Given], None] = lambda build, extra: None
    further: tuple[Parameter, ...] = ()
    of_a_run: bool = False
    in_run: bool = True
