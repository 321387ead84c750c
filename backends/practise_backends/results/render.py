"""Comparisons and benchmarks for people and for machines that read tests: plain text, Markdown, JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from practise_backends.errors import BackendError
from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import conditions, confidence, number, rounds
from practise_backends.results.requirement import Requirement
from practise_backends.results.tables import (
    Table,
    engines,
    escaped,
    in_columns,
    in_markdown,
    scenarios,
    throughput,
)
from practise_backends.terminal import clean
from practise_backends.terms import Comparison, Environment, Interval

_XML = '<?xml version="1.0" encoding="utf-8"?>\n'
_SUITE = "practise-measure compare"


def comparison_text(comparison: Comparison, requirement: Requirement) -> str:
    """A comparison as plain text."""
    outcome = f"{'passed' if requirement.kept else 'FAILED'}: {requirement.sentence}"
    lines = [in_columns(engines(comparison, files=True)), "", *_provenance(comparison), "", outcome]
    return "\n".join(lines) + "\n"


def benchmark_text(benchmark: Benchmark) -> str:
    """A benchmark as plain text."""
    parts = [f"{in_columns(table)}\n" for table in _tables(benchmark)]
    return "\n".join([*parts, *_provenance(benchmark)]) + "\n"


def comparison_markdown(comparison: Comparison, requirement: Requirement) -> str:
    """A comparison as Markdown that GitHub shows as a table."""
    outcome = f"**{'passed' if requirement.kept else 'failed'}**: {escaped(requirement.sentence)}"
    table = in_markdown(engines(comparison, files=True))
    notes = [f"- {escaped(line)}" for line in _provenance(comparison)]
    return "\n".join([outcome, "", table, "", *notes]) + "\n"


def benchmark_markdown(benchmark: Benchmark) -> str:
    """A benchmark as Markdown that GitHub shows as tables."""
    parts = [f"{in_markdown(table)}\n" for table in _tables(benchmark)]
    return "\n".join([*parts, *(f"- {escaped(line)}" for line in _provenance(benchmark))]) + "\n"


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


def _tables(benchmark: Benchmark) -> Iterator[Table]:
    """The tables of a benchmark, without the settings of its scenarios, which are long."""
    yield engines(benchmark, files=True)
    if benchmark.throughput:
        yield throughput(benchmark.throughput)
    if benchmark.scenarios:
        table = scenarios(benchmark.scenarios)
        yield replace(table, head=table.head[:-1], rows=tuple(row[:-1] for row in table.rows))


def _provenance(measurement: Comparison | Benchmark) -> tuple[str, ...]:
    """The speed-up, where there is one; how the figures were measured, and how far they can be trusted."""
    speedup = measurement.speedup
    return (
        *(
            (f"speed-up: {ratio(speedup)}, {confidence(speedup)} interval: {measurement.verdict}",)
            if speedup
            else ()
        ),
        f"noise floor, the first network against itself: {ratio(measurement.aa_ratio)}",
        f"two sessions of one file differ by {number(measurement.session_percent)}% (standard deviation); "
        f"{measurement.sessions} sessions of each were measured",
        f"{measurement.device.name}, backend {measurement.backend}, {conditions(measurement)}",
        f"{rounds(measurement)}; stopped because {measurement.stopped_because}",
        *disturbance(measurement.environment),
        *(f"note: {note}" for note in measurement.notes),
    )


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
