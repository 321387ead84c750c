"""Stages as commands, and the checks that run before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from practise_deploy.cli.app import Arguments, Parameter
from practise_deploy.cli.files import OverFiles
from practise_deploy.settings import Settings

if TYPE_CHECKING:
    from practise_backends.interfaces import Backend
    from practise_deploy.cli.console import Console
    from practise_deploy.pipeline.auto import AutoBuild

Tell = Callable[[str], None]


def require_device(settings: Settings, tell: Tell) -> Backend | None:
    """Check that the backend, its package and its device are available."""
    from practise_deploy.deployment.target import backend_of

    return backend_of(settings)


def require_device_or_table(settings: Settings, tell: Tell) -> Backend | None:
    """The same; None if they are not available, but a latency table replaces the device."""
    from practise_deploy.deployment.target import backend_or_table

    return backend_or_table(settings, tell)


def require_backend(settings: Settings, tell: Tell) -> Backend | None:
    """Check that the backend exists; its package and its device need not be available."""
    from practise_deploy.deployment.target import check_supported

    check_supported(settings)
    return None


@dataclass(frozen=True, slots=True)
class Stage:
    """A command: the record it ends with, how to show it, the steps that --fresh computes again.

    preflight: checks the backend before torch is imported.
    needs: checks the inputs before anything is measured or written.
    over_files: the command for a file or a finished run instead of a network; None if it has none.
    keep: handles the result by the further flags. further: flags of this command only.
    of_a_run: a run folder may be named for its network. in_run: the result goes into the run folder. of: the build that it
    is of, where --precision auto makes several.
    """

    name: str
    help: str
    result: Callable[[AutoBuild], object]
    show: Callable[[Console, AutoBuild], None]
    steps: tuple[str, ...] = ()
    code: Callable[[AutoBuild], int] = lambda _: 0
    preflight: Callable[[Settings, Tell], Backend | None] = require_device
    needs: Callable[[AutoBuild], object] = lambda build: build.check()
    structure_only: bool = False
    over_files: OverFiles | None = None
    keep: Callable[[AutoBuild, Arguments], None] = lambda build, extra: None
    further: tuple[Parameter, ...] = ()
    of_a_run: bool = False
    in_run: bool = True
    of: Callable[[AutoBuild], AutoBuild] = lambda build: build
