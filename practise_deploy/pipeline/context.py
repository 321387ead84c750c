"""What every stage of a build starts from: the settings taken apart once, the network and its blocks, the images, the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import onnx
import torch
from torch import Tensor

from practise_backends.choices import Precision
from practise_backends.errors import EnvironmentProblem, about
from practise_backends.interfaces import Backend, Engine, MeasurementSetup
from practise_backends.results.table import RANKING_SHARE
from practise_backends.runtimes.catalog import artifact_of
from practise_backends.terms import Arrays, Conditions, Interval, StoppingRule
from practise_deploy.compute import exact, pick_device, pick_precision
from practise_deploy.deployment.block_latency import measure_reduction, measure_reductions
from practise_deploy.deployment.latency_table import TableRequirements
from practise_deploy.deployment.precision import in_precision
from practise_deploy.deployment.target import (
    backend_of,
    check_supported,
    conditions_of,
    reads_symmetric_int8,
    target_archs,
)
from practise_deploy.images.calibration import CalibrationProblem, with_scaled_heads
from practise_deploy.images.packed import samples_of
from practise_deploy.images.reading import Listings
from practise_deploy.images.sanity import with_checked_labels
from practise_deploy.images.tiny_set import FitImages, TinySet, image_size_of, load_images
from practise_deploy.network.graph.onnx_graph import as_deployed, with_splices
from practise_deploy.network.graph.surgery import drop_blocks, weights_of
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.onnx_import.file import check_batch
from practise_deploy.network.onnx_import.replacement import cuttable
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.planning.gate import Criteria
from practise_deploy.refit.recover import recover, refitted_without
from practise_deploy.run import Run, Screen, digest
from practise_deploy.settings import Settings
from practise_deploy.terms import Block, Budget, Student
from practise_deploy.training.batches import are_tokens
from practise_deploy.training.finetune import drop_only, schedule_for
from practise_deploy.training.schedule import Schedule

COMPARED_SESSIONS, COMPARED_HALF_WIDTH = 2, 0.5
"""How often each of many sets of blocks is opened, and how well its latency is known in the end, in percent of the original's."""


def to_compare(setup: MeasurementSetup) -> MeasurementSetup:
    """How many networks are measured in the same rounds, to see which of them are faster."""
    rule = replace(
        setup.stopping_rule,
        sessions=min(setup.stopping_rule.sessions, COMPARED_SESSIONS),
        relative_half_width=RANKING_SHARE,
        half_width_percent=COMPARED_HALF_WIDTH,
    )
    return replace(setup, stopping_rule=rule)


