"""What LoadGen wrote: the JSON lines of its detailed log (mlperf_log_detail.txt).

Source: PerformanceSummary::LogDetail in loadgen/results.cc of github.com/mlcommons/inference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from practise_backends.errors import MeasureError

_METRICS = {
    "SingleStream": ("result_90.00_percentile_latency_ns", "ms (90th percentile)"),
    "MultiStream": ("result_99.00_percentile_per_query_latency_ns", "ms a query (99th percentile)"),
    "Offline": ("result_samples_per_second", "samples/s"),
    "Server": ("result_completed_samples_per_sec", "samples/s (completed)"),
}
_CHECKS = {
    "result_perf_constraints_met": "Performance constraints",
    "result_min_duration_met": "Min duration",
    "result_min_queries_met": "Min queries",
    "early_stopping_met": "Early stopping",
}
_PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
_NS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of one test. metric: in `unit`. latency_ms: min, mean, max and percentiles, p50 to p99.9."""

    metric: float
    unit: str
    valid: bool
    problems: tuple[str, ...]
    latency_ms: dict[str, float]
    scheduled_per_s: float | None


def read_summary(detail: str, scenario: str) -> Summary:
    """Read the figures of one scenario, and what LoadGen objects to.

    Raises: MeasureError where the verdict or the scenario's figure is not in the log.
    """
    entries = [entry for line in detail.splitlines() if "key" in (entry := _logged(line))]
    values = {entry["key"]: entry["value"] for entry in entries}
    errors = [" ".join(entry["value"].split()) for entry in entries if entry["key"].startswith("error")]
    key, unit = _METRICS[scenario]
    for needed, what in ((key, f"figure of {scenario}"), ("result_validity", "verdict")):
        if needed not in values:
            raise MeasureError(
                f"LoadGen's summary of the {scenario} scenario holds no {what}",
                remedy="install a version of mlcommons-loadgen from 5 to 6",
            )
    return Summary(
        metric=values[key] / (_NS if key.endswith("_ns") else 1.0),
        unit=unit,
        valid=values["result_validity"] == "VALID",
        problems=tuple(dict.fromkeys((*_problems(values), *errors))),
        latency_ms=_latencies(values, scenario),
        scheduled_per_s=values.get("result_scheduled_samples_per_sec"),
    )


def _logged(line: str) -> dict[str, Any]:
    """One line of the log; empty where it is cut short."""
    try:
        entry = json.loads(line.partition(":::MLLOG")[2])
    except ValueError:
        return {}
    return dict(entry)


def _latencies(values: Mapping[str, Any], scenario: str) -> dict[str, float]:
    """The latencies in milliseconds: of a query in MultiStream, else of a sample."""
    query, per_query = ("query_", "per_query_") if scenario == "MultiStream" else ("", "")
    keys = {name: f"result_{name}_{query}latency_ns" for name in ("min", "max", "mean")}
    keys |= {f"p{float(of):g}": f"result_{of}_percentile_{per_query}latency_ns" for of in _PERCENTILES}
    return {name: values[key] / _NS for name, key in keys.items() if key in values}


def _problems(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The checks that failed, and what LoadGen says about them."""
    failed = [f"{check} not satisfied" for key, check in _CHECKS.items() if values.get(key) is False]
    advice = [f"{sentence.strip()}." for sentence in values.get("result_invalid_reason", "").split(".")[:-1]]
    early = [] if values.get("early_stopping_met", True) else values["early_stopping_result"].split(" * ")
    return (*failed, *advice, *(" ".join(item.split()) for item in early if item.strip()))
