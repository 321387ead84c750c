"""Comparisons and benchmarks for people and for machines that read tests: plain text, Markdown, JUnit XML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from practise_backends.errors import BackendError
from practise_backends.results.bench import Benchmark
from practise_backends.results.requirement import Requirement
from practise_backends.terminal import clean, one_line
from practise_backends.terms import (
    WALL,
    Comparison,
    EngineFigures,
    Environment,
    Interval,
    LatencyTable,
    Scenario,
    Throughput,
)

ABSENT = "-"
_XML = '<?xml version="1.0" encoding="utf-8"?>\n'
_SUITE = "practise-measure compare"
_MARKED = re.compile(r"([\\`*_{}\[\]<>|~$&])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison_text(comparison: Comparison, requirement: Requirement) -> str:
    """A comparison as plain text."""
    outcome = f"{'passed' if requirement.kept else 'FAILED'}: {requirement.sentence}"
    return (
        "\n".join(
            [
                in_columns(figures(comparison)),
                "",
                *_speedup(comparison),
                *_provenance(comparison),
                "",
                outcome,
            ]
        )
        + "\n"
    )


def benchmark_text(benchmark: Benchmark) -> str:
    """A benchmark as plain text."""
    lines = [in_columns(figures(benchmark)), ""]
    for grid in (throughput(benchmark.throughput), scenarios(benchmark.scenarios)):
        lines += [in_columns(grid), ""] if grid.rows else []
    lines += _speedup(benchmark.comparison) if benchmark.comparison else []
    return "\n".join([*lines, *_provenance(benchmark)]) + "\n"


def comparison_markdown(comparison: Comparison, requirement: Requirement) -> str:
    """A comparison as Markdown that GitHub shows as a table."""
    mark = "passed" if requirement.kept else "failed"
    notes = [f"- {_escaped(line)}" for line in (*_speedup(comparison), *_provenance(comparison))]
    outcome = f"**{mark}**: {_escaped(requirement.sentence)}"
    return "\n".join([outcome, "", _marked(figures(comparison)), "", *notes]) + "\n"


def benchmark_markdown(benchmark: Benchmark) -> str:
    """A benchmark as Markdown that GitHub shows as tables."""
    lines = [_marked(figures(benchmark)), ""]
    for grid in (throughput(benchmark.throughput), scenarios(benchmark.scenarios)):
        lines += [_marked(grid), ""] if grid.rows else []
    notes = (*(_speedup(benchmark.comparison) if benchmark.comparison else ()), *_provenance(benchmark))
    return "\n".join([*lines, *(f"- {_escaped(line)}" for line in notes)]) + "\n"


def requirement_junit(comparison: Comparison, requirement: Requirement) -> str:
    """The requirement as one test of a JUnit report, for a server that shows tests."""
    properties = {
        "device": comparison.device.name,
        "fingerprint": comparison.device.fingerprint,
        "backend": comparison.backend,
        "conditions": conditions(comparison),
        "speedup": f"{comparison.speedup.estimate:.6f}",
        "speedup_low": f"{comparison.speedup.low:.6f}",
        "speedup_high": f"{comparison.speedup.high:.6f}",
        "confidence": f"{comparison.speedup.confidence:g}",
        "verdict": comparison.verdict,
        "rounds": str(comparison.rounds),
        "discarded": str(len(comparison.discarded)),
        "timed_by": comparison.timed_by,
        "noise_floor": ratio(comparison.aa_ratio),
    }
    first, second = (Path(engine.file).name for engine in (comparison.engines[0], comparison.engines[-1]))
    problem = None if requirement.kept else ("failure", "TooSlow", requirement.sentence)
    seconds = comparison.environment.seconds if comparison.environment else 0.0
    name = f"{second} against {first}: {requirement.name}"
    return _junit(name, problem, comparison_text(comparison, requirement), properties, seconds)


def failed_junit(before: Path, after: Path, error: BackendError) -> str:
    """A comparison that could not be made, as a test in error."""
    message = f"{error.message}; {error.remedy}" if error.remedy else error.message
    return _junit(f"{after.name} against {before.name}", ("error", type(error).__name__, message), message)


def figures(measurement: Comparison | Benchmark) -> Grid:
    """The engines' figures side by side, one engine a column."""
    engines, unit = measurement.engines, milliseconds(measurement.timed_by)
    rows = (
        ("file", *(engine.file for engine in engines)),
        (f"p50, {unit}", *(figure(engine.p50_ms) for engine in engines)),
        (f"p90, {unit}", *(figure(engine.p90_ms) for engine in engines)),
        (f"p99, {unit}", *(figure(engine.p99_ms) for engine in engines)),
        ("images/s, one run after another", *(digits(engine.throughput_per_s) for engine in engines)),
        ("load, ms", *(digits(engine.load_ms) for engine in engines)),
        ("first run, ms", *(digits(engine.first_run_ms) for engine in engines)),
        ("peak memory, MB", *(digits(engine.peak_memory_mb) for engine in engines)),
        *_parts(engines),
        ("file, MB", *(digits(engine.file_mb) for engine in engines)),
        ("precision", *(_precision(engine) for engine in engines)),
    )
    return Grid(head=("", *(engine.name for engine in engines)), rows=rows)


def milliseconds(timed_by: str) -> str:
    """The unit of latencies, with their clock where that is not the wall clock."""
    return "ms" if timed_by == WALL else f"ms of {timed_by}"


def _parts(engines: Sequence[EngineFigures]) -> Iterator[tuple[str, ...]]:
    """A row for every part of a run that an engine reports."""
    for name in dict.fromkeys(part for engine in engines for part in engine.parts_ms):
        label = name.removesuffix("_ms").replace("_", " ")
        yield (f"{label}, ms", *(figure(engine.parts_ms.get(name)) for engine in engines))


