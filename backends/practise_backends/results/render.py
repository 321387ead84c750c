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


def comparison_text(found: Comparison, requirement: Requirement) -> str:
    """A comparison as plain text."""
    said = f"{'passed' if requirement.kept else 'FAILED'}: {requirement.sentence}"
    return "\n".join([in_columns(figures(found)), "", *_speedup(found), *_remarks(found), "", said]) + "\n"


def benchmark_text(found: Benchmark) -> str:
    """A benchmark as plain text."""
    lines = [in_columns(figures(found)), ""]
    for grid in (throughput(found.throughput), scenarios(found.scenarios)):
        lines += [in_columns(grid), ""] if grid.rows else []
    lines += _speedup(found.comparison) if found.comparison else []
    return "\n".join([*lines, *_remarks(found)]) + "\n"


def comparison_markdown(found: Comparison, requirement: Requirement) -> str:
    """A comparison as Markdown that GitHub shows as a table."""
    mark = "passed" if requirement.kept else "failed"
    remarks = [f"- {_escaped(line)}" for line in (*_speedup(found), *_remarks(found))]
    said = f"**{mark}**: {_escaped(requirement.sentence)}"
    return "\n".join([said, "", _marked(figures(found)), "", *remarks]) + "\n"


def benchmark_markdown(found: Benchmark) -> str:
    """A benchmark as Markdown that GitHub shows as tables."""
    lines = [_marked(figures(found)), ""]
    for grid in (throughput(found.throughput), scenarios(found.scenarios)):
        lines += [_marked(grid), ""] if grid.rows else []
    told = (*(_speedup(found.comparison) if found.comparison else ()), *_remarks(found))
    return "\n".join([*lines, *(f"- {_escaped(line)}" for line in told)]) + "\n"


def requirement_junit(found: Comparison, requirement: Requirement) -> str:
    """The requirement as one test of a JUnit report, for a server that shows tests."""
    facts = {
        "device": found.device.name,
        "fingerprint": found.device.fingerprint,
        "backend": found.backend,
        "conditions": conditions(found),
        "speedup": f"{found.speedup.estimate:.6f}",
        "speedup_low": f"{found.speedup.low:.6f}",
        "speedup_high": f"{found.speedup.high:.6f}",
        "confidence": f"{found.speedup.confidence:g}",
        "verdict": found.verdict,
        "rounds": str(found.rounds),
        "discarded": str(len(found.discarded)),
        "timed_by": found.timed_by,
        "noise_floor": ratio(found.aa_ratio),
    }
    first, second = (Path(engine.file).name for engine in (found.engines[0], found.engines[-1]))
    problem = None if requirement.kept else ("failure", "TooSlow", requirement.sentence)
    seconds = found.environment.seconds if found.environment else 0.0
    name = f"{second} against {first}: {requirement.name}"
    return _junit(name, problem, comparison_text(found, requirement), facts, seconds)


def failed_junit(before: Path, after: Path, error: BackendError) -> str:
    """A comparison that could not be made, as a test in error."""
    said = f"{error.message}; {error.remedy}" if error.remedy else error.message
    return _junit(f"{after.name} against {before.name}", ("error", type(error).__name__, said), said)


def figures(found: Comparison | Benchmark) -> Grid:
    """The engines' figures side by side, one engine a column."""
    engines, unit = found.engines, milliseconds(found.timed_by)
    rows = (
        ("file", *(one.file for one in engines)),
        (f"p50, {unit}", *(figure(one.p50_ms) for one in engines)),
        (f"p90, {unit}", *(figure(one.p90_ms) for one in engines)),
        (f"p99, {unit}", *(figure(one.p99_ms) for one in engines)),
        ("images/s, one run after another", *(digits(one.throughput_per_s) for one in engines)),
        ("load, ms", *(digits(one.load_ms) for one in engines)),
        ("first run, ms", *(digits(one.first_run_ms) for one in engines)),
        ("peak memory, MB", *(digits(one.peak_memory_mb) for one in engines)),
        *_parts(engines),
        ("file, MB", *(digits(one.file_mb) for one in engines)),
        ("precision", *(_precision(one) for one in engines)),
    )
    return Grid(head=("", *(one.name for one in engines)), rows=rows)


def milliseconds(timed_by: str) -> str:
    """The unit of latencies, with their clock where that is not the one that hangs on a wall."""
    return "ms" if timed_by == WALL else f"ms of {timed_by}"


def _parts(engines: Sequence[EngineFigures]) -> Iterator[tuple[str, ...]]:
    """A row for every part of a run that an engine tells."""
    for name in dict.fromkeys(part for one in engines for part in one.parts_ms):
        said = name.removesuffix("_ms").replace("_", " ")
        yield (f"{said}, ms", *(figure(one.parts_ms.get(name)) for one in engines))


