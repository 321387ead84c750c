"""The stages of a build, each a command over one run folder."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge

from practise_deploy.cli import files, kits, tables
from practise_deploy.cli.app import JSON, QUIET, Given, Parameter, add
from practise_deploy.errors import EnvironmentProblem, InputError, PractiseError
from practise_deploy.settings import EMBEDDED, Settings, flag_of, read_settings

if TYPE_CHECKING:
    from practise_backends.terms import Backend
    from practise_deploy.build import Build
    from practise_deploy.console import Console
    from practise_deploy.store import Run

SETTINGS = "settings.json"
NETWORK = "torchvision:NAME, timm:NAME, FILE.py:FUNCTION, FILE.pt2, efficientnet-lite0, digits; or nothing: what --out holds, else digits"

_OWN: dict[str, Any] = {
    "network": Annotated[str | None, typer.Argument(help=NETWORK, show_default=False)],
    "config": Annotated[
        Path | None, typer.Option(help="settings file (TOML or JSON); flags win over it", show_default=False)
    ],
    "json": JSON,
    "quiet": QUIET,
    "explain": Annotated[
        bool, typer.Option("--explain", help="say which stages are computed, which are kept, and why")
    ],
    "fresh": Annotated[bool, typer.Option("--fresh", help="compute this stage again, whatever is kept")],
}


Tell = Callable[[str], None]


def _at_hand(settings: Settings, tell: Tell) -> Backend | None:
    """The backend, its package and its device are here."""
    from practise_deploy.deployment import backend_of

    return backend_of(settings)


def _at_hand_or_measured(settings: Settings, tell: Tell) -> Backend | None:
    """The same; None where they are not, and a latency table stands for the device."""
    try:
        return _at_hand(settings, tell)
    except EnvironmentProblem as error:
        if settings.latency_table is None:
            raise
        tell(f"note: {error.message}; going by {settings.latency_table} alone")
        return None


def _known(settings: Settings, tell: Tell) -> Backend | None:
    """There is such a backend; its package and its device may be elsewhere."""
    from practise_deploy.deployment import check_asked

    check_asked(settings)
    return None


@dataclass(frozen=True, slots=True)
class Stage:
    """A command: the record it ends with, how to show it, the steps that --fresh computes again.

    preflight: finds what is wrong with the backend before torch is imported, which takes seconds.
    needs: finds what is missing or broken before anything is measured or written.
    over_files: the same question about a file or a finished run instead of a network; None where it has none.
    keep: what else becomes of the result, by the command's further flags. further: flags of its own.
    of_a_run: a run folder may be named for the network that it holds.
    """

    name: str
    help: str
    result: Callable[[Build], object]
    show: Callable[[Console, Build], None]
    steps: tuple[str, ...] = ()
    code: Callable[[Build], int] = lambda _: 0
    preflight: Callable[[Settings, Tell], Backend | None] = _at_hand
    needs: Callable[[Build], object] = lambda build: build.check()
    structure_only: bool = False
    over_files: files.OverFiles | None = None
    keep: Callable[[Build, Given], None] = lambda build, extra: None
    further: tuple[Parameter, ...] = ()
    of_a_run: bool = False


def _add(stage: Stage) -> None:
    """Register a stage; its flags are the settings, each under the name it has there."""
    over = stage.over_files
    further = [*stage.further, *(over.parameters if over is not None else ())]

    def run(given: Given) -> int:
        own = {name: given.pop(name) for name in _OWN}
        extra = {one.name: given.pop(one.name) for one in further}
        if over is not None and over.takes(own, extra):
            return over.run(own, given, extra)
        if over is not None:
            over.refuse(extra)
        return _run(stage, own, given, extra)

    own = [Parameter(n, a, None if n in ("network", "config") else False) for n, a in _OWN.items()]
    target = (
        over.target if over is not None and "network" not in over.stays else "a run folder" if stage.of_a_run else ""
    )
    if target:
        words = f"{target}, {NETWORK}"
        own[0] = Parameter("network", Annotated[str | None, typer.Argument(help=words, show_default=False)])
    flags = [Parameter(n, _option(n)) for n in Settings.model_fields if n != "network"]
    add(stage.name, stage.help, run, [*own, *flags, *further])


def _option(name: str) -> Any:
    field = Settings.model_fields[name]
    flag = flag_of(name)
    text = field.description or ""
    least = next((b.ge for b in field.metadata if isinstance(b, Ge) and isinstance(b.ge, int)), 0)
    text += f", at least {least}" if least > 1 else ""
    if field.default not in (None, False, ()):
        text += f" (default: {field.default})"
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)]
    plain = next(
        (kind for kind in (int, float, Path) if name != "reduce" and field.annotation in (kind, kind | None)), str
    )
    shown = "PERCENT" if name == "reduce" else "|".join(_choices(field.annotation)) or None
    return Annotated[plain | None, typer.Option(flag, help=text, show_default=False, metavar=shown)]


def _choices(annotation: Any) -> list[str]:
    """The words that a setting may be, where it is one of a few."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(parts)
    return [word for part in parts for word in _choices(part)]


