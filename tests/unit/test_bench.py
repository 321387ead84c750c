"""The new engine against the original one, on a scripted device."""

import hashlib
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from practise_backends.fake import FakeBackend, Script, ScriptedClock, noisy, steady
from practise_backends.intervals import ORIGINAL
from practise_backends.terms import Artifact, Conditions, Interval, Patience
from practise_deploy.shipping.bench import NEW, measure_speedup, verdict_of

PATIENCE = Patience(budget_s=60, warmup_s=0.0, min_rounds=40, max_rounds=40, enough_percent=1e-9)


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


def network(path: Path, operator: str, batch: int = 1) -> Path:
    """One operator on four numbers."""
    node = helper.make_node(operator, ["input"], ["logits"])
    shape = [batch, 4]
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def measured(tmp_path: Path, before: list[Script], after: Script, batch: int = 1, confidence: float = 0.95):
    first, second = network(tmp_path / "a.onnx", "Relu", batch), network(tmp_path / "b.onnx", "Neg", batch)
    original, originals, engines = hashlib.sha256(first.read_bytes()).hexdigest(), list(before), []

    class Remembering(FakeBackend):
        def open(self, artifact: Artifact, conditions: Conditions):
            engines.append(super().open(artifact, conditions))
            return engines[-1]

    backend = Remembering(ScriptedClock(), lambda a: originals.pop(0) if a.sha256 == original else after)
    patience = Patience(
        **{name: getattr(PATIENCE, name) for name in PATIENCE.__slots__ if name != "confidence"}, confidence=confidence
    )
    found = measure_speedup(first, second, backend, Conditions(batch=batch), patience, Silent())
    return found, engines


def test_speedup_is_the_originals_latency_over_the_new_ones(tmp_path):
    found, engines = measured(tmp_path, [steady(10.0)] * 2, steady(8.0))
    assert found.speedup.estimate == pytest.approx(1.25)
    assert found.verdict == "faster"
    assert found.aa_ratio.estimate == pytest.approx(1.0)
    assert list(found.samples["engines"]) == [ORIGINAL, "original (again)", NEW]
    assert found.samples["rounds_ms"].shape == (found.rounds, 3) == (40, 3)
    assert len(engines) == 3 and all(engine._closed for engine in engines)


def test_slower_network_is_called_slower(tmp_path):
    found, _ = measured(tmp_path, [steady(8.0)] * 2, steady(10.0))
    assert found.speedup.estimate == pytest.approx(0.8)
    assert found.verdict == "slower"


def test_equal_networks_cannot_be_told_apart(tmp_path):
    scripts = [noisy(steady(10.0), 3.0, seed=n) for n in (1, 2, 3)]
    found, _ = measured(tmp_path, scripts[:2], scripts[2])
    assert found.verdict == "cannot tell"
    assert found.speedup.low < 1 < found.speedup.high


def test_original_that_differs_from_itself_counts_by_its_mean(tmp_path):
    found, _ = measured(tmp_path, [steady(8.0), steady(12.5)], steady(10.0))
    assert found.aa_ratio.estimate == pytest.approx(12.5 / 8)
    assert found.speedup.estimate == pytest.approx(1.0)


def test_figures_of_both_engines_are_read_from_their_samples(tmp_path):
    found, _ = measured(tmp_path, [steady(10.0)] * 2, steady(8.0), batch=4)
    before, after = found.engines
    assert (before.name, after.name) == (ORIGINAL, NEW)
    assert before.p50_ms is not None and before.p50_ms.estimate == pytest.approx(10.0)
    assert after.p50_ms is not None and after.p50_ms.estimate == pytest.approx(8.0)
    assert (before.throughput_per_s, after.throughput_per_s) == pytest.approx((400.0, 500.0))
    assert before.file_mb == pytest.approx((tmp_path / "a.onnx").stat().st_size / 1e6)
    assert before.load_ms is None and before.peak_memory_mb is None  # told for ONNX Runtime alone


def test_percentile_that_the_sample_cannot_bound_is_not_told(tmp_path):
    found, _ = measured(tmp_path, [steady(10.0)] * 2, steady(8.0))
    assert found.engines[1].p99_ms is None  # 40 rounds


def test_confidence_is_the_one_asked_for(tmp_path):
    found, _ = measured(tmp_path, [steady(10.0)] * 2, steady(8.0), confidence=0.9)
    figures = found.engines[0].p50_ms
    assert figures is not None
    assert {found.speedup.confidence, found.aa_ratio.confidence, figures.confidence} == {0.9}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.2, "faster"),
        (1.0, 1.2, "cannot tell"),
        (0.9, 1.1, "cannot tell"),
        (0.9, 1.0, "cannot tell"),
        (0.8, 0.99, "slower"),
    ],
)
def test_verdict_takes_the_whole_interval(low, high, verdict):
    assert verdict_of(Interval(estimate=(low + high) / 2, low=low, high=high, confidence=0.95)) == verdict
