"""The story: start reading here.

`Build.release` tells it in the paper's order. Every chapter is a step of the run folder: computed once for
the same inputs, kept, and pulled in by whatever needs it, so that a single stage can be asked for alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version

import onnx
import torch

from practise_backends.catalog import load_backend
from practise_backends.errors import BackendError
from practise_backends.ort import OrtBackend
from practise_backends.terms import Backend, Conditions, Interval, Patience, Progress
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.finetune import drop_only, finetune, schedule_for
from practise_deploy.model.blocks import droppable, find_blocks
from practise_deploy.model.compute import exact, pick_device, pick_precision
from practise_deploy.model.images import FitImages, TinySet, image_size_of, load_images
from practise_deploy.model.mimic import Pair, Schedule, feature_in
from practise_deploy.model.networks import Network, load_network
from practise_deploy.model.onnx_graph import with_cuts
from practise_deploy.model.surgery import drop_blocks, junctions, load_weights
from practise_deploy.planning.adaptors import measure_by_adaptors
from practise_deploy.planning.choose import choose_blocks, out_of_reach
from practise_deploy.planning.latency import Bench, measure_block_latency, measure_reduction
from practise_deploy.planning.recoverability import measure_recoverability
from practise_deploy.planning.sequence import recover
from practise_deploy.results import write_results
from practise_deploy.settings import Settings
from practise_deploy.shipping.bench import measure_speedup
from practise_deploy.shipping.export import export_onnx
from practise_deploy.shipping.verdict import judge
from practise_deploy.shipping.verify import Forms, engine_form, torch_form, verify
from practise_deploy.store import Key, Run, arrays_digest, digest, to_json
from practise_deploy.terms import (
    Block,
    LatencyTable,
    Plan,
    Recoverabilities,
    Release,
    Shipped,
    Speedup,
    Student,
    Verification,
)

Screen = Callable[[str], AbstractContextManager[Progress]]
MODEL = "model.onnx"
ORIGINAL_MODEL = "original.onnx"


class Build:
    """One build over one run folder; each property is a stage, computed when it is first asked for."""

    def __init__(
        self, settings: Settings, run: Run, screen: Screen, *, command: str = "", structure_only: bool = False
    ) -> None:
        self.settings = settings
        self.run = run
        self.screen = screen
        self.command = command
        self.structure_only = structure_only

    def check(self) -> None:
        """Find what is missing or broken before anything is measured or written.

        Raises: InputError, EnvironmentProblem.
        """
        if not self.network.learns:
            raise InputError(
                f"{self.settings.network} is a torch.export file: it can be inspected, measured and exported, not replanned",
                remedy="give the network as torchvision:NAME, timm:NAME or FILE.py:FUNCTION",
            )
        pick_device(self.settings.compute)
        assert self.candidates and self.backend and self.images

    # What there is.

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
        return droppable(self.blocks)

    @cached_property
    def images(self) -> TinySet:
        """The tiny set and the held-out images."""
        with self.screen("Reading the images"):
            return load_images(self.settings, self.network.facts)

    @cached_property
    def backend(self) -> Backend:
        """The device that the network is for."""
        try:
            return load_backend(self.settings.backend)
        except BackendError as error:
            raise EnvironmentProblem(error.message, remedy=error.remedy) from None

    # What does each block cost on this device?

    @cached_property
    def latency(self) -> LatencyTable:
        """Savings of all droppable blocks."""
        candidates = self.candidates
        key = {
            **self._device_key,
            "blocks": [block.name for block in candidates],
            "measuring": self.settings.measure_budget_s,
        }

        def compute() -> LatencyTable:
            with self.screen("Measuring what every block costs") as progress:
                return measure_block_latency(self._cuttable, self.settings.network, candidates, self._bench, progress)

        table = self.run.step("latency", LatencyTable, key, compute)
        self.run.write("latency.json", to_json(table))
        return table

    # What would losing it cost?

    @cached_property
    def recoverability(self) -> Recoverabilities:
        """R of every block whose saving can be told from none."""
        sure = {saving.block for saving in self.latency.savings if saving.distinguishable}
        candidates = [block for block in self.candidates if block.name in sure]
        steps = self.settings.score_iterations if self.settings.recipe == "paper" else None
        key = {**self._learning_key, "candidates": sorted(sure), "score_iterations": steps}
        if steps is not None:
            key |= self._descent_key

        def compute() -> Recoverabilities:
            teacher, feature, fit, seed = self._lesson
            with (
                self.screen("Measuring how well the network recovers from losing each block") as progress,
                exact(seed),
            ):
                if steps is None:
                    return Recoverabilities(
                        of=measure_recoverability(teacher, feature, candidates, fit, seed, progress)
                    )
                schedule = Schedule(steps=steps, batch_size=self.settings.batch_size, seed=seed, dtype=self._precision)
                return Recoverabilities(of=measure_by_adaptors(teacher, feature, candidates, fit, schedule, progress))

        return self.run.step("recoverability", Recoverabilities, key, compute)

    # Take the best bargains until the budget is met, then recover.

    @cached_property
    def plan(self) -> Plan:
        """Which blocks go; the chosen network was measured."""
        budget = self.settings.budget
        key = {
            **self._device_key,
            "budget": digest(budget.reduce_percent, budget.target_ms, budget.drop),
            "latency table": digest(to_json(self.latency)),
            "recoverability": digest(to_json(self.recoverability)),
        }

        def measure(names: tuple[str, ...]) -> Interval:
            with self.screen(f"Measuring the network without {', '.join(names)}") as progress:
                return measure_reduction(self._cuttable, self._named(names), self._bench, progress)

        def compute() -> Plan:
            return choose_blocks(self.latency, self.recoverability.of, budget, measure)

        plan = self.run.step("plan", Plan, key, compute)
        self.run.write("plan.json", to_json(plan))
        return plan

    @cached_property
    def recovered(self) -> Student:
        """The pruned network after the closed-form refit (recipe paper: after the plain drop)."""
        plan = self._reached_plan
        key = {**self._learning_key, "dropped blocks": plan.dropped}
        paper = self.settings.recipe == "paper"

        def compute() -> Student:
            teacher, feature, fit, seed = self._lesson
            with (
                self.screen("Dropping the blocks" if paper else "Refitting the network in closed form") as progress,
                exact(seed),
            ):
                if paper:
                    return drop_only(teacher, feature, self._dropped, fit, seed)
                return recover(teacher, feature, self._dropped, fit, seed, progress)

        return self.run.step("recover", Student, key, compute)

    @cached_property
    def finetuned(self) -> Student:
        """The student after feature mimicking."""
        schedule = schedule_for(self.settings, self.network.input_shape[-1], self._precision)
        key = {
            **self._learning_key,
            **self._descent_key,
            "starting weights": arrays_digest(self.recovered.weights),
            "schedule": repr(schedule),
        }

        def compute() -> Student:
            student, feature = self._student(self.recovered), self.network.facts.feature
            own = feature_in(student, feature, junctions(student, self._dropped))
            pair = Pair(student, self.network.traced, own, feature, pick_device(self.settings.compute))
            partial = self.run.partial(f"finetune.{digest(key)[:12]}")
            with self.screen("Finetuning by feature mimicking") as progress, exact(self.settings.seed):
                return finetune(pair, self.recovered, self.images.fit, schedule, progress, partial)

        return self.run.step("finetune", Student, key, compute)

    # Ship it, and prove it.

    @cached_property
    def shipped(self) -> Shipped:
        """model.onnx, and original.onnx beside it; a torch.export file has the latter alone."""
        original = self._original
        if not self.network.learns:
            return original
        return self._export(
            "export", MODEL, arrays_digest(self.finetuned.weights), lambda: self._student(self.finetuned)
        )

    @cached_property
    def verification(self) -> Verification:
        """The chain teacher -> student -> ONNX -> engine on held-out images."""
        key = {
            **self._device_key,
            "original weights": self.network.facts.sha256,
            "model": self.shipped.sha256,
            "held-out images": self.images.held_out.digest(),
            "preprocessing": repr(self.network.facts.preprocessing),
        }

        def compute() -> Verification:
            plain, path = OrtBackend(), self.run.folder / MODEL
            artifact = self.backend.compile(path, self.conditions)
            unoptimised = plain.open(plain.compile(path, self.conditions), self.conditions, optimise=False)
            forms = Forms(
                teacher=torch_form(self.network.traced),
                student=torch_form(self._student(self.finetuned)),
                onnx=engine_form(unoptimised, self.settings.batch),
                engine=engine_form(self.backend.open(artifact, self.conditions), self.settings.batch),
            )
            with self.screen("Verifying on held-out images") as progress, exact(self.settings.seed):
                return verify(forms, self.images.held_out, progress)

        return self.run.step("verify", Verification, key, compute)

    @cached_property
    def bench(self) -> Speedup:
        """The new model against the original one."""
        key = {
            **self._device_key,
            "model": self.shipped.sha256,
            "original": self._original.sha256,
            "measuring": self.settings.measure_budget_s,
        }

        def compute() -> Speedup:
            before, after = self.run.folder / ORIGINAL_MODEL, self.run.folder / MODEL
            with self.screen("Measuring the new model against the original") as progress:
                return measure_speedup(before, after, self.backend, self.conditions, self._patience, progress)

        return self.run.step("bench", Speedup, key, compute)

    @cached_property
    def release(self) -> Release:
        """Drop the blocks whose loss is cheapest to recover per millisecond saved; ship the rest, and prove it."""
        self.check()
        release = Release(
            network=self.network.facts,
            images=self.images.facts,
            recipe=self.settings.recipe,
            blocks=self.blocks,
            latency=self.latency,
            recoverability=self.recoverability.of,
            plan=self.plan,
            recovered=self.recovered,
            finetuned=self.finetuned,
            shipped=self.shipped,
            verification=self.verification,
            bench=self.bench,
            speedup=self.bench.speedup,
            verdict=judge(self.plan, self.verification, self.bench),
            seconds=dict(self.run.seconds),
            command=self.command,
        )
        digests = {"fit": self.images.fit.digest(), "held_out": self.images.held_out.digest()}
        write_results(self.run, release, self.settings, digests)
        return release

    # What the chapters share.

    @property
    def conditions(self) -> Conditions:
        """The deployment's."""
        return Conditions(batch=self.settings.batch, threads=self.settings.threads, seed=self.settings.seed)

    @property
    def _patience(self) -> Patience:
        return Patience(budget_s=self.settings.measure_budget_s)

    @property
    def _bench(self) -> Bench:
        return Bench(backend=self.backend, conditions=self.conditions, patience=self._patience)

    @property
    def _input_shape(self) -> tuple[int, ...]:
        return (self.settings.batch, *self.network.input_shape[1:])

    @cached_property
    def _cuttable(self) -> onnx.ModelProto:
        with self.screen("Exporting the network"):
            return with_cuts(self.network.traced, self.candidates, self._input_shape)

    @cached_property
    def _device_key(self) -> Key:
        return {
            "network": digest(self.network.structure, self.network.input_shape),
            "device": self.backend.device().fingerprint,
            "backend": self.settings.backend,
            "threads": self.settings.threads,
            "batch": self.settings.batch,
            "practise-deploy": version("practise-deploy"),
        }

    @cached_property
    def _learning_key(self) -> Key:
        decoding = replace(self.network.facts.preprocessing, augment="")
        return {
            "weights": self.network.facts.sha256,
            "images": self.images.fit.digest(),
            "preprocessing": repr(decoding),
            "recipe": self.settings.recipe,
            "seed": self.settings.seed,
            "torch": torch.__version__,
            "practise-deploy": version("practise-deploy"),
        }

    @property
    def _lesson(self) -> tuple[torch.fx.GraphModule, str, FitImages, int]:
        return self.network.traced, self.network.facts.feature, self.images.fit, self.settings.seed

    @property
    def _descent_key(self) -> Key:
        return {
            "batch_size": self.settings.batch_size,
            "augment": self.network.facts.preprocessing.augment,
            "precision": str(self._precision),
            "compute": str(pick_device(self.settings.compute)),
        }

    @property
    def _precision(self) -> torch.dtype:
        return pick_precision(
            self.settings.compute_precision, self.network.input_shape[-1], pick_device(self.settings.compute)
        )

    @property
    def _reached_plan(self) -> Plan:
        plan = self.plan
        if plan.reached and plan.dropped:
            return plan
        raise out_of_reach(plan)

    @property
    def _dropped(self) -> list[Block]:
        return self._named(self.plan.dropped)

    def _named(self, names: tuple[str, ...]) -> list[Block]:
        return [block for block in self.blocks if block.name in names]

    def _student(self, state: Student) -> torch.fx.GraphModule:
        student = drop_blocks(self.network.traced, self._dropped)
        load_weights(student, state.weights)
        return student.eval()

    @cached_property
    def _original(self) -> Shipped:
        return self._export("export-original", ORIGINAL_MODEL, self.network.facts.sha256, lambda: self.network.traced)

    def _export(self, step: str, name: str, weights: str, network: Callable[[], torch.fx.GraphModule]) -> Shipped:
        path = self.run.folder / name
        key = {
            "network": self.network.structure,
            "weights": weights,
            "input shape": list(self._input_shape),
            "dynamic batch": self.settings.dynamic_batch,
            "torch": torch.__version__,
            "practise-deploy": version("practise-deploy"),
        }

        def compute() -> Shipped:
            with self.screen(f"Exporting {name}"):
                return export_onnx(network(), self._input_shape, path, dynamic_batch=self.settings.dynamic_batch)

        shipped = self.run.step(step, Shipped, key, compute)
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != shipped.sha256:
            self.run.forget(step, f"{name} is missing or was changed")
            shipped = self.run.step(step, Shipped, key, compute)
        return shipped
