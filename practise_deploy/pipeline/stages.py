"""The stages of a build: functions from what a stage depends on, which is its key, to its record.

The last argument is the workspace, on which no result depends. `build.py` has their order.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import fx

from practise_backends.choices import Precision
from practise_backends.errors import about
from practise_backends.files import temporary_folder
from practise_backends.interfaces import MeasurementSetup
from practise_backends.results.compare import NEW, compare
from practise_backends.results.throughput import measure_throughput
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Arrays, Comparison, Conditions, Interval, LatencyTable, StoppingRule
from practise_deploy.compute import exact
from practise_deploy.deployment.batching import with_any_batch
from practise_deploy.deployment.block_latency import measure_block_latency
from practise_deploy.deployment.compile import compile_network
from practise_deploy.deployment.export import write_onnx
from practise_deploy.deployment.frontier import Neighbour, evaluation_sample, judge_neighbours
from practise_deploy.deployment.precision import operators_in_float
from practise_deploy.deployment.rehearse import rehearse
from practise_deploy.deployment.verify import Runner, Runners, engine_runner, torch_runner, verify
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages, HeldOutImages
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks, load_weights, weights_of
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.onnx_import.replacement import replacement
from practise_deploy.outcome import DeployedModel, ExportedModel, Frontier, Rehearsal, Throughputs, Verification
from practise_deploy.pipeline.context import BlockBench, Deployment, ExportForm, Recovery, named
from practise_deploy.planning.choose import Measure, choose_blocks, plan_for
from practise_deploy.planning.sets import Verified, Verify, choose_set
from practise_deploy.planning.within_drop import LEAST_LEFT, find_within, reduced_plan
from practise_deploy.refit.recover import verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.refit.whole_recovery import is_doubtful, rescored
from practise_deploy.run import Workspace
from practise_deploy.terms import Block, Budget, NetworkSummary, Plan, Prospect, Recoverabilities, Student, WithinDrop
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.distillation import distillation_of, find_hints
from practise_deploy.training.finetune import finetune
from practise_deploy.training.schedule import Schedule

MODEL = "model.onnx"
ORIGINAL_MODEL = "original.onnx"
FP32_MODEL = "original-fp32.onnx"
THROUGHPUT_RULE = StoppingRule(budget_s=6.0, warmup_s=0.5, min_rounds=10, half_width_percent=1.0, sessions=1)

Blocks = tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The network without some blocks. weights: of what is left, None where they are the network's own."""

    network: Network
    dropped: Blocks = ()
    weights: Arrays | None = None

    @property
    def graph(self) -> fx.GraphModule:
        """It, in eval mode; the network itself where nothing was dropped."""
        if self.weights is None:
            return self.network.traced
        graph = drop_blocks(self.network.traced, self.dropped)
        load_weights(graph, self.weights)
        return graph.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What is deployed: the original, the new model, and what the device runs of it. fp32: the original, where both are of less precision."""

    original: ExportedModel
    model: ExportedModel
    compiled: DeployedModel | None = None
    fp32: ExportedModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The loss that is allowed, in points, and whether finetuning is still to come."""

    points: float
    finetuned: bool
    left_after_finetuning: float = LEAST_LEFT


def measure_latency(bench: BlockBench, structure_sha256: str, work: Workspace) -> LatencyTable:
    """What does each block cost on this device?"""
    model = bench.model
    with work.screen("Measuring what every block costs") as progress:
        table = measure_block_latency(model.proto, model.network.summary.name, model.blocks, bench.setup, progress)
    return replace(table, structure_sha256=structure_sha256)


def score_blocks(
    calibration: CalibrationProblem, blocks: Blocks, scoring: Schedule | None, work: Workspace
) -> Recoverabilities:
    """What would losing each block cost? scoring: how the paper's adaptors are trained; None scores in closed form."""
    title = "Measuring how well the network recovers from losing each block"
    with work.screen(title) as progress, exact(calibration.seed):
        if scoring is not None:
            return measure_by_adaptors(calibration, blocks, scoring, progress)
        scores = measure_recoverability(calibration, blocks, progress)
    if not any(is_doubtful(score) for score in scores.of):
        return scores
    title = "Refitting everything behind blocks that a single point misjudges"
    with work.screen(title) as progress, exact(calibration.seed):
        return rescored(calibration, blocks, scores, progress)


def choose(
    latency: LatencyTable,
    recoverability: Recoverabilities,
    budget: Budget,
    recovery: Recovery,
    bench: BlockBench | None,
    work: Workspace,
) -> Plan:
    """Which set of least error meets the target? bench: None where the table's device is not at hand."""
    measure = _measuring(bench, work)
    if recovery.paper:
        return choose_blocks(latency, recoverability.of, budget, measure)
    return choose_set(latency, recoverability, budget, measure, _verifying(recovery, work))


