"""Results in short, as sections: what the console prints, and what a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import confidence, count, listed, rounds
from practise_backends.results.tables import engines, savings
from practise_backends.terms import Comparison, LatencyTable
from practise_deploy.outcome import Release
from practise_deploy.report import measurements, tables
from practise_deploy.report.demands import demands
from practise_deploy.report.formatting import times
from practise_deploy.report.headline import latency_change, latency_title, quality, speed
from practise_deploy.report.rows import (
    comparison_rows,
    compiled_rows,
    latency_rows,
    plan_rows,
    preprocessing_rows,
)
from practise_deploy.report.section import Section
from practise_deploy.terms import Block, NetworkSummary, Plan, Recoverability


def inspection(blocks: Sequence[Block], network: NetworkSummary) -> Section:
    """The network and its blocks."""
    droppable = sum(block.droppable for block in blocks)
    rows = (
        ("Parameters", count(network.parameters)),
        ("MACs", f"{count(network.macs)} per {network.task.sample}"),
        ("Weights", network.weights),
        *preprocessing_rows(network.preprocessing),
        ("Blocks", f"{len(blocks)}, of which {droppable} can be dropped"),
    )
    return Section(
        name="blocks", title=network.name, rows=rows, tables=(tables.inspected(blocks),), notes=network.notes
    )


def latency(table: LatencyTable) -> Section:
    """The latency of each block on the device."""
    return Section(
        name="latency",
        title="",
        tables=(savings(table), measurements.checks(table)),
        rows=(*latency_rows(table), ("Intervals", confidence(table.baseline_ms))),
        notes=table.notes,
    )


def plan(chosen: Plan, recoverability: Sequence[Recoverability]) -> Section:
    """Which blocks are dropped, and why the others are kept."""
    searched = (tables.considered(chosen),) if chosen.considered else ()
    measured = (tables.attempts(chosen),) if chosen.attempts and not searched else ()
    return Section(
        name="plan",
        title="Plan",
        tables=(tables.choices(chosen, recoverability), *searched, *measured),
        rows=plan_rows(chosen),
        notes=chosen.notes,
    )


def comparison(measurement: Comparison | Benchmark) -> Section:
    """Two networks against each other, or one alone."""
    table = engines(measurement, files=measurement.speedup is None)
    return Section(
        name="comparison", title="", tables=(table,), rows=comparison_rows(measurement), notes=measurement.notes
    )


def _over_fp32(built: Release) -> tuple[tuple[str, str], ...]:
    """The speed-up over the original in fp32, where that in the same precision is another, or the other way round."""
    fp32 = built.bench.fp32 if built.bench else None
    precision = built.compiled.precision
    if fp32 is not None and built.bench is not None and built.plan.over_fp32:
        return (
            (f"Over the original in {precision}", f"{times(built.bench.speedup)}; the line above is over it in fp32"),
        )
    return (
        ()
        if fp32 is None
        else (("Over the original in fp32", f"{times(fp32.speedup)}; the line above is over it in {precision}"),)
    )


def release(built: Release, folder: Path) -> Section:
    """The result of a build: speed-up, loss, and files."""
    kept, won = quality(built), speed(built)
    level = confidence(built.speedup or built.plan.predicted_percent)
    rows = (
        (won.title, f"{won.text}, {level} interval"),
        *_over_fp32(built),
        (latency_title(built), latency_change(built)),
        ("Rounds", rounds(built.measured_on)),
        (kept.title, f"{kept.text} ({kept.detail})" if kept.detail else kept.text),
        ("Blocks dropped", f"{len(built.plan.dropped)}: {listed(built.plan.dropped)}"),
        ("Network", built.exported.path),
        *compiled_rows(built.compiled),
        ("Files", str(folder)),
        ("Verdict", built.verdict.sentence),
        ("Promise", built.verdict.answer.value),
    )
    required = (demands(built.gate),) if built.gate else ()
    return Section(name="release", title=built.network.name, rows=rows, tables=required, notes=built.verdict.reasons)
