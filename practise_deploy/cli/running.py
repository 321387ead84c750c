"""Run a stage: its settings, its run folder, and its output streams."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from practise_backends.cli.result import put
from practise_backends.parsing import read_json
from practise_deploy.cli import kits
from practise_deploy.cli.app import Arguments
from practise_deploy.cli.stage import Stage
from practise_deploy.errors import InputError, reason
from practise_deploy.settings import EMBEDDED, SETTINGS_FILE, Settings, read_settings

if TYPE_CHECKING:
    from practise_deploy.cli.console import Console
    from practise_deploy.pipeline.auto import AutoBuild


def run_stage(stage: Stage, common: Arguments, flags: Arguments, extra: Arguments) -> int:
    """Compute a stage and show its result; gives the exit code."""
    from practise_deploy.cli.console import Console

    console = Console(quiet=common["quiet"])
    overrides = {name: value for name, value in flags.items() if value is not None}
    if stage.of_a_run:
        common, overrides = kits.with_run_folder(common, overrides)
    settings = _settings(stage.name, common["network"], common["config"], overrides, console.note)
    backend = stage.preflight(settings, console.note)
    from practise_deploy.pipeline.auto import AutoBuild
    from practise_deploy.pipeline.context import BuildContext
    from practise_deploy.pipeline.session import recording
    from practise_deploy.run import Run

    tell = console.note if common["explain"] else lambda _: None
    fresh = frozenset(stage.steps if common["fresh"] else ())
    run = Run(settings.run_folder, fresh=fresh, tell=tell, screen=console.progress)
    context = BuildContext(
        settings=settings,
        run=run,
        command=settings.command("build"),
        structure_only=stage.structure_only,
        loaded_backend=backend,
    )
    build = AutoBuild(context, extra.get(kits.PLACE.name))
    with contextlib.redirect_stdout(sys.stderr):  # a user's file or a download may print, but stdout is for the result
        stage.needs(build)
        for note in build.context.network.summary.notes:
            console.note(f"note: {note}")
    if not stage.in_run:
        return _emit(stage, build, console, common)
    with recording(run, settings):
        with contextlib.redirect_stdout(sys.stderr):
            stage.keep(build, extra)
        return _emit(stage, build, console, common)


def _emit(stage: Stage, build: AutoBuild, console: Console, common: dict[str, Any]) -> int:
    from practise_deploy.pipeline.session import notes_of

    with contextlib.redirect_stdout(sys.stderr):
        build = stage.of(build)
        result = stage.result(build)
    for note in notes_of(build):
        console.note(f"note: {note}")
    if common["json"]:
        from practise_deploy.run import to_json

        put(to_json(result) if not isinstance(result, dict) else json.dumps(result, indent=1))
    elif not common["quiet"]:
        stage.show(console, build)
    return stage.code(build)


def _settings(
    verb: str, network: str | None, config: Path | None, overrides: dict[str, Any], tell: Callable[[str], None]
) -> Settings:
    """Flags override the settings file, which overrides the run folder's settings (if no network is named)."""
    if network is not None:
        return read_settings({**overrides, "network": network}, file=config)
    earlier = Path(overrides["out"]) / SETTINGS_FILE if "out" in overrides else None
    if earlier is not None and earlier.is_file():
        try:
            base = read_json(earlier)
            base.pop("schema", None)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"cannot read {earlier}: {reason(error)}", remedy="name the network and its settings again"
            ) from None
        return read_settings(overrides, file=config, base=base)
    if earlier is not None and config is None and verb != "build":
        raise InputError(
            f"no run in {overrides['out']}", remedy="name the network, or a run folder that a build has made"
        )
    settings = read_settings(overrides, file=config)
    if settings.network != EMBEDDED:
        return settings
    if meant := [f"--{name}" for name in ("data", "weights") if getattr(settings, name) is not None]:
        raise InputError(
            f"{' and '.join(meant)} without a network",
            remedy=f"name the network; digits, the embedded one, where you mean it: practise-deploy {verb} digits",
        )
    tell("note: no network was named: this is digits, the embedded one")
    return settings