def plan_lever(
    dropped: tuple[str, ...],
    latency: LatencyTable,
    recoverability: Recoverabilities,
    bench: BlockBench | None,
    work: Workspace,
) -> Plan:
    """The plan of blocks that were chosen together with the precision, measured. bench: None where there are none."""
    return plan_for(dropped, latency, recoverability.of, _measuring(bench, work))


def find_prospect(
    latency: LatencyTable,
    recoverability: Recoverabilities,
    plan: Plan,
    recovery: Recovery,
    allowed: Allowance,
    work: Workspace,
) -> Prospect:
    """Can the plan's set be recovered within the loss that is allowed, and if not, what can?"""
    verify = _verifying(recovery, work)
    return Prospect(of=find_within(latency, recoverability, plan, verify, allowed.points, finetuned=allowed.finetuned))


def reduce_plan(
    latency: LatencyTable,
    recoverability: Recoverabilities,
    plan: Plan,
    within: WithinDrop,
    bench: BlockBench | None,
    work: Workspace,
) -> Plan:
    """The plan of the most that can be saved within the loss that is allowed."""
    return reduced_plan(plan, within, latency, recoverability, _measuring(bench, work))


def _verifying(recovery: Recovery, work: Workspace) -> Verify:
    """Recovers a set in closed form, and judges it on images that the fit did not see."""
    calibration = recovery.calibration

    def verified(names: tuple[str, ...]) -> Verified:
        with work.screen(f"Refitting without {', '.join(names)}") as progress, exact(calibration.seed):
            return verified_without(calibration, named(recovery.blocks, names), progress)

    return verified


def _measuring(bench: BlockBench | None, work: Workspace) -> Measure | None:
    if bench is None:
        return None

    def measure(names: tuple[str, ...]) -> Interval:
        return bench.reduction(names, work.screen)

    return measure


def recover_student(recovery: Recovery, dropped: Blocks, work: Workspace) -> Student:
    """The pruned network after the closed-form refit (recipe paper: after the plain drop)."""
    if not dropped:
        weights = weights_of(recovery.calibration.teacher)
        return Student(
            dropped=(),
            method="nothing dropped",
            mse_before=0.0,
            mse=0.0,
            steps=0,
            seconds=0.0,
            notes=(),
            weights=weights,
        )
    title = "Dropping the blocks" if recovery.paper else "Refitting the network in closed form"
    return recovery.without(dropped, work.screen, title)


def finetune_student(
    calibration: CalibrationProblem, blocks: Blocks, start: Student, schedule: Schedule, work: Workspace
) -> Student:
    """The student after feature mimicking. blocks: all of the network's."""
    dropped = named(blocks, start.dropped)
    student = drop_blocks(calibration.teacher, dropped)
    load_weights(student, start.weights)
    hints = find_hints(student, blocks, dropped, calibration.feature)
    pair = distillation_of(
        student.eval(), calibration.teacher, calibration.feature, dropped, hints=hints, device=calibration.device
    )
    images = calibration.images.to(torch.device("cpu"))
    with work.screen("Finetuning by feature mimicking") as progress, exact(calibration.seed):
        return finetune(pair, start, images, schedule, progress, work.partial)


def export(pruned: Pruned, form: ExportForm, name: str, work: Workspace) -> ExportedModel:
    """The network as ONNX, or the user's own file without the blocks. name: of the file."""
    translation = pruned.network.translation
    with work.screen(f"Exporting {name}"), about(pruned.network.summary.name):
        model = as_onnx(pruned, form)
        kept = operators_in_float(model, symmetric=form.symmetric_int8) if form.precision == Precision.INT8 else {}
        return write_onnx(
            form.lowered(model),
            work.folder / name,
            dynamic_batch=form.dynamic_batch if translation is None else translation.file.batch is None,
            in_float=kept,
        )


def as_onnx(pruned: Pruned, form: ExportForm) -> onnx.ModelProto:
    """The network in fp32, or the user's own file without the blocks."""
    translation = pruned.network.translation
    if translation is None:
        return to_onnx(pruned.graph, form.input_shape, dynamic_batch=form.dynamic_batch)
    return replacement(translation, pruned.dropped, pruned.weights or {})


def rehearse_original(
    network: Network, original: ExportedModel, deployment: Deployment, images: FitImages, work: Workspace
) -> Rehearsal:
    """Does the original compute on the device what it should, before anything is measured?

    Raises: VerificationFailed.
    """
    conditions, file = deployment.conditions, work.folder / original.path
    with ExitStack() as held:
        progress = held.enter_context(
            work.screen(f"Running the original on a few {network.summary.task.sample}s, as it is deployed")
        )
        summary = network.summary
        forms = {"teacher": torch_runner(network.traced), "ONNX": _onnx_form(file, conditions, summary)}
        if deployment.runs_here:
            engine = held.enter_context(closing(deployment.opened(file)))
            forms["engine"] = engine_runner(engine, conditions.batch, summary.preprocessing, summary.task.names)
        held.enter_context(exact(conditions.seed))
        return rehearse(forms, images, conditions.precision, progress, network.summary.task)