def _run(stage: Stage, own: Given, given: Given, extra: Given) -> int:
    from practise_deploy.console import Console

    console = Console(quiet=own["quiet"])
    asked = {name: value for name, value in given.items() if value is not None}
    if stage.of_a_run:
        own, asked = kits.in_its_run(own, asked)
    settings = _settings(stage.name, own["network"], own["config"], asked, console.note)
    backend = stage.preflight(settings, console.note)
    from practise_deploy.build import Build
    from practise_deploy.store import Run

    tell = console.note if own["explain"] else lambda _: None
    run = Run(settings.run_folder, fresh=frozenset(stage.steps if own["fresh"] else ()), tell=tell)
    build = Build(
        settings,
        run,
        console.progress,
        command=settings.command("build"),
        structure_only=stage.structure_only,
        backend=backend,
    )
    build.kit_folder = extra.get(kits.PLACE.name)
    with contextlib.redirect_stdout(sys.stderr):  # a user's file or a download may print: stdout is the result's alone
        stage.needs(build)
        for note in build.network.facts.notes:
            console.note(f"note: {note}")
    if stage.name == "inspect":
        return _emit(stage, build, console, own)
    with run.locked(), _settings_of(run, settings):
        code = _emit(stage, build, console, own)
        stage.keep(build, extra)
        return code


@contextlib.contextmanager
def _settings_of(run: Run, settings: Settings) -> Iterator[None]:
    """Keep the settings in the run folder, for who goes on in it; those of before come back where these are refused."""
    file = run.folder / SETTINGS
    before = file.read_text(encoding="utf-8") if file.is_file() else None
    run.write(SETTINGS, json.dumps({"schema": 1, **settings.model_dump(mode="json")}, indent=1))
    try:
        yield
    except PractiseError:
        if before is not None:
            run.write(SETTINGS, before)
        raise


def _emit(stage: Stage, build: Build, console: Console, own: dict[str, Any]) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        found = stage.result(build)
    for note in (
        *(build.images.facts.notes if "images" in vars(build) else ()),
        *(build.finetuned.notes if "finetuned" in vars(build) else ()),
    ):
        console.note(f"note: {note}")
    if own["json"]:
        from practise_deploy.store import to_json

        print(to_json(found) if not isinstance(found, dict) else json.dumps(found, indent=1))
    elif not own["quiet"]:
        stage.show(console, build)
    return stage.code(build)


def _settings(
    verb: str, network: str | None, config: Path | None, given: dict[str, Any], tell: Callable[[str], None]
) -> Settings:
    """Flags over the settings file over what the run folder was built with (where no network is named)."""
    if network is not None:
        return read_settings({**given, "network": network}, file=config)
    earlier = Path(given["out"]) / SETTINGS if "out" in given else None
    if earlier is not None and earlier.is_file():
        try:
            base = json.loads(earlier.read_text(encoding="utf-8"))
            base.pop("schema", None)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"cannot read {earlier}: {error}", remedy="name the network and its settings again"
            ) from None
        return read_settings(given, file=config, base=base)
    if earlier is not None and config is None and verb != "build":
        raise InputError(f"no run in {given['out']}", remedy="name the network, or a run folder that a build has made")
    found = read_settings(given, file=config)
    if found.network != EMBEDDED:
        return found
    if meant := [f"--{name}" for name in ("data", "weights") if getattr(found, name) is not None]:
        raise InputError(
            f"{' and '.join(meant)} without a network",
            remedy=f"name the network; digits, the embedded one, where you mean it: practise-deploy {verb} digits",
        )
    tell("note: no network was named: this is digits, the embedded one")
    return found