def named(blocks: Sequence[Block], names: Sequence[str]) -> tuple[Block, ...]:
    """Blocks by name, in the network's order."""
    return tuple(block for block in blocks if block.name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where and how the network will run.

    device: fingerprint of the device at hand, empty where it is not. target_archs: what an engine is built ahead for, instead of the
    device here. shapes: of the inputs that a file leaves open besides the batch.
    """

    name: str
    options: Mapping[str, str]
    conditions: Conditions
    local_backend: Backend | None
    device: str
    target_archs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def backend(self) -> Backend:
        """The backend, which is at hand."""
        assert self.local_backend is not None
        return self.local_backend

    def opened(self, file: Path) -> Engine:
        """An ONNX file or an engine as the device runs it."""
        artifact = artifact_of(self.backend, file, self.conditions, shapes=self.shapes)
        return self.backend.open(artifact, self.conditions)

    @property
    def runs_here(self) -> bool:
        """Whether what is deployed can be run on this machine."""
        return bool(self.device) and not self.target_archs


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportForm:
    """How a network is written as ONNX. calibration: images for the ranges of int8; no other precision needs any."""

    input_shape: tuple[int, ...]
    precision: Precision
    symmetric_int8: bool
    dynamic_batch: bool = False
    calibration: FitImages | None = None

    def lowered(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A network in this precision."""
        return in_precision(model, self.precision, self.calibration, symmetric=self.symmetric_int8)


@dataclass(frozen=True)
class CuttableModel:
    """The network as it is deployed, exported once, with the cuts of its blocks named in it (see `network.graph.onnx_graph`)."""

    network: Network
    blocks: tuple[Block, ...]
    form: ExportForm
    screen: Screen

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model; its ranges in int8 are of noise, as its speed does not depend on them."""
        with self.screen("Exporting the network"), about(self.network.summary.name):
            shape, translation = self.form.input_shape, self.network.translation
            if translation is not None:
                return self.form.lowered(cuttable(translation, self.blocks, shape))
            return self.form.lowered(as_deployed(with_splices(self.network.traced, self.blocks, shape)))


@dataclass(frozen=True, slots=True)
class BlockBench:
    """Measures the network without some of its blocks on the device."""

    model: CuttableModel
    deployment: Deployment
    setup: MeasurementSetup

    def reduction(self, names: tuple[str, ...], screen: Screen) -> Interval:
        """By how many percent the latency falls without these blocks."""
        with screen(f"Measuring the network without {', '.join(names)}") as progress:
            return measure_reduction(self.model.proto, named(self.model.blocks, names), self.setup, progress)

    def reductions(self, sets: Sequence[tuple[str, ...]], screen: Screen) -> list[Interval]:
        """The same for several sets, all in the same rounds."""
        with screen("Measuring neighbouring sets of blocks") as progress:
            return measure_reductions(
                self.model.proto, [named(self.model.blocks, names) for names in sets], to_compare(self.setup), progress
            )


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a pruned network is recovered before it is finetuned: in closed form; in the paper's recipe not at all."""

    calibration: CalibrationProblem
    blocks: tuple[Block, ...]
    paper: bool

    def without(self, dropped: Sequence[Block], screen: Screen, title: str) -> Student:
        """The network without these blocks, recovered."""
        with screen(title) as progress, exact(self.calibration.seed):
            return drop_only(self.calibration, dropped) if self.paper else recover(self.calibration, dropped, progress)

    def compared_without(self, dropped: Sequence[Block], screen: Screen, title: str) -> Arrays:
        """The weights of the same, recovered as far as many sets of blocks are compared by."""
        if self.paper:
            return weights_of(drop_blocks(self.calibration.teacher, dropped))
        with screen(title) as progress, exact(self.calibration.seed):
            return refitted_without(self.calibration, dropped, progress)


_OF_ANY_PRECISION = ("network", "blocks", "images", "calibration", "backend", "local_backend")


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """One run folder and what its settings name; each property is computed when it is first asked for.

    structure_only: pretrained weights are not fetched. loaded_backend, loaded_network, listings: what the caller has already.
    """

    settings: Settings
    run: Run
    command: str = ""
    structure_only: bool = False
    loaded_backend: Backend | None = None
    loaded_network: Network | None = None
    listings: Listings = field(default_factory=dict)

    def in_precision(self, precision: Precision) -> BuildContext:
        """The same in one precision, with all that was computed already and does not depend on it."""
        context = replace(self, settings=self.settings.model_copy(update={"precision": precision}))
        vars(context).update({name: value for name, value in vars(self).items() if name in _OF_ANY_PRECISION})
        return context

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What the backend runs networks in, fp32 first."""
        offered = self.backend.capabilities.precisions
        return (Precision.FP32, *(each for each in offered if each != Precision.FP32))

    @property
    def screen(self) -> Screen:
        """Shows progress."""
        return self.run.screen

    # The network

    @cached_property
    def network(self) -> Network:
        """The teacher."""
        if self.loaded_network is not None:
            return self.loaded_network
        with self.screen("Loading the network"):
            network = load_network(
                self.settings,
                structure_only=self.structure_only,
                image_size=image_size_of(self.settings, self.listings),
                samples=samples_of(self.settings, self.listings),
            )
        if network.translation is not None:
            check_batch(network.translation.file, self.settings.batch, dynamic=self.settings.dynamic_batch)
        return network

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every residual unit, droppable or not."""
        return find_blocks(self.network.traced, self.network.input_shape)

    @property
    def candidates(self) -> tuple[Block, ...]:
        """The blocks that can be dropped; NoDroppableBlock is raised where there is none."""
        with about(self.network.summary.name):
            return droppable(self.blocks)

    @cached_property
    def structure_sha256(self) -> str:
        """Of the blocks: a network whose blocks are named alike has others in them."""
        return digest([(block.name, block.kind, block.shape, block.parameters) for block in self.blocks])

    # The images

    @cached_property
    def images(self) -> TinySet:
        """The tiny set and the held-out images."""
        with self.screen("Reading the images"):
            images = load_images(self.settings, self.network.summary, self.listings)
            if not self.network.trainable:
                return images
            return with_checked_labels(images, self.network.traced, self.network.summary.task)

    @property
    def fit_labels(self) -> Tensor | None:
        """Labels of the images to fit, by which nothing is fitted; None where there are none that the task takes. Shapes: [n, ...]."""
        return self.images.fit.labels

    @cached_property
    def calibration(self) -> CalibrationProblem:
        """What planning and recovery learn from, where they compute."""
        problem = CalibrationProblem(
            teacher=with_scaled_heads(self.network.traced, self.images.fit),
            feature=self.network.summary.feature,
            task=self.network.summary.task,
            images=self.images.fit,
            seed=self.settings.seed,
            comparison_dtype=self.training_precision,
        )
        return problem.to(pick_device(self.settings.compute))

    # The device

    @cached_property
    def backend(self) -> Backend:
        """The backend, with the device that the network is for.

        Raises: EnvironmentProblem, InputError.
        """
        return self.loaded_backend or backend_of(self.settings)

    @cached_property
    def local_backend(self) -> Backend | None:
        """The same; None where it is not at hand and a latency table stands for it, which is enough to plan."""
        check_supported(self.settings)
        try:
            return self.backend
        except EnvironmentProblem:
            if self.settings.latency_table is None:
                raise
            return None

    @cached_property
    def deployment(self) -> Deployment:
        """Where and how the network will run."""
        backend = self.local_backend
        return Deployment(
            name=self.settings.backend,
            options={name: str(value) for name, value in self.settings.backend_options.items()},
            conditions=conditions_of(self.settings, backend),
            local_backend=backend,
            device="" if backend is None else backend.device().fingerprint,
            target_archs=target_archs(self.settings),
            shapes=self.open_shapes,
        )

    @property
    def open_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the inputs that an ONNX file leaves open besides the batch, by name."""
        translation = self.network.translation
        if translation is None or not translation.file.has_free_sides:
            return {}
        return translation.shapes(self.settings.batch, self.network.input_shape[1:])

    @property
    def deployed_shape(self) -> tuple[int, ...]:
        """The shape of the first input that the device is fed."""
        translation, shape = self.network.translation, self.form.input_shape
        return shape if translation is None else next(iter(translation.shapes(shape[0], shape[1:]).values()))

    @property
    def setup(self) -> MeasurementSetup:
        """How networks are measured."""
        rule = StoppingRule(
            budget_s=self.settings.measure_budget_s,
            sessions=self.settings.sessions,
            keep_throttled=self.settings.keep_throttled,
        )
        deployment = self.deployment
        return MeasurementSetup(
            backend=self.backend, conditions=deployment.conditions, stopping_rule=rule, shapes=deployment.shapes
        )

    @property
    def ranking_setup(self) -> MeasurementSetup:
        """The same, where savings known well enough to rank blocks are known well enough.

        The design of a latency table says how often each network is opened.
        """
        rule = replace(self.setup.stopping_rule, relative_half_width=RANKING_SHARE, sessions=StoppingRule().sessions)
        return replace(self.setup, stopping_rule=rule)

    @property
    def form(self) -> ExportForm:
        """How the network is written as ONNX to be measured."""
        return ExportForm(
            input_shape=(self.settings.batch, *self.network.input_shape[1:]),
            precision=self.settings.one_precision,
            symmetric_int8=reads_symmetric_int8(self.settings),
        )

    @property
    def released_form(self) -> ExportForm:
        """How the release is."""
        images = self.images.fit if self.settings.precision == Precision.INT8 else None
        return replace(self.form, dynamic_batch=self.settings.dynamic_batch, calibration=images)

    @cached_property
    def cuttable(self) -> CuttableModel:
        """The network as it is deployed, from which blocks can be cut in milliseconds."""
        return CuttableModel(self.network, self.candidates, self.form, self.screen)

    @property
    def required_table(self) -> TableRequirements:
        """What a latency table must be of for this build to go by it."""
        backend = self.local_backend
        return TableRequirements(
            blocks=tuple(block.name for block in self.candidates),
            input_shape=self.deployed_shape,
            backend=self.settings.backend if backend is None else backend.name,
            conditions=self.deployment.conditions,
            structure_sha256=self.structure_sha256,
            device_fingerprint=self.deployment.device,
            target_archs=self.deployment.target_archs,
        )

    @property
    def block_bench(self) -> BlockBench:
        """Measures the network without some of its blocks."""
        return BlockBench(self.cuttable, self.deployment, self.setup)

    # The recipe

    @property
    def is_paper(self) -> bool:
        """Whether the paper's recipe was asked for."""
        return self.settings.recipe == "paper"

    @property
    def recovery(self) -> Recovery:
        """How pruned networks are recovered."""
        return Recovery(self.calibration, self.blocks, self.is_paper)

    @property
    def scoring(self) -> Schedule | None:
        """How the paper's adaptors are trained; None where blocks are scored in closed form."""
        if not self.is_paper:
            return None
        return Schedule(
            steps=self.settings.score_iterations,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            dtype=self.training_precision,
        )

    @property
    def finetuning(self) -> Schedule:
        """How the student is finetuned."""
        inputs = self.network.summary.preprocessing.inputs
        side = 0 if are_tokens(inputs) else self.network.input_shape[-1]
        schedule = schedule_for(self.settings, side, self.training_precision)
        return replace(schedule, mix=0.0) if inputs and not are_tokens(inputs) else schedule

    @property
    def training_precision(self) -> torch.dtype:
        """In which torch takes its finetuning steps."""
        return pick_precision(
            self.settings.compute_precision, self.network.input_shape[-1], pick_device(self.settings.compute)
        )

    # What was asked

    @property
    def budget(self) -> Budget:
        """The target."""
        return self.settings.budget

    @property
    def demands(self) -> Criteria:
        """What the release is held to."""
        return Criteria(
            min_speedup=self.settings.min_speedup,
            max_drop=self.settings.most_points_lost,
            by_default=self.settings.max_drop is None,
            precision=self.settings.one_precision,
        )
