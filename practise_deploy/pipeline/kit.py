"""Measuring what blocks cost on a device without this tool: a folder of networks that goes there, and a table that comes back."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from practise_backends.options import Measuring
from practise_backends.results.bundle import Kit
from practise_backends.results.table_design import Cut, design_of
from practise_deploy.deployment.block_latency import Variants
from practise_deploy.deployment.kit import WrittenKit, check_place, write_kit
from practise_deploy.deployment.target import measuring_of
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.settings import EMBEDDED


def kit_place(context: BuildContext, folder: Path | None) -> Path:
    """Where the kit goes: the folder, or `kit` in the run folder.

    Raises: InputError where something else is there.
    """
    place = folder or context.run.folder / "kit"
    check_place(place)
    return place


def kit_of(context: BuildContext, place: Path) -> WrittenKit:
    """Write a folder that measures what every block costs where neither torch nor this tool is."""
    kit, model, blocks = _blank(context), context.cuttable.proto, context.candidates
    with context.screen("Writing the kit"):
        return write_kit(kit, place, lambda folder: Variants(model, blocks, folder).without)


def _blank(context: BuildContext) -> Kit:
    """What a kit of this network says, before its networks are written."""
    settings = context.settings
    cuts = tuple(Cut(block=block.name, latency_class=block.latency_class) for block in context.candidates)
    return Kit(
        network=settings.network,
        structure_sha256=context.structure_sha256,
        input_shape=context.deployed_shape,
        precision=settings.one_precision,
        weights=context.network.summary.weights,
        asked=_without_folders(measuring_of(settings)),
        cuts=cuts,
        design=design_of(cuts, settings.seed),
        networks=(),
        sha256={},
        plan=_plan_command(context),
        made_by=f"practise-deploy {version('practise-deploy')}",
    )


def _without_folders(measuring: Measuring) -> Measuring:
    """Without options that are folders of this machine."""
    options = {name: value for name, value in measuring.options.items() if not isinstance(value, Path)}
    return replace(measuring, options=options)


def _plan_command(context: BuildContext) -> str:
    """How a plan is made of what is asked here; the images are left open where none were named. Empty where none can be."""
    settings = context.settings
    if not context.network.trainable:
        return ""
    command = settings.model_copy(update={"latency_table": None}).command("plan")
    has_images = settings.data is not None or settings.network == EMBEDDED
    return command if has_images else f"{command} --data IMAGES"
