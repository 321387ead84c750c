"""What all chapters of a build share: the network, its blocks, the images, the device, and the keys of the steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version

import onnx
import torch

from practise_backends.errors import about
from practise_backends.results.table import RANKING_SHARE
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.runtimes.tensorrt.options import asked_of
from practise_backends.terms import Backend, Bench, Conditions, Engine, Patience, Progress
from practise_deploy.compute import exact, pick_device, pick_precision
from practise_deploy.deployment.export import export_onnx
from practise_deploy.deployment.precision import in_precision
from practise_deploy.deployment.rehearse import check_space, rehearse
from practise_deploy.deployment.target import backend_of, check_asked, conditions_of, reads_symmetric_int8
from practise_deploy.deployment.verify import Form, engine_form, torch_form
from practise_deploy.errors import EnvironmentProblem
from practise_deploy.images.calibration import Lesson
from practise_deploy.images.sanity import settled
from practise_deploy.images.tiny_set import FitImages, TinySet, image_size_of, load_images
from practise_deploy.network.blocks import droppable, find_blocks
from practise_deploy.network.load import Network, load_network
from practise_deploy.network.onnx_graph import only_logits, with_cuts
from practise_deploy.outcome import Rehearsal, Shipped
from practise_deploy.run import Key, Run, digest
from practise_deploy.settings import Settings
from practise_deploy.terms import Block

Screen = Callable[[str], AbstractContextManager[Progress]]
MODEL = "model.onnx"
ORIGINAL_MODEL = "original.onnx"


def require(*_: object) -> None:
    """What is asked for is computed, or refused, here and now; an assertion would be passed over by `python -O`."""


class Ground:
    """One run folder and what its settings name; each property is computed when it is first asked for."""

    def __init__(
        self,
        settings: Settings,
        run: Run,
        screen: Screen,
        *,
        command: str = "",
        structure_only: bool = False,
        backend: Backend | None = None,
    ) -> None:
        """backend: where the caller has looked for it already."""
        self.settings = settings
        self.run = run
        self.screen = screen
        self.command = command
        self.structure_only = structure_only
        self._found = backend

    @cached_property
    def network(self) -> Network:
        """The teacher."""
        with self.screen("Loading the network"):
            size = image_size_of(self.settings)
            return load_network(self.settings, structure_only=self.structure_only, image_size=size)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every residual unit, droppable or not."""
        return find_blocks(self.network.traced, self.network.input_shape)

    @property
    def candidates(self) -> tuple[Block, ...]:
        """The blocks that can go; NoDroppableBlock is raised where there is none."""
        with about(self.settings.network):
            return droppable(self.blocks)

    @property
    def classifies(self) -> bool:
        """Whether the network scores two classes or more, so that there is an accuracy to lose."""
        return (self.network.facts.output_classes or 0) > 1

    @cached_property
    def images(self) -> TinySet:
        """The tiny set and the held-out images."""
        with self.screen("Reading the images"):
            found = load_images(self.settings, self.network.facts)
            return settled(found, self.network.traced) if self.network.learns else found

    @cached_property
    def backend(self) -> Backend:
        """The device that the network is for.

        Raises: EnvironmentProblem, InputError.
        """
        return self._found or backend_of(self.settings)

    @cached_property
    def here(self) -> Backend | None:
        """The same; None where it is not at hand and a latency table stands for it, which is enough to plan."""
        check_asked(self.settings)
        try:
            return self.backend
        except EnvironmentProblem:
            if self.settings.latency_table is None:
                raise
            return None

    @property
    def conditions(self) -> Conditions:
        """The deployment's."""
        return conditions_of(self.settings, self.here)

    @property
    def patience(self) -> Patience:
        return Patience(
            budget_s=self.settings.measure_budget_s,
            sessions=self.settings.sessions,
            keep_throttled=self.settings.keep_throttled,
        )

    @property
    def stand(self) -> Bench:
        return Bench(backend=self.backend, conditions=self.conditions, patience=self.patience)

    @property
    def ranking_stand(self) -> Bench:
        """The same, where savings known well enough to rank blocks are known well enough."""
        return replace(self.stand, patience=replace(self.patience, enough_share=RANKING_SHARE))

    @cached_property
    def structure_sha256(self) -> str:
        """Of the blocks: a network whose blocks are named alike has others in them."""
        return digest([(block.name, block.kind, block.shape, block.parameters) for block in self.blocks])

    @property
    def engine_shape(self) -> tuple[int, ...]:
        return (self.settings.batch, *self.network.input_shape[1:])

    @cached_property
    def cuttable(self) -> onnx.ModelProto:
        """The network as it is deployed, with the blocks' cuts named in it (see `network.onnx_graph`)."""
        with self.screen("Exporting the network"), about(self.settings.network):
            return self.lowered(only_logits(with_cuts(self.network.traced, self.candidates, self.engine_shape)))

    def lowered(self, model: onnx.ModelProto, images: FitImages | None = None) -> onnx.ModelProto:
        """A network in the precision of the deployment. images: for ranges; without them its speed alone is the deployed one's."""
        return in_precision(model, self.settings.precision, images, symmetric=reads_symmetric_int8(self.settings))

    @cached_property
    def device_key(self) -> Key:
        return {
            "network": digest(self.network.structure, self.network.input_shape),
            "device": "" if self.here is None else self.here.device().fingerprint,
            "backend": self.settings.backend,
            "precision": self.settings.precision,
            "threads": self.settings.threads,
            "batch": self.settings.batch,
            "clock": self.conditions.clock,
            "CUDA graph": self.settings.cuda_graph,
            "backend's options": {name: str(value) for name, value in asked_of(self.settings).items()},
            "practise-deploy": version("practise-deploy"),
        }

    @property
    def measuring_key(self) -> Key:
        """What a measurement depends on besides the networks and the device."""
        return {
            "measuring": self.settings.measure_budget_s,
            "keep_throttled": self.settings.keep_throttled,
            "seed": self.settings.seed,
        }

    @cached_property
    def learning_key(self) -> Key:
        decoding = replace(self.network.facts.preprocessing, augment="")
        return {
            "weights": self.network.facts.sha256,
            "images": self.images.fit.digest(),
            "preprocessing": repr(decoding),
            "recipe": self.settings.recipe,
            "training precision": str(self.dtype),
            "compute": str(pick_device(self.settings.compute)),
            "seed": self.settings.seed,
            "torch": torch.__version__,
            "practise-deploy": version("practise-deploy"),
        }

    @cached_property
    def lesson(self) -> Lesson:
        here = Lesson(
            teacher=self.network.traced,
            feature=self.network.facts.feature,
            images=self.images.fit,
            seed=self.settings.seed,
            judging=self.dtype,
        )
        return here.placed(pick_device(self.settings.compute))

    @property
    def descent_key(self) -> Key:
        return {
            "batch_size": self.settings.batch_size,
            "augment": self.network.facts.preprocessing.augment,
            "training precision": str(self.dtype),
        }

    @property
    def dtype(self) -> torch.dtype:
        """In which torch takes its finetuning steps."""
        return pick_precision(
            self.settings.compute_precision, self.network.input_shape[-1], pick_device(self.settings.compute)
        )

    def named(self, names: tuple[str, ...]) -> list[Block]:
        return [block for block in self.blocks if block.name in names]

    @cached_property
    def original(self) -> Shipped:
        return self.export("export-original", ORIGINAL_MODEL, self.network.facts.sha256, lambda: self.network.traced)

    def export(self, step: str, name: str, weights: str, network: Callable[[], torch.fx.GraphModule]) -> Shipped:
        path, ranges = self.run.folder / name, self._ranges
        key = {
            "network": self.network.structure,
            "weights": weights,
            "precision": self.settings.precision,
            "converted by": self._converter(ranges),
            "input shape": list(self.engine_shape),
            "dynamic batch": self.settings.dynamic_batch,
            "torch": torch.__version__,
            "practise-deploy": version("practise-deploy"),
        }

        def compute() -> Shipped:
            with self.screen(f"Exporting {name}"), about(self.settings.network):
                return export_onnx(
                    network(),
                    self.engine_shape,
                    path,
                    dynamic_batch=self.settings.dynamic_batch,
                    finish=lambda model: self.lowered(model, ranges),
                )

        return self.run.step(step, Shipped, key, compute, lambda shipped: {name: shipped.sha256})

    @cached_property
    def rehearsal(self) -> Rehearsal:
        """The original on its way to the device, before anything is measured.

        Raises: VerificationFailed, InputError, EnvironmentProblem.
        """
        check_space(self.run.folder, self.network.facts.parameters)
        images, runs_here = self.images.fit, not self.settings.for_ and self.here is not None
        key = {**self.device_key, "original": self.original.sha256, "images": images.digest(), "runs here": runs_here}

        def compute() -> Rehearsal:
            with ExitStack() as held:
                progress = held.enter_context(self.screen("Running the original on a few images, as it is deployed"))
                forms = {"teacher": torch_form(self.network.traced), "ONNX": self.onnx_form(ORIGINAL_MODEL)}
                if runs_here:
                    engine = held.enter_context(closing(self.engine(ORIGINAL_MODEL)))
                    forms["engine"] = engine_form(engine, self.settings.batch)
                held.enter_context(exact(self.settings.seed))
                return rehearse(forms, images, self.settings.precision, progress)

        return self.run.step("rehearse", Rehearsal, key, compute)

    def onnx_form(self, name: str) -> Form:
        """An ONNX file of the run folder as ONNX Runtime computes it operator by operator, nothing optimised."""
        backend = OrtBackend()
        at = Conditions(batch=self.settings.batch, threads=self.settings.threads)
        return engine_form(
            backend.open(backend.compile(self.run.folder / name, at), at, optimise=False), self.settings.batch
        )

    def engine(self, name: str) -> Engine:
        """An ONNX file or an engine of the run folder as the device runs it, opened."""
        artifact = self.backend.compile(self.run.folder / name, self.conditions)
        return self.backend.open(artifact, self.conditions)

    def _converter(self, ranges: FitImages | None) -> list[str]:
        """What a conversion to another precision depends on; nothing where there is none."""
        if self.settings.precision == "fp32":
            return []
        tools = [f"{name} {version(name)}" for name in ("onnxruntime", "onnx")]
        if ranges is None:
            return tools
        decoding = replace(self.network.facts.preprocessing, augment="")
        return [*tools, ranges.digest(), repr(decoding), str(reads_symmetric_int8(self.settings))]

    @property
    def _ranges(self) -> FitImages | None:
        """The images that int8 takes its ranges from; no other precision needs any."""
        return self.images.fit if self.settings.precision == "int8" else None