def compile_model(model: ExportedModel, deployment: Deployment, work: Workspace) -> DeployedModel:
    """What the device runs, and the proof of its precision."""
    with work.screen("Compiling for the device") as progress:
        return compile_network(
            deployment.backend, work.folder / model.path, deployment.conditions, progress, deployment.shapes
        )


def verify_release(
    pruned: Pruned, files: Files, deployment: Deployment, held_out_images: HeldOutImages, work: Workspace
) -> Verification:
    """Does every form compute what the one before does? Teacher, student, ONNX, and the engine where it can run here."""
    assert files.compiled is not None
    conditions, folder = deployment.conditions, work.folder
    summary = pruned.network.summary
    with ExitStack() as held:
        engine = None
        if not deployment.target_archs:
            opened = held.enter_context(closing(deployment.opened(folder / files.compiled.path)))
            engine = engine_runner(opened, conditions.batch, summary.preprocessing, summary.task.names)
        lowered = conditions.precision != Precision.FP32
        forms = Runners(
            teacher=torch_runner(pruned.network.traced),
            student=torch_runner(pruned.graph),
            onnx=_onnx_form(folder / files.model.path, conditions, summary),
            engine=engine,
            precision=conditions.precision,
            original=_onnx_form(folder / files.original.path, conditions, summary) if lowered else None,
        )
        progress = held.enter_context(work.screen(f"Verifying on held-out {summary.task.sample}s"))
        held.enter_context(exact(conditions.seed))
        return verify(forms, held_out_images, progress, summary.task, conditions.seed)


def compare_models(
    files: Files, deployment: Deployment, setup: MeasurementSetup, title: str, work: Workspace
) -> Comparison:
    """How much faster is the new model? Both in the same rounds."""
    with work.screen(title) as progress:
        fp32 = None if files.fp32 is None else work.folder / files.fp32.path
        return compare(work.folder / files.original.path, work.folder / files.model.path, setup, progress, fp32=fp32)


def measure_both(
    files: Files,
    deployment: Deployment,
    setup: MeasurementSetup,
    batches: list[int],
    threads: list[int],
    work: Workspace,
) -> Throughputs:
    """How many images a second do both models compute, over batches and numbers of threads?"""
    names = {ORIGINAL: files.original.path, NEW: files.model.path}
    with temporary_folder() as folder, work.screen("Measuring throughput") as progress:
        models = {key: with_any_batch(work.folder / name, folder) for key, name in names.items()}
        return Throughputs(of=measure_throughput(models, setup, batches, threads, progress))


def judge_sets(
    recovery: Recovery,
    bench: BlockBench,
    sets: list[tuple[str, ...]],
    dropped_blocks: tuple[str, ...],
    held_out_images: HeldOutImages,
    work: Workspace,
) -> Frontier:
    """What would fewer and more dropped blocks have given? dropped_blocks: the plan's."""
    recovery = replace(recovery, calibration=recovery.calibration.subsampled)  # five networks are recovered here
    calibration, network = recovery.calibration, bench.model.network
    images = evaluation_sample(held_out_images, calibration.seed)
    neighbours = []
    for names, reduction in zip(sets, bench.reductions(sets, work.screen), strict=True):
        blocks = named(recovery.blocks, names)
        weights = recovery.compared_without(blocks, work.screen, f"Recovering without {', '.join(names)}")
        form = torch_runner(Pruned(network=network, dropped=blocks, weights=weights).graph)
        how = "none" if recovery.paper else "closed form"
        neighbours.append(Neighbour(dropped=names, recovery=how, reduction_percent=reduction, form=form))
    with work.screen("Judging neighbouring sets of blocks") as progress, exact(calibration.seed):
        teacher, task = torch_runner(network.traced), network.summary.task
        points = judge_neighbours(teacher, neighbours, dropped_blocks, images, progress, task)
    return Frontier(points=points, fit_images=len(calibration.images), images=len(images))


def _onnx_form(file: Path, conditions: Conditions, network: NetworkSummary) -> Runner:
    """An ONNX file as ONNX Runtime computes it operator by operator, nothing optimised."""
    backend, at = OrtBackend(), Conditions(batch=conditions.batch, threads=conditions.threads)
    engine = backend.open(backend.compile(file, at), at, optimise=False)
    return engine_runner(engine, conditions.batch, network.preprocessing, network.task.names)
