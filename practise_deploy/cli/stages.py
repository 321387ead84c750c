"""The stages of a build, each a command over one run folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge

from practise_deploy.cli import files, kits, tables
from practise_deploy.cli.app import JSON, QUIET, Arguments, Parameter, add, backend_options_in, backends_own_parameters
from practise_deploy.cli.running import run_stage
from practise_deploy.cli.stage import Stage, require_backend, require_device_or_table
from practise_deploy.errors import InputError
from practise_deploy.settings import Settings, flag_of, panel_of

if TYPE_CHECKING:
    from practise_deploy.cli.console import Console
    from practise_deploy.pipeline.auto import AutoBuild

NETWORK = "FILE.onnx, torchvision:NAME, timm:NAME, FILE.py:FUNCTION, hf:FOLDER, FILE.pt2, efficientnet-lite0, digits; or nothing: what --out holds, else digits"

_METAVARS = {"reduce": "PERCENT", "max_drop": "POINTS|none", "input_size": "SIDE|HEIGHTxWIDTH"}

_COMMON: dict[str, Any] = {
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


def _add(stage: Stage) -> None:
    """Register a stage; its flags are the settings, by the same names."""
    over = stage.over_files
    further = [*stage.further, *(over.parameters if over is not None else ())]

    def run(arguments: Arguments) -> int:
        common = {name: arguments.pop(name) for name in _COMMON}
        extra = {parameter.name: arguments.pop(parameter.name) for parameter in further}
        arguments |= backend_options_in(arguments)  # a switch inverts its default
        if over is not None and over.takes(common, extra):
            return over.run(common, arguments, extra)
        if over is not None:
            over.refuse(extra)
        return run_stage(stage, common, arguments, extra)

    shared = [Parameter(n, a, None if n in ("network", "config") else False) for n, a in _COMMON.items()]
    target = (
        over.target if over is not None and "network" not in over.stays else "a run folder" if stage.of_a_run else ""
    )
    if target:
        text = f"{target}, {NETWORK.removeprefix('FILE.onnx, ') if 'FILE.onnx' in target else NETWORK}"
        shared[0] = Parameter("network", Annotated[str | None, typer.Argument(help=text, show_default=False)])
    flags = [Parameter(n, _option(n)) for n in Settings.model_fields if n not in ("network", "backend_options")]
    flags += backends_own_parameters()
    add(stage.name, stage.help, run, [*shared, *flags, *further])


def _option(name: str) -> Any:
    field = Settings.model_fields[name]
    flag = flag_of(name)
    text = field.description or ""
    minimum = next((b.ge for b in field.metadata if isinstance(b, Ge) and isinstance(b.ge, int)), 0)
    text += f", at least {minimum}" if minimum > 1 else ""
    if field.default not in (None, False, ()):
        text += f" (default: {field.default})"
    panel = panel_of(name)
    if field.annotation is bool:
        return Annotated[
            bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False, rich_help_panel=panel)
        ]
    parsed_type = next(
        (
            scalar_type
            for scalar_type in (int, float, Path)
            if name != "reduce" and field.annotation in (scalar_type, scalar_type | None)
        ),
        str,
    )
    shown = _METAVARS.get(name) or "|".join(_choices(field.annotation)) or None
    return Annotated[
        parsed_type | None, typer.Option(flag, help=text, show_default=False, metavar=shown, rich_help_panel=panel)
    ]


def _choices(annotation: Any) -> list[str]:
    """The allowed words of a setting that is a choice."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(parts)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(word) for word in annotation]
    return [word for part in parts for word in _choices(part)]


def _inspection(build: AutoBuild) -> dict[str, Any]:
    from practise_deploy.run import as_document

    kept = ("name", "kind", "shape", "parameters", "macs", "latency_class", "droppable", "reason")
    rows = [{key: row[key] for key in kept} for row in as_document(list(build.context.blocks))]
    return {"schema": 1, "network": as_document(build.context.network.summary), "blocks": rows}


def _show_students(console: Console, build: AutoBuild) -> None:
    console.show_student(build.recovered, "Refit")
    console.show_student(build.finetuned, "Finetuned")


def _show_bench(console: Console, build: AutoBuild) -> None:
    assert build.bench is not None  # `_runs` saw to that
    console.show_comparison(build.bench)


