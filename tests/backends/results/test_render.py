"""Comparisons as plain text, Markdown and JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from practise_backends.errors import MeasureError
from practise_backends.results.compare import verdict_of
from practise_backends.results.render import (
    comparison_markdown,
    comparison_text,
    failed_junit,
    requirement_junit,
)
from practise_backends.results.requirement import require
from practise_backends.results.tables import engines, scenarios, throughput
from practise_backends.terms import (
    CPU,
    Comparison,
    Conditions,
    Device,
    EngineFigures,
    Environment,
    Interval,
    Scenario,
    Throughput,
)


def interval(estimate: float, half: float = 0.05) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def engine(name: str, file: str, p50: float) -> EngineFigures:
    return EngineFigures(
        name=name,
        file=file,
        sha256="0" * 64,
        precision="fp32",
        precision_share=None,
        p50_ms=interval(p50),
        p90_ms=interval(p50 + 1),
        p99_ms=None,
        throughput_per_s=1000 / p50,
        load_ms=None,
        first_run_ms=None,
        peak_memory_mb=None,
        file_mb=1.5,
    )


def comparison(speedup: float = 1.25, file: str = "new.onnx") -> Comparison:
    return Comparison(
        backend="ort",
        speedup=interval(speedup),
        verdict=verdict_of(interval(speedup)),
        aa_ratio=interval(1.0, 0.01),
        sessions=4,
        session_percent=float("nan"),
        estimator="mean",
        estimator_errors_percent={},
        engines=(engine("original", "old.onnx", 10), engine("new", file, 8)),
        device=Device(name="a device", fingerprint="f" * 64, versions={}, facts={}),
        conditions=Conditions(threads=2),
        rounds=40,
        discarded=("round 3: heat",),
        warmup_s=1.0,
        stopped_because="the budget of 30 s was spent",
        environment=Environment(seconds=31.5, load=(0.5, 1.5), steal_percent=2.0, quota_stops=1),
        notes=("at most 4 sessions",),
    )


@pytest.mark.parametrize(
    ("speedup", "asked", "kept"),
    [
        (1.25, None, True),
        (1.04, None, False),
        (0.9, None, False),
        (1.25, 1.2, True),
        (1.25, 1.21, False),
        (1.0, 0.95, True),
        (1.0, 0.96, False),
        (float("nan"), None, False),
        (float("nan"), 0.5, False),
    ],
)
def test_requirement_is_judged_at_the_bad_end(speedup: float, asked: float | None, kept: bool) -> None:
    found = require(comparison(speedup), asked)
    assert found.kept is kept
    assert ("not shown to be" in found.sentence) is not kept


def test_near_miss_says_that_measuring_longer_may_help() -> None:
    assert "longer" in require(comparison(1.04)).sentence
    assert "longer" not in require(comparison(0.9)).sentence


def test_text_says_the_figures_and_how_they_came_about() -> None:
    found = comparison()
    text = comparison_text(found, require(found))
    for word in ("old.onnx", "new.onnx", "10.00 (9.95 to 10.05)", "1.2500 [1.2000, 1.3000]", "faster", "a device"):
        assert word in text
    for word in (
        "1 of 40 rounds discarded",
        "2 threads, fp32, end to end time, seed 0\n",
        "2.0% of the time was stolen",
        "note: at most 4",
    ):
        assert word in text
    assert "nan" not in text
    assert text.rstrip().splitlines()[-1].startswith("passed: ")


def test_text_says_which_clock_of_a_gpu_and_what_ran_its_engines() -> None:
    found = comparison()
    at = replace(found.conditions, clock="gpu_compute", cuda_graph=True)
    gpu = replace(found, conditions=at, device=replace(found.device, facts={"cuda_package": "torch 2.9"}))
    assert "fp32, gpu compute time, CUDA graph, seed 0, through torch 2.9\n" in comparison_text(gpu, require(gpu))


def test_milliseconds_of_cpu_time_are_called_so() -> None:
    found = replace(comparison(), timed_by=CPU)
    assert [row[0] for row in engines(found).rows[:3]] == [f"p{q}, ms of CPU time" for q in (50, 90, 99)]
    assert "CPU" not in comparison_text(comparison(), require(comparison()))


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    found = comparison(file="new\x1b[2J\n.onnx")
    assert "\x1b" not in comparison_text(found, require(found))


def test_markdown_is_one_table_whatever_the_files_are_called() -> None:
    found = comparison(file="a|b<script>*`\n.onnx")
    page = comparison_markdown(found, require(found))
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 3 + len(engines(found).rows)
    assert {line.replace("\\|", "").count("|") for line in table} == {4}
    assert "a\\|b&lt;script&gt;\\*\\` .onnx" in page
    assert page.startswith("**passed**: ")


def test_junit_of_a_kept_requirement_has_its_figures() -> None:
    found = comparison()
    root = ElementTree.fromstring(requirement_junit(found, require(found, 1.1)))
    (suite,) = root
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "time")} == {
        "tests": "1",
        "failures": "0",
        "errors": "0",
        "time": "31.500",
    }
    told = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert (told["device"], told["speedup_low"], told["rounds"]) == ("a device", "1.200000", "40")
    assert told["noise_floor"] == "1.0000 [0.9900, 1.0100]"
    case = suite.find("testcase")
    assert case is not None and case.get("name") == "new.onnx against old.onnx: speed-up of at least 1.1"
    assert case.find("failure") is None and "noise floor" in (case.findtext("system-out") or "")


def test_junit_of_a_missed_requirement_is_a_failure_with_the_reason() -> None:
    found = comparison(1.04)
    root = ElementTree.fromstring(requirement_junit(found, require(found)))
    failure = root.find(".//testcase/failure")
    assert root.get("failures") == "1" and failure is not None
    assert "not shown to be above 1" in failure.get("message", "")


def test_junit_of_a_broken_measurement_is_an_error_and_well_formed() -> None:
    error = MeasureError('a "quoted" <word> & \x00', remedy="look")
    root = ElementTree.fromstring(failed_junit(Path("a.onnx"), Path("b&<.onnx"), error))
    problem = root.find(".//testcase/error")
    assert root.get("errors") == "1" and problem is not None
    assert problem.get("message") == 'a "quoted" <word> & ; look' and problem.get("type") == "MeasureError"


def test_figures_that_are_absent_are_dashes() -> None:
    rows = {row[0]: row[1:] for row in engines(comparison()).rows}
    assert rows["p99, ms"] == ("– (not determined by these samples)",) * 2
    assert rows["Load, ms"] == ("– (not measured here)",) * 2
    assert rows["Precision"] == ("fp32, as asked: the file does not tell",) * 2
    told = replace(comparison().engines[0], precision_share=0.5)
    assert dict(engines(replace(comparison(), engines=(told,))).rows)["Precision"] == "fp32 in 50.0% of the layers"


def test_refused_throughput_says_why() -> None:
    refused = Throughput(
        engine="new", batch=4, threads=1, latency_ms=None, images_per_s=None, refused="a fixed batch of 1"
    )
    assert throughput([refused]).rows == (("4", "1", "new", "– (a fixed batch of 1)", "–"),)


def test_scenario_that_is_not_valid_says_why() -> None:
    found = Scenario(
        engine="new",
        scenario="Server",
        metric=12.5,
        unit="queries/s",
        valid=False,
        problems=("too few queries",),
        queries=1234,
        latency_ms={"p99": 20.0},
        settings={},
    )
    expected = ("Server", "new", "12.5 queries/s", "1,234", "p99 20.0", "no: too few queries", "–")
    assert scenarios([found]).rows == (expected,)
