"""The functions of the API. Each is a command by another name: what is computed, kept and refused is the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from practise_backends.cli.commands import compare_files
from practise_backends.files import temporary_folder
from practise_deploy.api.comparing import OF_COMPARISON, Exporter, check_about_modules, options_of, settings_of_modules
from practise_deploy.api.results import Comparison, Frontier, Inspection, LatencyTable, Plan, Release, shown
from practise_deploy.api.session import Request, no_device, process_wide, session
from practise_deploy.api.words import SETTINGS, in_python
from practise_deploy.deployment.target import backend_or_table
from practise_deploy.pipeline.checks import check_levers
from practise_deploy.progress import ProgressDisplay

Network = nn.Module | str | os.PathLike[str]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _listing(settings: Mapping[str, str]) -> Callable[[_Function], _Function]:
    """Lists settings in a function's documentation."""

    def documented(function: _Function) -> _Function:
        lines = (f"    {name}: {in_python(text)}" for name, text in settings.items())
        function.__doc__ = "\n".join([f"{function.__doc__}".rstrip(), "", "    Settings:", *lines])
        return function

    return documented


@_listing(SETTINGS)
def inspect(network: Network, images: Any = None, *, progress: bool = True, **settings: Any) -> Inspection:
    """Find the network's residual blocks, and why some cannot be dropped. Nothing is measured or written.

    network: a torch.nn.Module, which stays as it is, or a name or path as on the command line.
    images: for their size, or for the names and shapes of the inputs of a network that takes no images.
    """
    request = Request(network=network, images=images, keywords=settings, progress=progress)
    with session(request, no_device, structure_only=True) as running:
        context = running.build.context
        running.tell(context.network.summary.notes)
        return Inspection(network=context.network.summary, blocks=context.blocks)


@_listing(SETTINGS)
def measure_latency(network: Network, images: Any = None, *, progress: bool = True, **settings: Any) -> LatencyTable:
    """Measure what every block costs on the device. images: as in `inspect`.

    network: as in `inspect`. Raises: Refusal.
    """
    request = Request(network=network, images=images, keywords=settings, progress=progress)
    with session(request, structure_only=True) as running:
        _ = running.build.context.candidates  # refused before anything is measured
        with running.recorded():
            return shown(LatencyTable, running.build.latency)


@_listing(SETTINGS)
def plan(network: Network, images: Any = None, *, progress: bool = True, **settings: Any) -> Plan:
    """Choose the blocks to drop: measure, score, and verify sets of blocks; nothing is finetuned.

    network, images: as in `build`. Raises: TargetOutOfReach, and any other Refusal.
    """
    request = Request(network=network, images=images, keywords=settings, progress=progress)
    with session(request, backend_or_table) as running:
        build = running.build
        build.check(device=build.context.settings.latency_table is None)
        with running.recorded():
            build = build.planned
            return shown(Plan, build.reached_plan, recoverability=build.recoverability.of)


@_listing(SETTINGS)
def frontier(network: Network, images: Any = None, *, progress: bool = True, **settings: Any) -> Frontier:
    """Measure growing sets of dropped blocks in every precision, all in the same rounds, against the original in fp32.

    network, images: as in `build`, whose precision="auto" builds one of the points. Raises: Refusal.
    """
    request = Request(network=network, images=images, keywords=settings, progress=progress)
    with session(request) as running:
        made = running.build
        check_levers(made.context)
        made.check()
        with running.recorded():
            return shown(
                Frontier,
                made.measured_levers,
                network=made.context.network.summary,
                max_drop=made.context.settings.most_points_lost,
            )


@_listing(SETTINGS)
def build(network: Network, images: Any = None, *, progress: bool = True, **settings: Any) -> Release:
    """Make the network faster: measure, plan, recover, export, verify, measure again, and write a report.

    The run folder `out` remembers finished stages: the same call continues there. A broken promise is no error: see `Release.kept`.

    network: a torch.nn.Module, which stays as it is, or a name or path as on the command line.
    images: arrays or tensors, (images, labels), a Dataset, a DataLoader, PIL images, or a path; eval likewise, with labels.
    progress: False for silence.
    Raises: InputError, TargetOutOfReach, EnvironmentProblem, and any other Refusal.
    """
    request = Request(network=network, images=images, keywords=settings, progress=progress)
    with session(request) as running:
        made = running.build
        made.check()
        with running.recorded():
            made = made.chosen
            return Release(record=made.release, folder=made.context.run.folder, _pruned=made.pruned)


@_listing(OF_COMPARISON)
def compare(a: Network | Release, b: Network | Release, *, progress: bool = True, **settings: Any) -> Comparison:
    """Measure two networks in the same rounds: is `b` faster than `a`?

    a, b: ONNX files or engines, run folders or releases (their new networks), or modules, which are exported to ONNX first.
    Raises: Refusal.
    """
    with ExitStack() as held:
        display, notes = ProgressDisplay(quiet=not progress), list[str]()
        held.enter_context(process_wide(0))
        options = options_of(settings)
        check_about_modules(settings, a, b)
        exporter = Exporter(
            folder=held.enter_context(temporary_folder()),
            settings=settings_of_modules(settings),
            display=display,
            notes=notes,
        )
        files = exporter.file_of(a, "a"), exporter.file_of(b, "b")
        bar = held.enter_context(display.progress("Measuring both"))
        comparison, requirement = compare_files(*files, options, bar)
        comparison = replace(comparison, notes=(*comparison.notes, *notes))
        return shown(Comparison, comparison, requirement=requirement)