def _show_levers(console: Console, build: AutoBuild) -> None:
    context = build.context
    console.show_levers(build.measured_levers, context.network.summary.task, context.settings.most_points_lost)


def _chosen(build: AutoBuild) -> AutoBuild:
    return build.chosen


def _planned(build: AutoBuild) -> None:
    """Check what planning and finetuning need; a latency table may replace the device."""
    build.check(device=build.context.settings.latency_table is None)


def _runs(build: AutoBuild) -> None:
    """Check that the engine runs on this machine."""
    from practise_deploy.deployment.target import target_archs

    settings = build.context.settings
    if archs := target_archs(settings):
        raise InputError(
            f"an engine that is built for {', '.join(archs)} does not run here",
            remedy=f"measure it on such a device: practise-measure bench model.engine --backend {settings.backend}",
        )
    build.check()


def _measurable_together(build: AutoBuild) -> None:
    """The same, and that the recipe looks for sets of blocks."""
    from practise_deploy.pipeline.checks import check_levers

    check_levers(build.context)
    _runs(build)


def _any_droppable(build: AutoBuild) -> int:
    return 0 if build.context.candidates else 2


BENCH = ("export-fp32", "bench", "bench-again-1", "bench-again-2")
STEPS = (
    "levers",
    "rehearse",
    "latency",
    "recoverability",
    "plan",
    "within-drop",
    "plan-within-drop",
    "recover",
    "finetune",
    "export-original",
    "export",
    "compile",
    "verify",
    *BENCH,
    "throughput",
    "frontier",
)
PLANNING = ("plan", "within-drop", "plan-within-drop")
STAGES = (
    Stage("inspect", "Show the network's blocks, and why the others cannot be dropped.", _inspection,
          lambda c, b: c.show_blocks(b.context.blocks, b.context.network.summary), code=_any_droppable,
          preflight=lambda *_: None, needs=lambda b: b.context.network, structure_only=True, in_run=False),
    Stage("latency", "Measure what every block costs on the device.", lambda b: b.latency,
          lambda c, b: c.show_latency(b.latency), ("latency",),
          needs=lambda b: (b.context.backend, b.context.candidates), structure_only=True, over_files=tables.DIFF, keep=tables.keep),
    Stage("plan", "Choose the blocks to drop.", lambda b: b.plan,
          lambda c, b: c.show_plan(b.plan, b.recoverability.of), PLANNING, lambda b: 0 if b.reached_plan else 1,
          preflight=require_device_or_table, needs=_planned, of=lambda b: b.planned),
    Stage("frontier", "Measure dropped blocks and precision together, against the original in fp32.", lambda b: b.measured_levers,
          _show_levers, ("levers",), needs=_measurable_together),
    Stage("kit", "Write a folder that measures what every block costs on a device without this tool.", lambda b: b.kit,
          lambda c, b: c.show_kit(b.kit), preflight=require_backend, needs=lambda b: (b.kit_place, b.context.candidates),
          structure_only=True, further=(kits.PLACE,), of_a_run=True, in_run=False),
    Stage("finetune", "Drop the blocks, refit, and mimic the original's features.", lambda b: b.finetuned,
          _show_students, ("recover", "finetune"), preflight=require_device_or_table,
          needs=_planned, of=_chosen),
    Stage("export", "Write the finetuned network as ONNX.", lambda b: b.exported,
          lambda c, b: c.show_exported(b.exported), ("export-original", "export"),
          preflight=require_device_or_table, needs=lambda b: _planned(b) if b.context.network.trainable else None, of=_chosen),
    Stage("verify", "Compare teacher, student, ONNX and engine on held-out images.", lambda b: b.verification,
          lambda c, b: c.show_verification(b.verification), ("verify",), lambda b: 0 if b.verification.faithful else 4, of=_chosen),
    Stage("bench", "Measure the new model against the original.", lambda b: b.bench,
          _show_bench, BENCH, needs=_runs, over_files=files.BENCH, of=_chosen),
    Stage("build", "The whole job: measure, plan, recover, export, verify, bench, report.", lambda b: b.release,
          lambda c, b: c.show_release(b.release, b.context.run.folder), STEPS, lambda b: b.release.verdict.exit_code, of=_chosen),
)  # fmt: skip


def register() -> None:
    """Every stage is a command."""
    for stage in STAGES:
        _add(stage)
