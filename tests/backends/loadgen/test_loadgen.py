"""LoadGen's scenarios, with engines that sleep or fail."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from practise_backends.errors import BackendMissing, MeasureError
from practise_backends.loadgen.log import read_summary
from practise_backends.loadgen.run import SCENARIOS, ScenarioOptions, import_loadgen, run_scenarios
from practise_backends.loadgen.subject import Subject, run_test
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, Scenario, Tensors, TensorSpec

SHORT = ScenarioOptions(duration_s=0.2, min_queries=10, multistream_samples=4, offline_batch=4)
SHORTEST = ScenarioOptions(duration_s=0.01, min_queries=1)
DYNAMIC = (TensorSpec(name="image", shape=(-1, 2), dtype="float32"),)
FIXED = (TensorSpec(name="image", shape=(1, 2), dtype="float32"),)


def has_loadgen() -> bool:
    try:
        importlib.import_module("mlperf_loadgen")
    except ImportError:
        return False
    return True


needs_loadgen = pytest.mark.skipif(not has_loadgen(), reason="mlcommons-loadgen is not installed")


class SleepingEngine:
    """Sleeps a millisecond a run, and counts; `fail_at` names the run that raises."""

    def __init__(self, inputs: tuple[TensorSpec, ...] = DYNAMIC, ms: float = 1.0) -> None:
        self.inputs = inputs
        self.outputs: tuple[TensorSpec, ...] = ()
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.closed = False
        self.at_run: dict[int, Callable[[], None]] = {}
        self._ms = ms

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        self.threads.add(threading.get_ident())
        self.batches.append(len(tensors["image"]))
        self.at_run.get(len(self.batches), lambda: None)()
        time.sleep(self._ms / 1e3)
        return {}

    def time_once(self, tensors: Tensors) -> float:
        self.run(tensors)
        return self._ms

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed = True


def run_one(engine: SleepingEngine, scenario: str, options: ScenarioOptions = SHORT) -> Scenario:
    (found,) = run_scenarios(lambda: engine, "net", [scenario], options)
    return found


def failing(after: int) -> SleepingEngine:
    def explode() -> None:
        raise ValueError("out of cheese")

    engine = SleepingEngine()
    engine.at_run = {after: explode}
    return engine


@needs_loadgen
class TestScenarios:
    def test_all_four_run_in_one_interpreter_and_say_who_and_how(self) -> None:
        opened: list[SleepingEngine] = []

        def open_engine() -> SleepingEngine:
            opened.append(SleepingEngine())
            return opened[-1]

        found = run_scenarios(open_engine, "net", SCENARIOS, SHORT)
        assert [each.scenario for each in found] == list(SCENARIOS)
        assert {each.engine for each in found} == {"net"}
        assert all(engine.closed and len(engine.threads) == 1 for engine in opened)
        assert threading.get_ident() not in set.union(*(engine.threads for engine in opened))
        for each in found:
            assert each.settings["min duration"] == "0.2 s, shorter than a submission's 600 s"
            assert each.queries * int(each.settings["samples"]) > 0

    def test_single_stream_latency_is_not_below_the_run_itself(self) -> None:
        found = run_one(SleepingEngine(), "SingleStream")
        assert found.unit == "ms (90th percentile)"
        assert found.latency_ms["min"] >= 1.0
        assert found.metric == found.latency_ms["p90"]
        assert found.latency_ms["min"] <= found.latency_ms["mean"] <= found.latency_ms["max"]

    def test_every_query_is_one_run_of_one_image(self) -> None:
        engine = SleepingEngine()
        found = run_one(engine, "SingleStream")
        assert set(engine.batches) == {1}
        assert found.queries < len(engine.batches) <= found.queries + 400  # the others are the warm-up

    def test_a_test_that_is_too_short_is_invalid_and_says_why(self) -> None:
        options = ScenarioOptions(duration_s=0.05, min_queries=5, multistream_samples=4)
        found = run_one(SleepingEngine(), "MultiStream", options)
        assert not found.valid
        assert "Early stopping not satisfied" in found.problems
        assert any("662 queries" in problem for problem in found.problems)

    def test_multi_stream_takes_a_query_in_one_run_where_the_batch_is_dynamic(self) -> None:
        engine = SleepingEngine()
        found = run_one(engine, "MultiStream")
        assert set(engine.batches) == {4}
        assert int(found.settings["samples"]) == 4 * found.queries
        assert found.settings["query"] == "one run"

    def test_batch_of_a_scenario_takes_the_place_of_a_named_shapes(self) -> None:
        engine = SleepingEngine((TensorSpec(name="image", shape=(-1, -1), dtype="float32"),))
        options = dataclasses.replace(SHORT, shapes={"image": (1, 3)})
        run_one(engine, "MultiStream", options)
        assert set(engine.batches) == {4}

    def test_multi_stream_takes_samples_one_by_one_where_the_batch_is_fixed(self) -> None:
        engine = SleepingEngine(FIXED)
        found = run_one(engine, "MultiStream")
        assert set(engine.batches) == {1}
        assert len(engine.batches) > 4 * found.queries
        assert found.settings["query"] == "4 runs, one after another"
        assert found.latency_ms["min"] >= 4.0

    def test_offline_runs_batches_and_is_one_query(self) -> None:
        engine = SleepingEngine()
        found = run_one(engine, "Offline")
        assert set(engine.batches) == {4}
        assert found.queries == 1
        assert found.unit == "samples/s"
        assert 0 < found.metric < 4000

    def test_server_rate_and_bound_follow_from_single_stream(self) -> None:
        single, server = run_scenarios(SleepingEngine, "net", ["SingleStream", "Server"], SHORT)
        bound_ms = 10 * single.latency_ms["p50"]
        assert server.settings["latency bound"].startswith(f"{bound_ms:.4g} ms")
        assert "half of the rate in SingleStream" in server.settings["target rate"]
        assert server.unit == "samples/s (completed)"
        assert server.metric > 0

    def test_server_rate_and_bound_can_be_asked_for(self) -> None:
        options = ScenarioOptions(duration_s=0.2, min_queries=10, server_qps=100, server_latency_ms=250)
        found = run_one(SleepingEngine(), "Server", options)
        assert found.settings["target rate"] == "100 samples/s"
        assert found.settings["latency bound"] == "250 ms for the 99th percentile"

    def test_a_server_that_cannot_keep_up_ends_early_and_is_invalid(self) -> None:
        options = ScenarioOptions(duration_s=5, min_queries=10, server_qps=5000, server_latency_ms=2)
        engine = SleepingEngine(ms=2.0)
        found = run_one(engine, "Server", options)
        assert not found.valid
        assert any("Too many outstanding queries" in problem for problem in found.problems)
        assert found.queries < 12_500  # of 25000 that were scheduled

    def test_percentiles_that_are_only_the_maximum_are_left_out(self) -> None:
        found = run_one(SleepingEngine(ms=10.0), "SingleStream")
        assert found.queries < 100
        assert {"p99", "p99.9"}.isdisjoint(found.latency_ms)
        assert "p50" in found.latency_ms

    def test_an_audit_file_in_the_working_directory_is_not_obeyed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "audit.config").write_text("*.*.min_query_count = 5000\n")
        monkeypatch.chdir(tmp_path)
        assert run_one(SleepingEngine(), "SingleStream").queries < 5000
        assert [path.name for path in tmp_path.iterdir()] == ["audit.config"]

    def test_a_real_network_is_measured(self, network_file: Path) -> None:
        backend, conditions = OrtBackend(), Conditions()
        artifact = backend.compile(network_file, conditions)
        found = run_scenarios(lambda: backend.open(artifact, conditions), "two", ["SingleStream", "Offline"], SHORT)
        assert all(each.metric > 0 for each in found)

    def test_nothing_is_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        run_one(SleepingEngine(), "SingleStream")
        assert capfd.readouterr() == ("", "")


@needs_loadgen
class TestFailures:
    @pytest.mark.parametrize("scenario", SCENARIOS)
    @pytest.mark.parametrize("after", [2, 30])
    def test_an_engine_that_fails_ends_the_test_and_the_next_test_runs(self, scenario: str, after: int) -> None:
        engine = failing(after)
        with pytest.raises(MeasureError, match=f"'net' failed in the {scenario} .*out of cheese") as caught:
            run_one(engine, scenario)
        assert isinstance(caught.value.__cause__, ValueError)
        assert engine.closed
        assert len(engine.batches) == after
        assert run_one(SleepingEngine(), "SingleStream", SHORTEST).queries > 0

    @pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
    def test_a_failure_does_not_wait_for_the_end_of_a_long_test(self, scenario: str, tmp_path: Path) -> None:
        loadgen = import_loadgen()
        settings = loadgen.TestSettings()
        settings.scenario = getattr(loadgen.TestScenario, scenario)
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = 300_000
        settings.single_stream_expected_latency_ns = 100_000_000
        settings.server_target_qps = 500.0
        settings.server_max_async_queries = 50
        feeds = [{"image": np.zeros((1, 2), dtype=np.float32)}]
        subject = Subject(loadgen=loadgen, engine=failing(20), feeds=feeds, size=1, stop=threading.Event())
        run_test(subject, settings, tmp_path, queued=scenario == "Server")
        assert isinstance(subject.failure, ValueError)
        assert 20 <= subject.queries <= 6100  # Server would go on with its schedule, to 150000

    def test_an_engine_that_does_not_open_raises_its_own_error(self) -> None:
        def refuse() -> SleepingEngine:
            raise MeasureError("no such engine", remedy="open one")

        with pytest.raises(MeasureError, match="no such engine"):
            run_scenarios(refuse, "net", ["SingleStream"], SHORT)

    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_an_interrupt_ends_the_test_and_leaves_as_an_interrupt(self, scenario: str) -> None:
        engine = SleepingEngine()
        engine.at_run = {30: lambda: os.kill(os.getpid(), signal.SIGINT)}
        with pytest.raises(KeyboardInterrupt):
            run_one(engine, scenario, ScenarioOptions(duration_s=1, multistream_samples=4))
        assert engine.closed
        assert run_one(SleepingEngine(), "SingleStream", SHORTEST).queries > 0

    def test_the_interpreter_ends_well_after_a_failure(self) -> None:
        code = (
            "from practise_backends.loadgen.run import run_scenarios\n"
            "class Engine:\n"
            "    inputs = outputs = ()\n"
            "    runs = 0\n"
            "    def run(self, tensors):\n"
            "        self.runs += 1\n"
            "        if self.runs == 9000: raise SystemExit(3)\n"
            "        return {}\n"
            "    def close(self): pass\n"
            "try:\n"
            "    run_scenarios(Engine, 'net', ['Server'])\n"
            "except Exception as error:\n"
            "    print(type(error).__name__)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "MeasureError\n"), done.stderr

    @pytest.mark.parametrize(
        ("scenarios", "options", "said"),
        [
            (["Train"], SHORT, "no scenario 'Train'"),
            (["Server"], ScenarioOptions(duration_s=0), "duration_s is 0"),
            (["Server"], ScenarioOptions(server_qps=-1.0), "server_qps is -1.0"),
            (["Server"], ScenarioOptions(min_queries=0), "min_queries is 0"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, scenarios: list[str], options: ScenarioOptions, said: str) -> None:
        with pytest.raises(MeasureError, match=said):
            run_scenarios(SleepingEngine, "net", scenarios, options)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(BackendMissing) as caught:
        run_scenarios(SleepingEngine, "net", ["SingleStream"], SHORT)
    assert caught.value.remedy == 'pip install "practise-backends[loadgen]"'


def logged(**values: object) -> str:
    """A detailed log that ends in the middle of a line."""
    lines = [f":::MLLOG {json.dumps({'key': key, 'value': value})}\n" for key, value in values.items()]
    return "".join(lines) + ':::MLLOG {"key": "err'


SERVER = logged(
    result_validity="INVALID",
    result_perf_constraints_met=False,
    result_min_duration_met=True,
    early_stopping_met=False,
    result_invalid_reason="Reduce target QPS to improve latency. Increase the target QPS. ",
    early_stopping_result=" * Run unsuccessful.  * Would need to run at least 269 more queries,  with the run being "
    "successful if every additional  query were under latency.",
    result_completed_samples_per_sec=374.73,
    result_scheduled_samples_per_sec=375.7,
    result_min_latency_ns=1112279,
    result_mean_latency_ns=1650540,
    **{"result_99.90_percentile_latency_ns": 4028440},
)
SINGLE = logged(result_validity="VALID", early_stopping_met=True, **{"result_90.00_percentile_latency_ns": 1500000})


class TestSummary:
    def test_figures_and_reasons_are_read(self) -> None:
        found = read_summary(SERVER, "Server")
        assert (found.metric, found.unit, found.valid) == (374.73, "samples/s (completed)", False)
        assert found.scheduled_per_s == 375.70
        assert found.latency_ms == {"min": 1.112279, "mean": 1.65054, "p99.9": 4.02844}
        assert found.problems == (
            "Performance constraints not satisfied",
            "Early stopping not satisfied",
            "Reduce target QPS to improve latency.",
            "Increase the target QPS.",
            "Run unsuccessful.",
            "Would need to run at least 269 more queries, with the run being successful if every additional "
            "query were under latency.",
        )

    def test_a_latency_comes_in_milliseconds(self) -> None:
        found = read_summary(SINGLE, "SingleStream")
        assert (found.metric, found.unit, found.problems) == (1.5, "ms (90th percentile)", ())

    def test_latencies_of_multi_stream_are_of_queries(self) -> None:
        of_a_query = {"result_99.00_percentile_per_query_latency_ns": 8e6, "result_min_query_latency_ns": 5e6}
        log = logged(result_validity="VALID", result_min_latency_ns=1e6, **of_a_query)
        assert read_summary(log, "MultiStream").latency_ms == {"min": 5.0, "p99": 8.0}

    @pytest.mark.parametrize(
        "log",
        ["", logged(result_samples_per_second=12), logged(result_validity="VALID")],
        ids=["none", "figure", "verdict"],
    )
    def test_a_log_that_lacks_its_figures_is_an_error(self, log: str) -> None:
        with pytest.raises(MeasureError, match="summary of the Offline scenario holds no"):
            read_summary(log, "Offline")

    def test_errors_are_read_once_each(self) -> None:
        error = logged(error_runtime="Ending early:  too many.", generic_message="fine").rpartition("\n")[0] + "\n"
        assert read_summary(error + error + SINGLE, "SingleStream").problems == ("Ending early: too many.",)
