"""What is asked of LoadGen, and how it is set.

Source: loadgen/test_settings.h of github.com/mlcommons/inference.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from practise_backends.errors import MeasureError
from practise_backends.loadgen.subject import Subject
from practise_backends.rounds.feeds import Shapes
from practise_backends.runtimes.onnx_file import fixed_batch

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")

_SUBMISSION_S = 600.0
_SLACK = 1.1
_LOAD = 0.5
_BOUND = 10.0
_LEAST_WAITING = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOptions:
    """What is asked of LoadGen.

    min_queries: of every scenario; in Offline it is the least number of samples. LoadGen's verdict on a 90th
    percentile takes 64 queries, on a 99th 662. server_qps: None is half the rate of one run after another.
    server_latency_ms: the bound on the 99th percentile; None is ten times the median latency of one run.
    offline_batch: images of one run, where the batch is dynamic. shapes: the other dynamic dimensions; the first
    of each is the batch, and goes by the scenario.
    """

    duration_s: float = 10.0
    min_queries: int = 64
    server_qps: float | None = None
    server_latency_ms: float | None = None
    multistream_samples: int = 8
    offline_batch: int = 8
    seed: int = 0
    shapes: Shapes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One scenario to run. single_ms: the median SingleStream latency, where it was measured before."""

    name: str
    scenario: str
    options: ScenarioOptions
    single_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long one run takes before LoadGen asks, in milliseconds."""

    median_ms: float
    fastest_ms: float


def check_scenarios(scenarios: Sequence[str], options: ScenarioOptions) -> None:
    """Refuse what LoadGen would misread."""
    unknown = [scenario for scenario in scenarios if scenario not in SCENARIOS]
    if unknown:
        raise MeasureError(
            f"LoadGen has no scenario '{unknown[0]}'", remedy=f"its scenarios are {list(SCENARIOS)}"
        )
    numbers = {
        "duration_s": options.duration_s,
        "min_queries": options.min_queries,
        "multistream_samples": options.multistream_samples,
        "offline_batch": options.offline_batch,
        "server_qps": options.server_qps,
        "server_latency_ms": options.server_latency_ms,
    }
    for label, number in numbers.items():
        if number is not None and not number > 0:
            raise MeasureError(f"{label} is {number}", remedy="give it a positive number")


def settings_for(subject: Subject, task: Task, pace: Pace) -> tuple[Any, dict[str, str]]:
    """LoadGen's settings, and the same in words."""
    options, loadgen = task.options, subject.loadgen
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, task.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(1e3 * options.duration_s))
    settings.min_query_count = options.min_queries
    for stream in ("qsl", "sample_index", "schedule"):
        setattr(settings, f"{stream}_rng_seed", options.seed)
    shorter = f", shorter than a submission's {_SUBMISSION_S:g} s" * (options.duration_s < _SUBMISSION_S)
    fixed = fixed_batch(subject.engine.inputs) is not None
    words = {
        "loadgen": importlib.metadata.version("mlcommons-loadgen"),
        "min duration": f"{options.duration_s:g} s{shorter}",
        "min queries": str(options.min_queries),
        "seed": str(options.seed),
        "images per run": f"{subject.size} ({'fixed in the network' if fixed else 'the batch is dynamic'})",
        "inputs": "random tensors, made before the test",
    }
    return settings, words | _SET[task.scenario](settings, subject, task, pace)


def _set_single_stream(settings: Any, subject: Subject, task: Task, pace: Pace) -> dict[str, str]:
    """LoadGen makes its queries beforehand, for twice the duration at the expected latency."""
    settings.single_stream_expected_latency_ns = max(1, round(1e6 * pace.fastest_ms))
    return {"samples per query": "1"}


def _set_multi_stream(settings: Any, subject: Subject, task: Task, pace: Pace) -> dict[str, str]:
    """As SingleStream, with queries of several samples."""
    samples = task.options.multistream_samples
    runs = -(-samples // subject.size)
    settings.multi_stream_samples_per_query = samples
    settings.multi_stream_expected_latency_ns = max(1, round(1e6 * pace.fastest_ms * runs))
    one_by_one = f"{runs} runs, one after another"
    return {"samples per query": str(samples), "query": "one run" if runs == 1 else one_by_one}


def _set_offline(settings: Any, subject: Subject, task: Task, pace: Pace) -> dict[str, str]:
    """One query with samples for a tenth longer than the test (and LoadGen's own tenth) at the fastest pace."""
    settings.offline_expected_qps = _SLACK * 1e3 * subject.size / pace.fastest_ms
    return {"expected rate": f"{settings.offline_expected_qps:.4g} samples/s", "query": "all samples in one"}


def _set_server(settings: Any, subject: Subject, task: Task, pace: Pace) -> dict[str, str]:
    """Poisson arrivals; the test ends early when a second's work waits, or twice what the bound allows."""
    options = task.options
    run_ms = task.single_ms or pace.median_ms
    qps = options.server_qps or _LOAD * 1e3 / run_ms
    bound_ms = options.server_latency_ms or _BOUND * run_ms
    most_waiting = max(_LEAST_WAITING, round(min(qps, 1e3 / run_ms)), round(2 * bound_ms / run_ms))
    settings.server_target_qps = qps
    settings.server_target_latency_ns = round(1e6 * bound_ms)
    settings.server_target_latency_percentile = 0.99
    settings.server_max_async_queries = most_waiting
    origin = "SingleStream" if task.single_ms else "a probe"
    rate_rule = "" if options.server_qps else f", half of the rate in {origin}"
    bound_rule = "" if options.server_latency_ms else f", ten times the median latency in {origin}"
    return {
        "samples per query": "1",
        "target rate": f"{qps:.4g} samples/s{rate_rule}",
        "latency bound": f"{bound_ms:.4g} ms for the 99th percentile{bound_rule}",
        "most waiting": f"{most_waiting} queries, one engine, first in first out",
    }


_SET: dict[str, Callable[[Any, Subject, Task, Pace], dict[str, str]]] = {
    "SingleStream": _set_single_stream,
    "MultiStream": _set_multi_stream,
    "Offline": _set_offline,
    "Server": _set_server,
}
