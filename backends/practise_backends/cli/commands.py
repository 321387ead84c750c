"""What `practise-measure` does, and `practise-deploy` in its commands over files: options in, records and files out."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from practise_backends.choices import Precision
from practise_backends.errors import BackendError, CompileError
from practise_backends.files import why_no_file, write_file
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.options import BenchOptions, CompareOptions, Measuring, Options
from practise_backends.results.bench import Benchmark, bench
from practise_backends.results.bundle import TABLE, Kit, measure_kit, read_kit
from practise_backends.results.compare import compare
from practise_backends.results.documents import samples_path, write_table
from practise_backends.results.render import (
    benchmark_markdown,
    comparison_markdown,
    failed_junit,
    requirement_junit,
)
from practise_backends.results.requirement import Requirement, require
from practise_backends.results.table import RANKING_SHARE
from practise_backends.runtimes import catalog
from practise_backends.terms import Arrays, Comparison, Conditions, LatencyTable, StoppingRule

_SPARE = 0.2


def compare_files(
    before: Path, after: Path, options: CompareOptions, progress: Progress | None = None
) -> tuple[Comparison, Requirement]:
    """Compare two networks, judge the requirement, and write the files that were asked for.

    As JUnit a failure is written first, so that no earlier success stays there, however the comparison ends.
    Raises: BackendError; OSError where a file cannot be written.
    """
    if options.junit is not None:
        unfinished = BackendError(f"the comparison with {after} did not end", remedy="run it again")
        write_file(options.junit, failed_junit(before, after, unfinished))
    try:
        _check_files(before, after)
        check_places(options.markdown, options.samples)
        comparison = compare(before, after, _decisive(options), progress, footprint=options.footprint)
    except BackendError as error:
        if options.junit is not None:
            write_file(options.junit, failed_junit(before, after, error))
        raise
    requirement = require(comparison, options.min_speedup)
    if options.markdown is not None:
        write_file(options.markdown, comparison_markdown(comparison, requirement))
    if options.junit is not None:
        write_file(options.junit, requirement_junit(comparison, requirement))
    _write_samples(options, comparison.samples)
    return comparison, requirement


def bench_file(file: Path, options: BenchOptions, progress: Progress | None = None) -> Benchmark:
    """Measure one network, and write the files that were asked for.

    Raises: BackendError.
    """
    _check_files(file, *([options.against] if options.against is not None else []))
    check_places(options.markdown, options.samples)
    benchmark = bench(file, file_setup(options), options, progress)
    if options.markdown is not None:
        write_file(options.markdown, benchmark_markdown(benchmark))
    _write_samples(options, benchmark.samples)
    return benchmark


def table_of_kit(
    folder: Path, overrides: Mapping[str, Any], output: Path | None = None, progress: Progress | None = None
) -> tuple[LatencyTable, Kit, Path]:
    """Measure a kit as its maker asked, or as `overrides` say (fields of `Measuring`), and write the table.

    output: where it goes, its raw samples beside it; None is `latency.json` in the kit.
    Raises: BackendError; OSError where the table cannot be written.
    """
    place = output or folder / TABLE
    kit = read_kit(folder)
    for link in (file for file in (place, samples_path(place)) if output is None and file.is_symlink()):
        raise BackendError(f"{link} is a link", remedy="say where the table goes: --output FILE.json")
    options = {**kit.asked.options, **overrides.get("options", {})}
    setup = _kit_setup(kit, replace(kit.asked, **{**overrides, "options": options}))
    check_places(place, samples_path(place))
    table = measure_kit(kit, folder, setup, progress)
    write_table(table, place)
    return table, kit, place


def _kit_setup(kit: Kit, options: Measuring) -> MeasurementSetup:
    """The measurement setup of a kit, whose networks have a fixed batch and precision."""
    if options.batch != kit.input_shape[0]:
        raise BackendError(
            f"the networks of this kit have batch {kit.input_shape[0]}, not {options.batch}",
            remedy=f"leave --batch out, or make another kit: practise-deploy kit ... --batch {options.batch}",
        )
    setup = setup_of(options, kit.precision)
    return replace(setup, stopping_rule=replace(setup.stopping_rule, relative_half_width=RANKING_SHARE))


def file_setup(options: Options) -> MeasurementSetup:
    """The measurement setup of a command over files.

    Raises: BackendMissing; BackendError where the backend lacks an option.
    """
    setup, shapes = setup_of(options, options.precision), dict(options.shape)
    rule = replace(setup.stopping_rule, sessions=options.sessions)
    return replace(setup, stopping_rule=rule, shapes=shapes)


def setup_of(options: Measuring, precision: Precision) -> MeasurementSetup:
    """The backend, conditions and stopping rule of these options; warm-up takes a tenth of the budget, at most 2 s.

    Raises: BackendMissing; BackendError where the backend lacks an option.
    """
    backend = catalog.load_backend(options.backend, options.options)
    mode = catalog.RunMode(precision=precision, clock=options.clock, cuda_graph=options.cuda_graph)
    catalog.check_run_mode(backend, mode)
    conditions = Conditions(
        batch=options.batch,
        threads=options.threads,
        precision=precision,
        clock=options.clock or backend.capabilities.clocks[0],
        cuda_graph=options.cuda_graph,
        seed=options.seed,
    )
    rule = StoppingRule(
        budget_s=options.measure_budget_s,
        warmup_s=min(2.0, options.measure_budget_s / 10),
        keep_throttled=options.keep_throttled,
    )
    return MeasurementSetup(backend=backend, conditions=conditions, stopping_rule=rule)


def _decisive(options: CompareOptions) -> MeasurementSetup:
    """Where a limit is asked for, it is enough to know on which side of it the speed-up is, with a fifth to spare."""
    setup = file_setup(options)
    if options.min_speedup is None:
        return setup
    rule = replace(setup.stopping_rule, relative_half_width=_SPARE, decision_boundary=1 / options.min_speedup)
    return replace(setup, stopping_rule=rule)


def _check_files(*files: Path) -> None:
    """Refuse what is no file that could be read."""
    for path in files:
        if problem := why_no_file(path):
            raise CompileError(problem, remedy="give the path of a network's file: .onnx, .ort or .engine")


def check_places(*places: Path | None) -> None:
    """Refuse a place that cannot be written before anything is measured."""
    for path in places:
        if path is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        is_other = path.exists() and not path.is_file()  # a pipe or a device is written to as it is
        if not os.access(path if is_other else Path(os.path.realpath(path)).parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _write_samples(options: Options, samples: Arrays) -> None:
    """The raw samples, where they were asked for."""
    if options.samples is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **samples)
        write_file(options.samples, buffer.getvalue())
