"""A build from end to end: start reading here.

Every stage is a step of the run folder: computed once for the same inputs, kept, and pulled in by whatever needs it, so that a single
stage can be requested alone. `stages.py` says what a stage does, `context.py` what it starts from, `checks.py` what is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_type_hints

from practise_backends.choices import Precision
from practise_backends.errors import Disturbed, EnvironmentProblem
from practise_backends.terms import Comparison, LatencyTable, Throughput
from practise_deploy.deployment.compile import precision_problems
from practise_deploy.deployment.frontier import neighbours_of, released_point
from practise_deploy.deployment.kit import WrittenKit
from practise_deploy.deployment.latency_table import check_table, read_table
from practise_deploy.deployment.rehearse import check_space
from practise_deploy.outcome import (
    BuiltPoint,
    DeployedModel,
    ExportedModel,
    Frontier,
    GateResult,
    LeverPoint,
    Levers,
    Rehearsal,
    Release,
    Verdict,
    Verification,
)
from practise_deploy.pipeline import stages
from practise_deploy.pipeline.checks import check_inputs, check_reached
from practise_deploy.pipeline.context import BlockBench, BuildContext, named
from practise_deploy.pipeline.fingerprint import code, fingerprint
from practise_deploy.pipeline.kit import kit_of, kit_place
from practise_deploy.pipeline.results import write_results
from practise_deploy.pipeline.stages import FP32_MODEL, MODEL, ORIGINAL_MODEL, Allowance, Files, Pruned
from practise_deploy.planning.choose import count_reaching, too_disturbed
from practise_deploy.planning.gate import evaluate_gate
from practise_deploy.planning.levers import advice
from practise_deploy.planning.remeasuring import (
    MAX_REMEASUREMENTS,
    counted,
    is_undecided,
    last_of,
    longer,
    required_speedups,
)
from practise_deploy.planning.sets import neighbouring_sets
from practise_deploy.planning.verdict import judge
from practise_deploy.run import Record, to_json
from practise_deploy.terms import Plan, Recoverabilities, Student, WithinDrop

_NO_FRONTIER = Frontier(points=(), fit_images=0, images=0)
_OF_THE_ORIGINAL = {"export-original", "export-fp32", "rehearse", "latency", "recoverability"}


def require(*_: object) -> None:
    """What is asked for is computed, or refused, here and now; an assertion would be passed over by `python -O`."""


@dataclass(frozen=True)
class Build:
    """One build over one run folder; each property is a stage, computed when it is first needed. In the paper's order (section 3):

    original, rehearsal     export the network, and run it on the device on a few images
    latency                 measure the saving of every droppable block: L(original) - L(without the block)
    recoverability          score every block: the error of the features that recovery leaves without it
    unreduced_plan          choose the set of blocks of least error that meets the target, and measure it
    within_drop, plan       judge its loss of accuracy on images that took no part; refuse or reduce what costs too much
    recovered               drop the blocks, and refit what stays in closed form
    finetuned               mimic the teacher's features
    exported, compiled      write ONNX, and what the device runs
    verification            teacher, student, ONNX and engine on held-out images
    bench, throughput       the new network against the original, in paired rounds
    frontier                what fewer and more dropped blocks would have given
    gate, verdict           was the promise kept?

    levers, lever: where the precision was chosen too (see `auto.py`), what was measured and what was taken. number: of points that were
    built before it; its steps are kept beside theirs.
    """

    context: BuildContext
    kit_folder: Path | None = None
    levers: Levers | None = None
    lever: LeverPoint | None = None
    number: int | None = None

    @cached_property
    def release(self) -> Release:
        """Drop the blocks whose loss is cheapest to recover per millisecond saved; deploy the rest, and prove it."""
        self.check()
        require(self.rehearsal)
        release = Release(
            network=self.context.network.summary,
            images=self.context.images.summary,
            recipe=self.context.settings.recipe,
            blocks=self.context.blocks,
            latency=self.latency,
            recoverability=self.recoverability.of,
            plan=self.plan,
            recovered=self.recovered,
            finetuned=self.finetuned,
            exported=self.exported,
            compiled=self.compiled,
            verification=self.verification,
            bench=self.bench,
            throughput=self.throughput,
            frontier=self.frontier,
            gate=self.gate,
            speedup=None if self.bench is None else counted(self.plan, self.bench),
            verdict=self.verdict,
            seconds=dict(self.context.run.seconds),
            command=self.context.command,
            levers=self.levers,
        )
        write_results(self.context.run, release, self.context.settings, self.context.images)
        return release

    def check(self, *, device: bool = True) -> None:
        """Find what is missing or broken before anything is measured or written.

        device: whether it must be at hand; else a latency table may stand for it.
        Raises: InputError, EnvironmentProblem.
        """
        context = self.context
        check_inputs(context)
        require(context.backend if device else context.local_backend or self.latency)
        if context.settings.latency_table is not None:
            require(self.latency)

    @property
    def built_point(self) -> BuiltPoint:
        """This build's point, as judged on the held-out images."""
        assert self.lever is not None
        return BuiltPoint(dropped=self.lever.dropped, precision=self.lever.precision, loss=self.verification.loss)

    # Does the original compute on the device what it should?

    @cached_property
    def original(self) -> ExportedModel:
        """original.onnx."""
        context = self.context
        original = Pruned(network=context.network)
        return self._step("export-original", stages.export, original, context.released_form, ORIGINAL_MODEL)

    @cached_property
    def original_fp32(self) -> ExportedModel | None:
        """original-fp32.onnx, which an original of less precision is measured beside; None where the original is of fp32 itself."""
        context = self.context
        if context.settings.precision == Precision.FP32:
            return None
        form = replace(context.released_form, precision=Precision.FP32, calibration=None)
        return self._step("export-fp32", stages.export, Pruned(network=context.network), form, FP32_MODEL)

    @cached_property
    def rehearsal(self) -> Rehearsal:
        """The original on its way to the device, before anything is measured.

        Raises: VerificationFailed, InputError, EnvironmentProblem.
        """
        context = self.context
        check_space(context.run.folder, context.network.summary.parameters)
        images = context.images.fit
        return self._step(
            "rehearse", stages.rehearse_original, context.network, self.original, context.deployment, images
        )

    # What does each block cost on this device?

    @cached_property
    def latency(self) -> LatencyTable:
        """Savings of all droppable blocks: measured here, or read from --latency-table."""
        context, file = self.context, self.context.settings.latency_table
        if file is not None:
            table = read_table(file)
            check_table(table, context.required_table, file)
            return table
        bench = replace(context.block_bench, setup=context.ranking_setup)
        table = self._step("latency", stages.measure_latency, bench, context.structure_sha256)
        context.run.write("latency.json", to_json(table))
        return table

    # What would losing it cost?

    @cached_property
    def recoverability(self) -> Recoverabilities:
        """R of every block whose saving is distinguishable from zero."""
        saving = {saving.block for saving in self.latency.savings if saving.distinguishable}
        blocks = tuple(block for block in self.context.candidates if block.name in saving)
        return self._step("recoverability", stages.score_blocks, self.context.calibration, blocks, self.context.scoring)

    # Take the set whose loss is cheapest to recover within the budget.

    @cached_property
    def unreduced_plan(self) -> Plan:
        """The set of least error that meets the target."""
        require(self.rehearsal)
        context = self.context
        if self.lever is not None:
            bench = self.context.block_bench if self.lever.dropped else None
            plan = self._step("plan", stages.plan_lever, self.lever.dropped, self.latency, self.recoverability, bench)
            context.run.write("latency.json", to_json(self.latency))
            context.run.write("plan.json", to_json(plan))
            return plan
        plan = self._step(
            "plan",
            stages.choose,
            self.latency,
            self.recoverability,
            context.budget,
            context.recovery,
            self._block_bench,
        )
        context.run.write("latency.json", to_json(self.latency))
        context.run.write("plan.json", to_json(plan))
        return plan

    @cached_property
    def within_drop(self) -> WithinDrop | None:
        """What can be had within --max-drop, where the set that meets the target cannot be recovered so far."""
        context, plan, points = self.context, self.unreduced_plan, self.context.settings.most_points_lost
        hopeless = self.disturbed is not None and not context.settings.best_within_drop
        if points is None or context.is_paper or not plan.dropped or hopeless or self.lever is not None:
            return None
        allowed = Allowance(points=points, finetuned=context.settings.iterations != 0)
        inputs = (self.latency, self.recoverability, plan, context.recovery, allowed)
        return self._step("within-drop", stages.find_prospect, *inputs).of

    @cached_property
    def plan(self) -> Plan:
        """Which blocks go; the chosen network was measured. With --best-within-drop a smaller set than asked may."""
        plan, within = self.unreduced_plan, self.within_drop
        if within is None or within.best is None or not self.context.settings.best_within_drop:
            return plan
        inputs = (self.latency, self.recoverability, plan, within, self._block_bench)
        reduced = self._step("plan-within-drop", stages.reduce_plan, *inputs)
        self.context.run.write("plan.json", to_json(reduced))
        return reduced

    # Drop the blocks, refit what stays, and mimic the teacher's features.

    @cached_property
    def recovered(self) -> Student:
        """The pruned network after the closed-form refit (recipe paper: after the plain drop)."""
        dropped = named(self.context.blocks, self.reached_plan.dropped)
        return self._step("recover", stages.recover_student, self.context.recovery, dropped)

    @cached_property
    def finetuned(self) -> Student:
        """The student after feature mimicking."""
        context = self.context
        if not self.recovered.dropped:
            return self.recovered
        inputs = (context.calibration, context.blocks, self.recovered, context.finetuning)
        return self._step("finetune", stages.finetune_student, *inputs)

    # Deploy it, and prove it.

    @cached_property
    def exported(self) -> ExportedModel:
        """model.onnx, and original.onnx beside it; a torch.export file has the latter alone."""
        original = self.original
        if not self.context.network.trainable:
            return original
        return self._step("export", stages.export, self.pruned, self.context.released_form, MODEL)

    @cached_property
    def compiled(self) -> DeployedModel:
        """What the device runs, and the proof of its precision."""
        require(self.context.backend)
        return self._step("compile", stages.compile_model, self.exported, self.context.deployment)

    @cached_property
    def verification(self) -> Verification:
        """The chain teacher -> student -> ONNX -> engine on held-out images; without the engine where it cannot run here."""
        files = replace(self._files, compiled=self.compiled)
        inputs = (self.pruned, files, self.context.deployment, self.context.images.held_out)
        return self._step("verify", stages.verify_release, *inputs)

    @cached_property
    def bench(self) -> Comparison | None:
        """The new model against the original one; None where the engine was built ahead for a device not at hand.

        It is measured again where it does not tell whether what was asked is met.
        """
        context = self.context
        if context.deployment.target_archs:
            return None
        thresholds, setup = required_speedups(self.plan, context.settings.min_speedup), context.setup
        title, name, done = "Measuring the new model against the original", "bench", list[Comparison]()
        try:
            while not done or (self._is_undecided(done[-1], thresholds) and len(done) <= MAX_REMEASUREMENTS):
                if done:
                    setup, name = longer(setup, done[-1]), f"bench-again-{len(done)}"
                again = f"{title}, for longer" if done else title
                files = replace(self._files, fp32=self.original_fp32)
                done.append(self._step(name, stages.compare_models, files, context.deployment, setup, again))
        except Disturbed as error:
            if not done:
                raise
            return last_of(done, error.message)
        return last_of(done)

    @cached_property
    def throughput(self) -> tuple[Throughput, ...]:
        """Images a second of both models, over batches and numbers of threads."""
        context = self.context
        if context.deployment.target_archs:
            return ()
        rule = replace(stages.THROUGHPUT_RULE, keep_throttled=context.settings.keep_throttled)
        setup = replace(context.setup, stopping_rule=rule)
        inputs = (self._files, context.deployment, setup, *context.settings.throughput_points)
        return self._step("throughput", stages.measure_both, *inputs).of

    @cached_property
    def frontier(self) -> Frontier:
        """What fewer and more dropped blocks would have given; the release itself is its last point."""
        context = self.context
        if self.bench is None:  # what its neighbours save could be measured there alone
            return _NO_FRONTIER
        wanted = context.settings.frontier and self.lever is None
        frontier, sets = _NO_FRONTIER, self._neighbours if wanted else []
        if sets:
            inputs = (context.recovery, context.block_bench, sets, self.plan.dropped, context.images.held_out)
            frontier = self._step("frontier", stages.judge_sets, *inputs)
        return replace(frontier, points=(*frontier.points, released_point(self.plan, self.bench, self.verification)))

    @property
    def gate(self) -> GateResult | None:
        """The demands on the release; None where there are none."""
        gate = evaluate_gate(self.context.demands, self.plan, self.bench, self.verification, self.frontier)
        if gate is None or self.levers is None or self.lever is None or not gate.advice:
            return gate
        return replace(gate, advice=advice(self.levers.points, self.lever))

    @property
    def verdict(self) -> Verdict:
        """Whether the promise was kept."""
        precision = precision_problems(self.compiled, self.context.settings.min_precision_share)
        return judge(self.plan, self.verification, self.bench, self.gate, precision)

    # Measuring elsewhere

    @property
    def kit_place(self) -> Path:
        """Where the kit goes.

        Raises: InputError where something else is there.
        """
        return kit_place(self.context, self.kit_folder)

    @cached_property
    def kit(self) -> WrittenKit:
        """A folder that measures what every block costs where neither torch nor this tool is."""
        return kit_of(self.context, self.kit_place)

    # What the stages share

    def _step(self, name: str, stage: Callable[..., Record], *inputs: object) -> Record:
        """A stage's result, kept for as long as the fingerprints of its inputs and of the code are the same."""
        names = list(inspect.signature(stage).parameters)[:-1]
        key = {parameter.replace("_", " "): fingerprint(value) for parameter, value in zip(names, inputs, strict=True)}
        result = get_type_hints(stage)["return"]
        return self.context.run.step(name, result, code() | key, lambda work: stage(*inputs, work), self._variant(name))

    def _variant(self, name: str) -> str:
        """What sets a step of one of several builds apart: its precision, and what drops other blocks by its number."""
        if self.number is None:
            return ""
        again = f"-{self.number + 1}" if self.number and name not in _OF_THE_ORIGINAL else ""
        return f"-{self.context.settings.one_precision}{again}"

    @property
    def reached_plan(self) -> Plan:
        """The plan, where it meets the target.

        Raises: TargetOutOfReach where it does not, or costs more accuracy than is allowed; EnvironmentProblem where the device is too
        disturbed to tell.
        """
        if self.lever is None:
            check_reached(self.plan, self.within_drop, self.disturbed, self.context.settings)
        return self.plan

    @cached_property
    def disturbed(self) -> EnvironmentProblem | None:
        """Why the noise of the device, and not the network, is what misses the target; None where it is not."""
        return too_disturbed(self.unreduced_plan, self.latency)

    def _is_undecided(self, comparison: Comparison, thresholds: tuple[float, ...]) -> bool:
        return is_undecided(counted(self.plan, comparison), thresholds)

    @property
    def _block_bench(self) -> BlockBench | None:
        """None where the latency table is of a device that is not at hand."""
        return self.context.block_bench if self.context.required_table.is_local(self.latency) else None

    @property
    def pruned(self) -> Pruned:
        """The new network, as torch computes it."""
        dropped = named(self.context.blocks, self.plan.dropped)
        return Pruned(network=self.context.network, dropped=dropped, weights=self.finetuned.weights)

    @property
    def _files(self) -> Files:
        return Files(original=self.original, model=self.exported)

    @property
    def _neighbours(self) -> list[tuple[str, ...]]:
        """Sets around the plan's, and what --min-speedup calls for by the table."""
        plan, min_speedup = self.reached_plan, self.context.settings.min_speedup
        needed = None if min_speedup is None else 100 * (1 - 1 / min_speedup)
        if self.context.is_paper:
            return neighbours_of(plan, None if needed is None else count_reaching(plan, self.latency, needed))
        return neighbouring_sets(self.latency, self.recoverability, plan, needed)
