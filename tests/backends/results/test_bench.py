"""All figures of one network; files of ONNX Runtime's own format; what is refused before it is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest

from practise_backends.errors import BackendMissing, CompileError
from practise_backends.fake import FakeBackend, steady
from practise_backends.interfaces import Backend, MeasurementSetup
from practise_backends.loadgen import run as loadgen
from practise_backends.options import BenchOptions
from practise_backends.results.bench import ALONE, bench
from practise_backends.results.footprint import cold_start, file_mb
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, StoppingRule

CONDITIONS = Conditions()
QUICK = StoppingRule(budget_s=0.3, warmup_s=0.02, min_rounds=10)


@pytest.fixture
def ort_file(network_file: Path) -> Path:
    """The chain of two convolutions in ONNX Runtime's own format."""
    path = network_file.with_suffix(".ort")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(network_file), options, providers=["CPUExecutionProvider"])
    return path


def at(backend: Backend, **shapes: tuple[int, ...]) -> MeasurementSetup:
    return MeasurementSetup(backend=backend, conditions=CONDITIONS, stopping_rule=QUICK, shapes=shapes)


def scripted(ms: float = 2.0) -> FakeBackend:
    return FakeBackend(script=lambda artifact: steady(ms))


def test_figures_of_a_network_alone(network_file: Path) -> None:
    found = bench(network_file, at(scripted()))
    assert found.speedup is None and found.verdict is None
    (engine,) = found.engines
    assert engine.name == ALONE and engine.p50_ms is not None and engine.p50_ms.estimate == pytest.approx(2)
    assert engine.throughput_per_s == pytest.approx(500)
    assert found.aa_ratio.estimate == pytest.approx(1) and found.sessions == 6
    assert found.samples["rounds_ms"].shape == (found.rounds, 6)
    assert set(found.samples["engines"]) == {ALONE}


def test_another_network_makes_it_a_comparison(make_network: Callable, network_file: Path) -> None:
    other = network_file.with_name("other.onnx")
    onnx.save(make_network(3), other)
    found = bench(network_file, at(scripted()), BenchOptions(against=other, batches=(1, 2)))
    assert found.speedup is not None and found.speedup.estimate == pytest.approx(1)
    assert found.verdict is not None
    assert [engine.file for engine in found.engines] == [str(other), str(network_file)]
    assert [(one.batch, one.engine) for one in found.throughput] == [
        (1, "original"),
        (1, "new"),
        (2, "original"),
        (2, "new"),
    ]


def test_scenarios_of_loadgen_are_run_where_they_are_asked(network_file: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    found = bench(
        network_file, at(OrtBackend()), BenchOptions(scenarios=("SingleStream",), scenario_s=0.2, footprint=False)
    )
    assert [(one.engine, one.scenario) for one in found.scenarios] == [(ALONE, "SingleStream")]


def test_missing_loadgen_is_said_before_anything_is_measured(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise BackendMissing("LoadGen's scenarios need mlcommons-loadgen", remedy="install it")

    monkeypatch.setattr(loadgen, "import_loadgen", missing)
    monkeypatch.setattr(
        "practise_backends.results.bench.measure_engines", lambda *_, **__: pytest.fail("it was measured")
    )
    with pytest.raises(BackendMissing, match="mlcommons-loadgen"):
        bench(network_file, at(scripted()), BenchOptions(scenarios=("Offline",)))


def test_own_format_of_the_runtime_runs_as_the_network_does(network_file: Path, ort_file: Path) -> None:
    backend = OrtBackend()
    plain, own = (backend.compile(path, CONDITIONS) for path in (network_file, ort_file))
    assert (own.format, own.precision_share, own.inputs) == ("ort", None, plain.inputs)
    by_bytes = backend.compile(ort_file.read_bytes(), CONDITIONS)
    assert (by_bytes.format, by_bytes.sha256) == ("ort", own.sha256)
    feeds = random_feeds(plain.inputs)
    first, second = (backend.open(artifact, CONDITIONS).run(feeds)["features"] for artifact in (plain, own))
    assert first == pytest.approx(second, rel=1e-4, abs=1e-6)


def test_own_format_of_the_runtime_is_benched(ort_file: Path) -> None:
    found = bench(ort_file, at(OrtBackend()), BenchOptions(footprint=False))
    assert found.engines[0].precision_share is None
    assert found.engines[0].file_mb == file_mb(ort_file) == pytest.approx(ort_file.stat().st_size / 1e6)
    assert len(cold_start(ort_file, CONDITIONS, repeats=1).load_ms) == 1


def test_damaged_file_of_the_runtimes_own_format_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "damaged.ort"
    path.write_bytes(b"not a network")
    with pytest.raises(CompileError, match=r"damaged\.ort does not load") as found:
        OrtBackend().compile(path, CONDITIONS)
    assert "convert the ONNX file again" in found.value.remedy


def test_throughput_by_batch_is_measured_of_an_ort_file_too(ort_file: Path) -> None:
    found = bench(ort_file, at(OrtBackend()), BenchOptions(batches=(1, 2), footprint=False))
    assert [(one.batch, bool(one.refused)) for one in found.throughput] == [(1, False), (2, False)]


def test_the_first_dimension_of_a_shape_is_the_batch_of_each_point(network_file: Path) -> None:
    found = bench(network_file, at(scripted(), image=(1, 4, 8, 8)), BenchOptions(batches=(1, 3), footprint=False))
    assert [one.batch for one in found.throughput] == [1, 3]
    assert all(one.images_per_s is not None for one in found.throughput)
