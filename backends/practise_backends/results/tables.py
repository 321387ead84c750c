"""The tables of a measurement, which both programs and the report show, as columns of text and as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import ABSENT, interval, missing, number, quantity
from practise_backends.terminal import one_line
from practise_backends.terms import (
    WALL,
    Comparison,
    EngineFigures,
    LatencyTable,
    Saving,
    Scenario,
    Throughput,
)

_NOT_MEASURED = "not measured here"
_UNSUPPORTED = "not determined by these samples"
_PAIRED = (
    " The median round is the same for both networks, so that their p50 differ by the speed-up. The sessions of both were loaded "
    "together and took turns; alone an engine may be a little faster."
)
_MARKED = re.compile(r"([\\`*_{}\[\]|~$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text. left: the columns of text rather than numbers. strong: the rows to highlight."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)
    strong: tuple[int, ...] = ()
    note: str = ""


def engines(measurement: Comparison | Benchmark, *, files: bool = False) -> Table:
    """The figures of the engines, one column each. files: and where they lie."""
    figures, unit, alone = (
        (*measurement.engines, *_in_fp32(measurement)),
        milliseconds(measurement.timed_by),
        measurement.speedup is None,
    )
    rows = (
        *((("File", *(engine.file for engine in figures)),) if files else ()),
        (f"p50, {unit}", *(interval(engine.p50_ms, absent=_UNSUPPORTED) for engine in figures)),
        (f"p90, {unit}", *(interval(engine.p90_ms, absent=_UNSUPPORTED) for engine in figures)),
        (f"p99, {unit}", *(interval(engine.p99_ms, absent=_UNSUPPORTED) for engine in figures)),
        ("Throughput, images/s", *(number(engine.throughput_per_s) for engine in figures)),
        ("Load, ms", *(quantity(engine.load_ms, "", absent=_NOT_MEASURED) for engine in figures)),
        ("First run, ms", *(quantity(engine.first_run_ms, "", absent=_NOT_MEASURED) for engine in figures)),
        (
            "Peak memory, MB",
            *(quantity(engine.peak_memory_mb, "", absent=_NOT_MEASURED) for engine in figures),
        ),
        *_parts(figures),
        ("File, MB", *(number(engine.file_mb) for engine in figures)),
        ("Precision", *(_precision(engine) for engine in figures)),
    )
    return Table(
        title="One network in rounds" if alone else "Engines in paired rounds",
        head=("Figure", *(engine.name for engine in figures)),
        rows=rows,
        note="Discarded rounds do not count. p50 is the latency in the median round; the other percentiles are of single runs. Brackets "
        "hold the interval." + ("" if alone else _PAIRED),
    )


def _in_fp32(measurement: Comparison | Benchmark) -> tuple[EngineFigures, ...]:
    """The original in fp32, where it ran in the same rounds."""
    fp32 = measurement.fp32 if isinstance(measurement, Comparison) else None
    return () if fp32 is None else (fp32.engine,)


def throughput(points: Sequence[Throughput]) -> Table:
    """Images a second by batch and threads."""
    return Table(
        title="Throughput by batch and threads",
        head=("Batch", "Threads", "Engine", "Images/s", "Latency of one run, ms"),
        rows=tuple(
            (
                f"{point.batch:,}",
                f"{point.threads:,}",
                point.engine,
                interval(point.images_per_s, absent=point.refused or _NOT_MEASURED),
                interval(point.latency_ms, absent="" if point.refused else _NOT_MEASURED)
                + ("" if point.timed_by == WALL else f", {point.timed_by}"),
            )
            for point in sorted(points, key=lambda point: (point.batch, point.threads))
        ),
        left=(0, 2),
        note="Requests follow one another; latency is that of one run of the whole batch in the median round.",
    )


def scenarios(runs: Sequence[Scenario]) -> Table:
    """The results of MLPerf LoadGen."""
    return Table(
        title="MLPerf LoadGen",
        head=("Scenario", "Engine", "Figure", "Queries", "Latencies, ms", "Valid", "Settings"),
        rows=tuple(
            (
                run.scenario,
                run.engine,
                f"{number(run.metric)} {run.unit}",
                f"{run.queries:,}",
                "; ".join(f"{name} {number(value)}" for name, value in run.latency_ms.items()) or ABSENT,
                "yes" if run.valid else f"no: {'; '.join(run.problems) or 'no reason given'}",
                "; ".join(f"{name} {value}" for name, value in run.settings.items()) or ABSENT,
            )
            for run in runs
        ),
        left=(0, 1, 4, 5, 6),
        note="Valid is LoadGen's own word under these settings; its durations are shorter than a submission's.",
    )


def savings(table: LatencyTable) -> Table:
    """The saving of each block on the device."""
    return Table(
        title=f"Saved without each block on {table.device.name}",
        head=("Block", "Saving, ms", "Reduction, %", "Latency class", "Significant"),
        rows=tuple(
            (
                saving.block,
                *saved(saving),
                str(saving.latency_class),
                ("yes" if saving.distinguishable else "no") + ("" if saving.measured else ", as its class"),
            )
            for saving in table.savings
        ),
        left=(0, 4),
        note="Brackets hold the interval; of a latency class one block and a twin are measured, and the others share their figure.",
    )


def saved(saving: Saving | None) -> tuple[str, str]:
    """What a block costs, in milliseconds and in percent of the latency."""
    if saving is None:
        return missing("not measured"), missing("not measured")
    return interval(saving.saving_ms), interval(saving.reduction_percent)


def milliseconds(timed_by: str) -> str:
    """The unit of latencies, with their clock where that is not the wall clock."""
    return "ms" if timed_by == WALL else f"ms of {timed_by}"


def in_columns(table: Table) -> str:
    """The rows as plain text, in columns of equal width."""
    lines = [[one_line(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in lines)
    return "\n".join(row.rstrip() for row in padded)


def in_markdown(table: Table) -> str:
    """The rows as GitHub's Markdown."""
    rules = [":--" if column in table.left else "--:" for column in range(len(table.head))]
    head, *rows = [[escaped(cell) or " " for cell in row] for row in (table.head, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKED.sub(r"\\\1", html.escape(one_line(text), quote=False))


def _parts(figures: Sequence[EngineFigures]) -> Iterator[tuple[str, ...]]:
    """A row for every part of a run that an engine reports."""
    for name in dict.fromkeys(part for engine in figures for part in engine.parts_ms):
        title = name.removesuffix("_ms").replace("_", " ").capitalize()
        yield (
            f"{title}, ms",
            *(interval(engine.parts_ms.get(name), absent=_NOT_MEASURED) for engine in figures),
        )


def _precision(engine: EngineFigures) -> str:
    """The claimed precision, and the share of layers for which the file proves it."""
    if engine.precision_share is None:
        return f"{engine.precision}, as asked: the file does not tell"
    return f"{engine.precision} in {number(100 * engine.precision_share)}% of the layers"
