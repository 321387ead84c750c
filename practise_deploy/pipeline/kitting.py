"""Measuring what blocks cost on a device without this tool: a folder of networks that goes there, and a table that comes back."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from practise_backends.results.bundle import Kit
from practise_backends.results.table_design import Cut, design_of
from practise_deploy.deployment.block_latency import Variants
from practise_deploy.deployment.kit import WrittenKit, check_place, write_kit
from practise_deploy.deployment.target import measuring_of
from practise_deploy.pipeline.context import Ground
from practise_deploy.settings import EMBEDDED


class Kitting(Ground):
    """The kit of a network. kit_folder: where it goes; None is `kit` in the run folder."""

    kit_folder: Path | None = None

    @property
    def kit_place(self) -> Path:
        """Where the kit goes.

        Raises: InputError where something else is there.
        """
        place = self.kit_folder or self.run.folder / "kit"
        check_place(place)
        return place

    @cached_property
    def kit(self) -> WrittenKit:
        """A folder that measures what every block costs where neither torch nor this tool is."""
        kit, place, model = self._blank_kit, self.kit_place, self.cuttable
        with self.screen("Writing the kit"):
            return write_kit(kit, place, lambda folder: Variants(model, self.candidates, folder).without)

    @property
    def _blank_kit(self) -> Kit:
        """What a kit of this network says, before its networks are written."""
        cuts = tuple(Cut(block=block.name, latency_class=block.latency_class) for block in self.candidates)
        return Kit(
            network=self.settings.network,
            structure_sha256=self.structure_sha256,
            input_shape=self.engine_shape,
            precision=self.settings.precision,
            weights=self.network.facts.weights,
            asked=replace(measuring_of(self.settings), timing_cache=None),  # a folder of this machine
            cuts=cuts,
            design=design_of(cuts, self.settings.seed),
            networks=(),
            sha256={},
            plan=self._plan_command,
            made_by=f"practise-deploy {version('practise-deploy')}",
        )

    @property
    def _plan_command(self) -> str:
        """How a plan is made of what is asked here; the images are left open where none were named. Empty where none can be."""
        if not self.network.learns:
            return ""
        command = self.settings.model_copy(update={"latency_table": None}).command("plan")
        has_images = self.settings.data is not None or self.settings.network == EMBEDDED
        return command if has_images else f"{command} --data IMAGES"