def throughput(found: Sequence[Throughput]) -> Grid:
    """Images a second by batch and threads."""
    head = ("batch", "threads", "network", "images/s", "one run, ms")
    rows = tuple(
        (
            str(one.batch),
            str(one.threads),
            one.engine,
            one.refused or figure(one.images_per_s),
            figure(one.latency_ms) + ("" if one.timed_by == WALL else f", {one.timed_by}"),
        )
        for one in found
    )
    return Grid(head=head, rows=rows)


def scenarios(found: Sequence[Scenario]) -> Grid:
    """What MLPerf LoadGen says."""
    head = ("scenario", "network", "figure", "queries", "latencies, ms", "valid")
    rows = tuple(
        (
            one.scenario,
            one.engine,
            f"{digits(one.metric)} {one.unit}",
            str(one.queries),
            ", ".join(f"{name} {digits(value)}" for name, value in one.latency_ms.items()) or ABSENT,
            "yes" if one.valid else f"no: {'; '.join(one.problems)}",
        )
        for one in found
    )
    return Grid(head=head, rows=rows)


def conditions(found: Comparison | Benchmark | LatencyTable) -> str:
    """What the latency depends on."""
    asked = found.conditions
    clock = asked.clock.replace("_", " ")
    graph = ", CUDA graph" if asked.cuda_graph else ""
    package = found.device.facts.get("cuda_package")
    through = f", through {one_line(package)}" if package else ""
    return f"batch {asked.batch}, {asked.threads} thread(s), {asked.precision}, {clock} time{graph}{through}"


def _speedup(found: Comparison) -> tuple[str, ...]:
    return (
        f"speed-up: {ratio(found.speedup)}, {100 * found.speedup.confidence:g}% interval: {found.verdict}",
    )


def _remarks(found: Comparison | Benchmark) -> tuple[str, ...]:
    """How the figures came about, and how far they can be trusted."""
    return (
        f"noise floor, the first network against itself: {ratio(found.aa_ratio)}",
        f"two sessions of one file differ by {digits(found.session_percent)}% (standard deviation); "
        f"{found.sessions} sessions of each were measured",
        f"{found.device.name}, backend {found.backend}, {conditions(found)}",
        f"{rounds(found)}; stopped because {found.stopped_because}",
        *disturbance(found.environment),
        *(f"note: {note}" for note in found.notes),
    )


def rounds(found: Comparison | Benchmark | LatencyTable) -> str:
    """How many rounds were run, and how many of them do not count."""
    return f"{len(found.discarded):,} of {found.rounds:,} rounds discarded"


def disturbance(found: Environment | None) -> Iterable[str]:
    """What the machine did besides, where that is worth a word."""
    if found is None:
        return
    if found.load is not None:
        yield f"load average before and after: {found.load[0]:.2f}, {found.load[1]:.2f}"
    stolen = found.steal_percent or 0
    stops = (found.quota_stops or 0) + (found.heat_stops or 0)
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
    facts: Mapping[str, str] | None = None,
    seconds: float = 0.0,
) -> str:
    """One test suite of one test. problem: the element that says so, its type and its message."""
    counted = {kind: str(int(problem is not None and problem[0] == kind)) for kind in ("failure", "error")}
    totals = {"tests": "1", "failures": counted["failure"], "errors": counted["error"]}
    timed = {"time": f"{seconds:.3f}"}
    suites = ElementTree.Element("testsuites", totals | timed)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _SUITE, "skipped": "0"} | totals | timed)
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (facts or {}).items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": clean(value)})
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": _SUITE.replace(" ", "."), "name": clean(name)} | timed
    )
    if problem is not None:
        kind, sort, message = problem
        said = ElementTree.SubElement(case, kind, {"type": sort, "message": clean(message)})
        said.text = clean(message)
    ElementTree.SubElement(case, "system-out").text = clean(text)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False).join((_XML, "\n"))


def ratio(found: Interval) -> str:
    """A ratio with its interval."""
    return f"{found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}]"


def figure(found: Interval | None) -> str:
    """A figure with its interval, or a dash where the sample cannot support it."""
    if found is None:
        return ABSENT
    return f"{digits(found.estimate)} [{digits(found.low)}, {digits(found.high)}]"


def digits(value: float | None) -> str:
    """Four digits, at least."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _precision(found: EngineFigures) -> str:
    """What is claimed, and how much of it the file proves."""
    if found.precision_share is None:
        return f"{found.precision}, as asked: the file does not tell"
    return f"{found.precision} in {100 * found.precision_share:.0f}% of the layers"
