"""The scenarios of MLPerf LoadGen (package `mlcommons-loadgen`) for any engine.

Source: LoadGen, github.com/mlcommons/inference/tree/master/loadgen.
"""

from __future__ import annotations

import importlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from practise_backends.errors import BackendError, BackendMissing, MeasureError
from practise_backends.files import temporary_folder
from practise_backends.interfaces import Engine, Progress
from practise_backends.loadgen.log import Summary, read_summary
from practise_backends.loadgen.settings import (
    SCENARIOS,
    Pace,
    ScenarioOptions,
    Task,
    check_scenarios,
    settings_for,
)
from practise_backends.loadgen.subject import Subject, run_test
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes.onnx_file import fixed_batch
from practise_backends.terms import Scenario

__all__ = ["SCENARIOS", "ScenarioOptions", "import_loadgen", "run_scenarios"]

_FEED_SETS = 4
_PROBE_S = 1.0
_PROBE_RUNS = 4
_POLL_S = 0.2
_ONE_TEST = threading.Lock()  # LoadGen keeps its log in global variables


def run_scenarios(
    open_engine: Callable[[], Engine],
    name: str,
    scenarios: Sequence[str] = SCENARIOS,
    options: ScenarioOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Scenario, ...]:
    """Run LoadGen's scenarios one after another; each opens, warms up and closes an engine of its own.

    The engine is opened, run and closed in one thread, which is not the caller's; Ctrl-C ends the test.
    Latencies are of `Engine.run`, with random tensors that were made before the test.
    Raises: BackendMissing without the package; MeasureError where the engine fails or the options make no sense.
    """
    options = options or ScenarioOptions()
    check_scenarios(scenarios, options)
    loadgen = import_loadgen()
    runs: list[Scenario] = []
    with _ONE_TEST:
        for at, scenario in enumerate(scenarios):
            if progress is not None:
                progress.advance(at, len(scenarios), f"{name}: {scenario}")
            task = Task(name=name, scenario=scenario, options=options, single_ms=_single_ms(runs))
            runs.append(_in_thread(partial(_test, loadgen, open_engine, task)))
    return tuple(runs)


def import_loadgen() -> Any:
    """LoadGen, imported when it is first needed."""
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise BackendMissing(
            f"LoadGen's scenarios need mlcommons-loadgen: {error}",
            remedy='pip install "practise-backends[loadgen]"',
        ) from error


def _single_ms(runs: Sequence[Scenario]) -> float | None:
    """The median latency of the SingleStream scenario, where it is among those found."""
    medians = [run.latency_ms.get("p50") for run in runs if run.scenario == "SingleStream"]
    return medians[0] if medians else None


def _in_thread(test: Callable[[threading.Event], Scenario]) -> Scenario:
    """Run a test where Ctrl-C cannot strike inside LoadGen; leaving for any reason tells the test to stop."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loadgen")
    try:
        future = pool.submit(test, stop)
        while not future.done():
            wait([future], timeout=_POLL_S)
        return future.result()
    finally:
        stop.set()
        pool.shutdown()


def _test(loadgen: Any, open_engine: Callable[[], Engine], task: Task, stop: threading.Event) -> Scenario:
    """Open the engine, warm it up, let LoadGen run its scenario, and read what LoadGen wrote."""
    engine = open_engine()
    try:
        subject = _subject(loadgen, engine, task, stop)
        settings, words = settings_for(subject, task, _pace(subject, task))
        with temporary_folder() as folder:
            run_test(subject, settings, folder, queued=task.scenario == "Server")
            _check_ended_well(subject, task)
            return _record(task, subject, read_summary(_detail(folder), task.scenario), words)
    finally:
        engine.close()


def _subject(loadgen: Any, engine: Engine, task: Task, stop: threading.Event) -> Subject:
    """The engine with its tensors: as many images a run as the scenario wants and the network takes."""
    options = task.options
    images = {"MultiStream": options.multistream_samples, "Offline": options.offline_batch}
    size = fixed_batch(engine.inputs) or images.get(task.scenario, 1)
    shapes = {name: (size, *shape[1:]) for name, shape in options.shapes.items()}
    feeds = [random_feeds(engine.inputs, size, options.seed + at, shapes) for at in range(_FEED_SETS)]
    return Subject(loadgen=loadgen, engine=engine, feeds=feeds, size=size, stop=stop)


def _pace(subject: Subject, task: Task) -> Pace:
    """Warm up for a tenth of the test, at most a second, and say how long a run took in the later half."""
    took_ms: list[float] = []
    ends = time.perf_counter() + min(_PROBE_S, task.options.duration_s / 10)
    while not subject.stop.is_set() and (len(took_ms) < _PROBE_RUNS or time.perf_counter() < ends):
        began = time.perf_counter()
        subject.run(len(took_ms))
        took_ms.append(1e3 * (time.perf_counter() - began))
    _check_ended_well(subject, task)
    later = took_ms[len(took_ms) // 2 :]
    return Pace(median_ms=statistics.median(later), fastest_ms=min(later))


def _check_ended_well(subject: Subject, task: Task) -> None:
    """Raise what the engine raised, now that LoadGen's threads are gone."""
    failure = subject.failure
    if failure is not None:
        remedy = failure.remedy if isinstance(failure, BackendError) else "run the engine alone to see why"
        message = (
            f"{type(failure).__name__}: {failure}" if not isinstance(failure, BackendError) else str(failure)
        )
        raise MeasureError(
            f"engine '{task.name}' failed in the {task.scenario} scenario: {message}", remedy=remedy
        ) from failure
    if subject.stop.is_set():
        raise MeasureError(f"the {task.scenario} scenario was stopped", remedy="run it again")


def _detail(folder: Path) -> str:
    """LoadGen's detailed log; empty where it was not written."""
    path = folder / "mlperf_log_detail.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def _record(task: Task, subject: Subject, summary: Summary, words: dict[str, str]) -> Scenario:
    """The scenario's figures; a percentile that is the maximum under another name is left out."""
    count = subject.queries if task.scenario == "MultiStream" else subject.samples
    if summary.scheduled_per_s is not None:
        words = words | {"scheduled rate": f"{round(summary.scheduled_per_s, 2):g} samples/s"}
    return Scenario(
        engine=task.name,
        scenario=task.scenario,
        metric=summary.metric,
        unit=summary.unit,
        valid=summary.valid,
        problems=summary.problems,
        queries=subject.queries,
        latency_ms={of: ms for of, ms in summary.latency_ms.items() if _is_supported(of, count)},
        settings=words | {"samples": str(subject.samples)},
    )


def _is_supported(of: str, count: int) -> bool:
    """Whether at least one sample lies above a percentile; min, mean and max always are."""
    return not of.startswith("p") or count * (100 - float(of[1:])) >= 100
