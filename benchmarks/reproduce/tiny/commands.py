"""The command line of the grid: latency, pilot, list, run, sets, summary."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from practise_deploy.compute import has_fast_bf16, pick_device

from . import bench, narrowing
from .grid import GRIDS, METHODS, SCORES, Unit, units_of
from .listing import listed
from .pilot import write_pilot
from .shelf import Shelf
from .subjects import DATA, ROOT, Subject, folder_of, load_subject
from .summary import write_summary
from .work import Place, compute

RESULTS = ROOT / "benchmarks" / "results" / "tiny_sets"


def main() -> int:
    """Do what the command line says."""
    options = _parser().parse_args()
    if options.verb not in ("list", "summary"):
        options.data = folder_of(options.data)
    units = units_of(
        options.grid, networks=options.network, methods=options.method, images=options.images, seeds=options.seed
    )
    if options.verb == "list":
        print(listed(units, _shelf(options)))
    elif options.verb == "summary":
        write_summary(options.grid, _shelf(options))
    elif options.verb == "latency":
        _latency(units, options)
    elif options.verb == "sets":
        _sets(units, options)
    elif options.verb == "pilot":
        write_pilot(_place(options))
    else:
        return _run(options, units)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Accuracy at equal measured latency with tiny sets.")
    parser.add_argument("verb", choices=("latency", "sets", "pilot", "list", "run", "summary"))
    parser.add_argument("--grid", choices=tuple(GRIDS), default="small")
    parser.add_argument("--network", nargs="*", default=())
    parser.add_argument("--method", nargs="*", default=(), choices=(*METHODS, SCORES))
    parser.add_argument("--images", nargs="*", type=int, default=())
    parser.add_argument("--seed", nargs="*", type=int, default=())
    parser.add_argument("--data", type=Path, default=DATA, help="networks and images")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=1, help="processes; with several, each has one thread")
    parser.add_argument("--compute", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of training steps (default: bf16 where the processor has it)"
    )
    return parser


def _shelf(options: argparse.Namespace) -> Shelf:
    return Shelf(options.results, Path(tempfile.gettempdir()) / "practise-tiny-sets")


def _place(options: argparse.Namespace) -> Place:
    device = pick_device(options.compute)
    fast = has_fast_bf16(device) if options.precision is None else options.precision == "bf16"
    return Place(
        shelf=_shelf(options), data=options.data, device=device, dtype=torch.bfloat16 if fast else torch.float32
    )


def _run(options: argparse.Namespace, units: list[Unit]) -> int:
    if options.jobs == 1:
        return _work(options, units)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(options, units)) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(abs(worker.exitcode or 0) for worker in workers)


def _work(options: argparse.Namespace, units: list[Unit]) -> int:
    """Take units until none is left to take; a unit that fails is told and left out."""
    place, failed = _place(options), 0
    for unit in units:
        if place.shelf.done(unit):
            continue
        began = time.monotonic()
        try:
            record = place.shelf.get(unit, lambda each: compute(each, place))
        except Exception as error:
            failed += 1
            print(f"{unit.name}: FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        if record is not None:
            print(f"{unit.name}: {_told(record)}, {time.monotonic() - began:.0f} s", flush=True)
    return int(failed > 0)


def _told(record: dict) -> str:
    if "scores" in record:
        return "scored"
    student = record["student"]
    cut = record["measured_percent"] or record["predicted_percent"]
    what = ",".join(record["dropped"]) if record["dropped"] else "filters"
    return f"{100 * student['correct'] / student['images']:.2f}% at {cut['estimate']:.1f}% less latency ({what})"


def _latency(units: list[Unit], options: argparse.Namespace) -> None:
    """Measure what is missing: tables, then filters for every reduction."""
    for network in dict.fromkeys(unit.network for unit in units):
        subject = load_subject(network, options.data)
        if not bench.table_path(options.results, network).exists():
            bench.measure_table(subject, options.results)
        reductions = {unit.reduction for unit in units if unit.network == network and unit.reduction}
        _filters(subject, sorted(reductions), options.results)


def _filters(subject: Subject, reductions: list[int], results: Path) -> None:
    """Find the filters that are missing; what the widths save and harm is measured once for all of a network's."""
    missing = [each for each in reductions if not bench.filters_path(results, subject.name, each).exists()]
    ladders = narrowing.measure_ladders(subject) if missing else []
    for reduction in missing:
        table = bench.table_of(results, subject.name)
        found = narrowing.match_filters(subject, table, reduction, ladders)
        bench.write_filters(results, found)
        print(subject.name, reduction, found["widths"], found["reduction_percent"], found["reference_percent"])


def _sets(units: list[Unit], options: argparse.Namespace) -> None:
    """Measure every set of blocks that the units which are done dropped."""
    shelf = _shelf(options)
    for network in dict.fromkeys(unit.network for unit in units):
        records = [record for unit in units if unit.network == network and (record := shelf.read(unit))]
        if sets := bench.sets_of(records):
            bench.measure_sets(load_subject(network, options.data), sets, options.results)
