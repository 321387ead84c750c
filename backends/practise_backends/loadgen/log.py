"""What LoadGen wrote: its summary (mlperf_log_summary.txt) and the errors in its detailed log.

Source: PerformanceSummary::LogSummary in loadgen/results.cc of github.com/mlcommons/inference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from practise_backends.errors import MeasureError

_METRICS = {
    "SingleStream": (r"(?P<of>[\d.]+)th percentile latency \(ns\)", "ms ({of}th percentile)"),
    "MultiStream": (r"(?P<of>[\d.]+)th percentile latency \(ns\)", "ms a query ({of}th percentile)"),
    "Offline": (r"Samples per second", "samples/s"),
    "Server": (r"Completed samples per second", "samples/s (completed)"),
}
_NUMBER = r"(?P<number>[-+\d.eE]+)"
_LATENCY = re.compile(rf"(?P<of>Min|Max|Mean|[\d.]+ percentile) latency \(ns\)\s*:\s*{_NUMBER}")
_SCHEDULED = re.compile(rf"Scheduled samples per second\s*:\s*{_NUMBER}")
_NS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One summary. metric: in `unit`. latency_ms: min, mean, max and percentiles, p50 to p99.9."""

    metric: float
    unit: str
    valid: bool
    problems: tuple[str, ...]
    latency_ms: dict[str, float]
    scheduled_per_s: float | None


def read_summary(text: str, scenario: str) -> Summary:
    """Read the figures of one scenario.

    Raises: MeasureError where the verdict or the scenario's figure is not in it.
    """
    lines = [line.strip() for line in text.splitlines()]
    metric, unit = _metric(text, scenario)
    verdict = re.search(r"^Result is\s*:\s*(VALID|INVALID)\s*$", text, re.MULTILINE)
    if verdict is None:
        raise _unreadable(scenario, "verdict")
    scheduled = _SCHEDULED.search(text)
    return Summary(
        metric=metric,
        unit=unit,
        valid=verdict[1] == "VALID",
        problems=() if verdict[1] == "VALID" else _problems(lines),
        latency_ms=_latencies(lines),
        scheduled_per_s=float(scheduled["number"]) if scheduled else None,
    )


def read_errors(detail: str) -> tuple[str, ...]:
    """The errors in a detailed log, each once."""
    entries = [_logged(line) for line in detail.splitlines() if ":::MLLOG" in line]
    texts = [str(entry.get("value")) for entry in entries if str(entry.get("key", "")).startswith("error")]
    return tuple(dict.fromkeys(" ".join(text.split()) for text in texts))


def _metric(text: str, scenario: str) -> tuple[float, str]:
    """The scenario's standard figure and its unit; a latency comes in milliseconds."""
    label, unit = _METRICS[scenario]
    match = re.search(rf"^{label}\s*:\s*{_NUMBER}", text, re.MULTILINE)
    if match is None:
        raise _unreadable(scenario, f"figure of {scenario}")
    of = f"{float(match['of']):g}" if "of" in match.groupdict() else ""
    return float(match["number"]) / (_NS if of else 1.0), unit.format(of=of)


def _latencies(lines: Sequence[str]) -> dict[str, float]:
    """The latencies of the additional statistics, in milliseconds."""
    matches = [match for line in lines if (match := _LATENCY.fullmatch(line))]
    return {_short(match["of"]): float(match["number"]) / _NS for match in matches}


def _short(of: str) -> str:
    """Min, max and mean as they are; 99.00 percentile is p99."""
    return of.lower() if of[0].isalpha() else f"p{float(of.split()[0]):g}"


def _problems(lines: Sequence[str]) -> tuple[str, ...]:
    """The checks that failed, and what LoadGen says about them."""
    result = lines[: lines.index("Additional Stats")] if "Additional Stats" in lines else lines
    checks = [match for line in result if (match := re.fullmatch(r"(.+) satisfied\s*:\s*NO", line))]
    failed = [match[1] for match in checks]
    advice = _bullets(result, "Recommendations:")
    early = _bullets(result, "Early Stopping Result:") if "Early stopping" in failed else []
    return (*(f"{check} not satisfied" for check in failed), *advice, *early)


def _bullets(lines: Sequence[str], heading: str) -> list[str]:
    """The list under a heading, a continued line joined to its bullet."""
    bullets: list[str] = []
    for line in lines[lines.index(heading) + 1 :] if heading in lines else []:
        if line.startswith("* "):
            bullets.append(line[2:])
        elif not bullets or not line or line.endswith(":") or line.startswith("="):
            break
        else:
            bullets[-1] += f" {line}"
    return bullets


def _logged(line: str) -> dict[str, object]:
    """One line of the detailed log; empty where it is cut short."""
    try:
        entry = json.loads(line.partition(":::MLLOG")[2])
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _unreadable(scenario: str, missing: str) -> MeasureError:
    """A summary that does not say what it should."""
    return MeasureError(
        f"LoadGen's summary of the {scenario} scenario holds no {missing}",
        remedy="install a version of mlcommons-loadgen from 5 to 6",
    )