def throughput(points: Sequence[Throughput]) -> Grid:
    """Images a second by batch and threads."""
    head = ("batch", "threads", "network", "images/s", "one run, ms")
    rows = tuple(
        (
            str(point.batch),
            str(point.threads),
            point.engine,
            point.refused or figure(point.images_per_s),
            figure(point.latency_ms) + ("" if point.timed_by == WALL else f", {point.timed_by}"),
        )
        for point in points
    )
    return Grid(head=head, rows=rows)


def scenarios(runs: Sequence[Scenario]) -> Grid:
    """What MLPerf LoadGen says."""
    head = ("scenario", "network", "figure", "queries", "latencies, ms", "valid")
    rows = tuple(
        (
            run.scenario,
            run.engine,
            f"{digits(run.metric)} {run.unit}",
            str(run.queries),
            ", ".join(f"{name} {digits(value)}" for name, value in run.latency_ms.items()) or ABSENT,
            "yes" if run.valid else f"no: {'; '.join(run.problems)}",
        )
        for run in runs
    )
    return Grid(head=head, rows=rows)


def conditions(measurement: Comparison | Benchmark | LatencyTable) -> str:
    """What the latency depends on."""
    settings = measurement.conditions
    clock = settings.clock.replace("_", " ")
    graph = ", CUDA graph" if settings.cuda_graph else ""
    package = measurement.device.facts.get("cuda_package")
    through = f", through {one_line(package)}" if package else ""
    return f"batch {settings.batch}, {settings.threads} thread(s), {settings.precision}, {clock} time{graph}{through}"


def _speedup(comparison: Comparison) -> tuple[str, ...]:
    return (
        f"speed-up: {ratio(comparison.speedup)}, {100 * comparison.speedup.confidence:g}% interval: {comparison.verdict}",
    )


def _provenance(measurement: Comparison | Benchmark) -> tuple[str, ...]:
    """How the figures were measured, and how far they can be trusted."""
    return (
        f"noise floor, the first network against itself: {ratio(measurement.aa_ratio)}",
        f"two sessions of one file differ by {digits(measurement.session_percent)}% (standard deviation); "
        f"{measurement.sessions} sessions of each were measured",
        f"{measurement.device.name}, backend {measurement.backend}, {conditions(measurement)}",
        f"{rounds(measurement)}; stopped because {measurement.stopped_because}",
        *disturbance(measurement.environment),
        *(f"note: {note}" for note in measurement.notes),
    )


def rounds(measurement: Comparison | Benchmark | LatencyTable) -> str:
    """How many rounds were run, and how many of them were discarded."""
    return f"{len(measurement.discarded):,} of {measurement.rounds:,} rounds discarded"


def disturbance(environment: Environment | None) -> Iterable[str]:
    """Load, steal and throttling during the measurement, where there was any."""
    if environment is None:
        return
    if environment.load is not None:
        yield f"load average before and after: {environment.load[0]:.2f}, {environment.load[1]:.2f}"
    stolen = environment.steal_percent or 0
    stops = (environment.quota_stops or 0) + (environment.heat_stops or 0)
    if stolen or stops:
        yield f"{stolen:.1f}% of the time was stolen; a quota or heat stopped the processor {stops} time(s)"


def in_columns(grid: Grid) -> str:
    """Columns of equal width."""
    lines = [[one_line(cell) for cell in row] for row in (grid.head, *grid.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in lines)
    return "\n".join(row.rstrip() for row in padded)


def _marked(grid: Grid) -> str:
    """The table in GitHub's Markdown."""
    lines = [grid.head, *grid.rows]
    rows = ["| " + " | ".join(_escaped(cell) or " " for cell in row) + " |" for row in lines]
    return "\n".join([rows[0], "|" + " --- |" * len(grid.head), *rows[1:]])


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKED.sub(r"\\\1", one_line(text))


def _junit(
    name: str,
    problem: tuple[str, str, str] | None,
    text: str,
    properties: Mapping[str, str] | None = None,
    seconds: float = 0.0,
) -> str:
    """One test suite of one test. problem: the element that says so, its type and its message."""
    counted = {kind: str(int(problem is not None and problem[0] == kind)) for kind in ("failure", "error")}
    totals = {"tests": "1", "failures": counted["failure"], "errors": counted["error"]}
    timed = {"time": f"{seconds:.3f}"}
    suites = ElementTree.Element("testsuites", totals | timed)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _SUITE, "skipped": "0"} | totals | timed)
    listed = ElementTree.SubElement(suite, "properties")
    for key, value in (properties or {}).items():
        ElementTree.SubElement(listed, "property", {"name": key, "value": clean(value)})
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": _SUITE.replace(" ", "."), "name": clean(name)} | timed
    )
    if problem is not None:
        kind, sort, message = problem
        element = ElementTree.SubElement(case, kind, {"type": sort, "message": clean(message)})
        element.text = clean(message)
    ElementTree.SubElement(case, "system-out").text = clean(text)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False).join((_XML, "\n"))


def ratio(interval: Interval) -> str:
    """A ratio with its interval."""
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def figure(interval: Interval | None) -> str:
    """A figure with its interval, or a dash where the sample cannot support it."""
    if interval is None:
        return ABSENT
    return f"{digits(interval.estimate)} [{digits(interval.low)}, {digits(interval.high)}]"


def digits(value: float | None) -> str:
    """Four digits, at least."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _precision(engine: EngineFigures) -> str:
    """The claimed precision, and the share of layers for which the file proves it."""
    if engine.precision_share is None:
        return f"{engine.precision}, as asked: the file does not tell"
    return f"{engine.precision} in {100 * engine.precision_share:.0f}% of the layers"
