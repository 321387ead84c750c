"""Every lever in one session: growing sets of dropped blocks in every precision, against the original in fp32.

Students are recovered in closed form on some of the fit images, and judged on the rest, so that the held-out images, which prove
the release, take no part in the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import Tensor

from practise_backends.choices import Precision
from practise_backends.errors import about
from practise_backends.files import temporary_folder
from practise_backends.interfaces import MeasurementSetup
from practise_backends.results.compare import measure_engines
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.terms import Interval
from practise_deploy.compute import exact
from practise_deploy.deployment.verify import LookedAt, Runner, engine_runner, look_at, torch_runner
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.loading.loaded import Network
from practise_deploy.outcome import LeverPoint, Levers
from practise_deploy.pipeline.context import BlockBench, ExportForm, Recovery, named, to_compare
from practise_deploy.pipeline.stages import Pruned, as_onnx
from practise_deploy.planning.levers import with_front
from practise_deploy.run import Workspace
from practise_deploy.settings import AUTO, TARGETS, Settings, flag_of

Blocks = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """A point as a file."""

    dropped: Blocks
    precision: Precision
    file: Path


def measure_levers(
    recovery: Recovery,
    bench: BlockBench,
    sets: tuple[Blocks, ...],
    forms: tuple[ExportForm, ...],
    fit_labels: Tensor | None,
    work: Workspace,
) -> Levers:
    """Every set in every precision: recovered, exported, measured in the same rounds, and judged on the same images.

    sets: the empty one first. bench: in fp32. forms: one for each precision, fp32 first; ranges of int8 come from the images of this fit.
    fit_labels: of the images of the recovery, None where there are none to judge by.
    Raises: InputError where the original cannot be exported; CompileError, MeasureError.
    """
    network = bench.model.network
    fit, judged = recovery.calibration.images.choice_split(recovery.calibration.seed)
    recovery = replace(recovery, calibration=replace(recovery.calibration, images=fit))
    judged = judged.to(torch.device("cpu"))
    with temporary_folder() as folder:
        made, refused = _files(recovery, network, sets, _fitted_on(forms, fit), folder, work)
        speedups, rounds, notes = _speedups(made, bench.setup, work)
        found = _judged(made, bench, judged, work)
    losses = found.losses("", [*made], None if fit_labels is None or judged.labels is None else judged.labels.numpy())
    points = (
        LeverPoint(
            dropped=point.dropped,
            precision=point.precision,
            speedup=speedups[name],
            agreement_percent=link.agreement_percent,
            loss=loss,
        )
        for (name, point), link, loss in zip(made.items(), found.links, losses, strict=True)
    )
    return Levers(
        points=with_front(tuple(points)),
        images=len(judged),
        fit_images=len(fit),
        rounds=rounds,
        refused=tuple(refused),
        notes=notes,
    )


def _fitted_on(forms: Sequence[ExportForm], fit: FitImages) -> list[ExportForm]:
    """The forms, with ranges from these images where they have any."""
    images = fit.to(torch.device("cpu"))
    return [form if form.calibration is None else replace(form, calibration=images) for form in forms]


def _files(
    recovery: Recovery,
    network: Network,
    sets: Sequence[Blocks],
    forms: Sequence[ExportForm],
    folder: Path,
    work: Workspace,
) -> tuple[dict[str, _Made], list[str]]:
    """All points as files, by name, the original in fp32 first; and why others could not be made."""
    made, refused = dict[str, _Made](), list[str]()
    for number, names in enumerate(sets):
        dropped = named(recovery.blocks, names)
        title = f"Recovering without {', '.join(names)}"
        weights = recovery.compared_without(dropped, work.screen, title) if dropped else None
        pruned = Pruned(network=network, dropped=dropped, weights=weights)
        title = f"Exporting without {', '.join(names)}" if names else "Exporting the original"
        with work.screen(f"{title} in {', '.join(form.precision for form in forms)}"), about(network.summary.name):
            model = as_onnx(pruned, forms[0])
            for form in forms:
                file = folder / f"{number}-{form.precision}.onnx"
                try:
                    onnx.save(form.lowered(model), file)
                except InputError as error:
                    refused.append(f"{_name(names, form.precision)}: {error.message}")
                    continue
                made[_name(names, form.precision)] = _Made(names, form.precision, file)
    return made, refused


def _name(names: Blocks, precision: Precision) -> str:
    if not names and precision == Precision.FP32:
        return ORIGINAL
    return f"without {', '.join(names)} in {precision}" if names else f"all blocks in {precision}"


def _speedups(
    made: dict[str, _Made], setup: MeasurementSetup, work: Workspace
) -> tuple[dict[str, Interval], int, tuple[str, ...]]:
    """How many times as fast as the original every point is, in the same rounds; their number, and notes."""
    with work.screen(f"Measuring {len(made)} networks in the same rounds") as progress:
        fields, estimates = measure_engines(
            {name: point.file for name, point in made.items()},
            to_compare(setup),
            progress,
            footprint=False,
            precisions={name: point.precision for name, point in made.items()},
        )
    return {name: estimates.speedup(name) for name in made}, fields["rounds"], fields["notes"]


def _judged(made: dict[str, _Made], bench: BlockBench, images: FitImages, work: Workspace) -> LookedAt:
    """Every point against the original, on the device."""
    network, deployment = bench.model.network, bench.deployment
    summary, batch = network.summary, deployment.conditions.batch
    runners: dict[str, Runner] = {"": torch_runner(network.traced)}
    with ExitStack() as held:
        for name, point in made.items():
            at = replace(deployment, conditions=replace(deployment.conditions, precision=point.precision))
            engine = held.enter_context(closing(at.opened(point.file)))
            runners[name] = engine_runner(engine, batch, summary.preprocessing, summary.task.names)
        progress = held.enter_context(work.screen(f"Judging {len(made)} networks on the same {summary.task.sample}s"))
        held.enter_context(exact(deployment.conditions.seed))
        return look_at(runners, [("", name) for name in made], images, progress, summary.task)


def without_part(settings: Settings) -> list[str]:
    """Notes on what was asked of one precision, where all are measured."""
    asked = [flag_of(name) for name in TARGETS if getattr(settings, name) is not None]
    asked += [] if settings.precision in (AUTO, Precision.FP32) else ["--precision"]
    return (
        [f"{' and '.join(asked)}: of no part here, where every precision and growing sets of blocks are measured"]
        if asked
        else []
    )