def _inspection(build: Build) -> dict[str, Any]:
    from practise_deploy.store import plain

    kept = ("name", "kind", "shape", "parameters", "macs", "latency_class", "droppable", "reason")
    rows = [{key: row[key] for key in kept} for row in plain(list(build.blocks))]
    return {"schema": 1, "network": plain(build.network.facts), "blocks": rows}


def _show_students(console: Console, build: Build) -> None:
    console.show_student(build.recovered, "Refit")
    console.show_student(build.finetuned, "Finetuned")


def _show_bench(console: Console, build: Build) -> None:
    assert build.bench is not None  # `_runs` saw to that
    console.show_comparison(build.bench)


def _planned(build: Build) -> None:
    """Whether all is there to plan and to finetune; for the device a latency table will do."""
    build.check(device=build.settings.latency_table is None)


def _runs(build: Build) -> None:
    """Whether the engine runs here."""
    if build.settings.for_:
        raise InputError(
            f"an engine built --for {','.join(build.settings.for_)} does not run here",
            remedy="measure it on such a device: practise-measure bench model.engine --backend trt-rtx",
        )
    build.check()


def _any_droppable(build: Build) -> int:
    return 0 if build.candidates else 2


STEPS = (
    "latency",
    "recoverability",
    "plan",
    "recover",
    "finetune",
    "export-original",
    "export",
    "compile",
    "verify",
    "bench",
    "throughput",
    "frontier",
)
STAGES = (
    Stage("inspect", "Show the network's blocks, and why the others cannot be dropped.", _inspection,
          lambda c, b: c.show_blocks(b.blocks, b.network.facts), code=_any_droppable,
          preflight=lambda *_: None, needs=lambda b: b.network, structure_only=True),
    Stage("latency", "Measure what every block costs on the device.", lambda b: b.latency,
          lambda c, b: c.show_latency(b.latency), ("latency",),
          needs=lambda b: (b.backend, b.candidates), structure_only=True, over_files=tables.DIFF, keep=tables.keep),
    Stage("plan", "Choose the blocks to drop.", lambda b: b.plan,
          lambda c, b: c.show_plan(b.plan, b.recoverability.of), ("plan",), lambda b: 0 if b.reached_plan else 1,
          preflight=_at_hand_or_measured, needs=_planned),
    Stage("kit", "Write a folder that measures what every block costs on a device without this tool.", lambda b: b.kit,
          lambda c, b: c.show_kit(b.kit), preflight=_known, needs=lambda b: (b.kit_place, b.candidates),
          structure_only=True, further=(kits.PLACE,), of_a_run=True),
    Stage("finetune", "Drop the blocks, refit, and mimic the original's features.", lambda b: b.finetuned,
          _show_students, ("recover", "finetune"), preflight=_at_hand_or_measured,
          needs=_planned),
    Stage("export", "Write the finetuned network as ONNX.", lambda b: b.shipped,
          lambda c, b: c.show_shipped(b.shipped), ("export",),
          preflight=_at_hand_or_measured, needs=lambda b: _planned(b) if b.network.learns else None),
    Stage("verify", "Compare teacher, student, ONNX and engine on held-out images.", lambda b: b.verification,
          lambda c, b: c.show_verification(b.verification), ("verify",), lambda b: 0 if b.verification.faithful else 4),
    Stage("bench", "Measure the new model against the original.", lambda b: b.bench,
          _show_bench, ("bench",), needs=_runs, over_files=files.BENCH),
    Stage("build", "The whole job: measure, plan, recover, export, verify, bench, report.", lambda b: b.release,
          lambda c, b: c.show_release(b.release, b.run.folder), STEPS, lambda b: b.release.verdict.exit_code),
)  # fmt: skip


def register() -> None:
    """Every stage is a command."""
    for stage in STAGES:
        _add(stage)
