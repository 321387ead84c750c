"""Two networks against each other, on a scripted device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from practise_backends.errors import MeasureError
from practise_backends.fake import FakeBackend, FakeEngine, Script, ScriptedClock, noisy, spiking, steady
from practise_backends.interfaces import Capabilities, MeasurementSetup
from practise_backends.results import compare as module
from practise_backends.results.compare import NEW, compare, verdict_of
from practise_backends.results.footprint import Footprint
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.terms import Artifact, Comparison, Conditions, Interval, StoppingRule

NetworkMaker = Callable[..., onnx.ModelProto]
PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=40, max_rounds=40, half_width_percent=0.0, keep_throttled=True
)


class Rig:
    """Two files and a device that runs their sessions at these times."""

    def __init__(self, make_network: NetworkMaker, folder: Path, before: list[Script], after: list[Script]):
        self.engines: list[FakeEngine] = []
        self.files = folder / "before.onnx", folder / "after.onnx"
        for path, convolutions in zip(self.files, (3, 2), strict=True):
            onnx.save(make_network(convolutions), path)
        self._left = {self.files[0]: list(before), self.files[1]: list(after)}
        self.backend = FakeBackend(ScriptedClock(), lambda artifact: self._left[artifact.content].pop(0))  # type: ignore[index]
        plain = self.backend.open

        def remembering(artifact: Artifact, conditions: Conditions) -> FakeEngine:
            self.engines.append(plain(artifact, conditions))
            return self.engines[-1]

        self.backend.open = remembering  # type: ignore[method-assign]

    def compare(self, batch: int = 1, **stopping_rule: object) -> Comparison:
        sessions = len(next(iter(self._left.values())))
        settled = dataclasses.replace(PATIENCE, sessions=sessions, **stopping_rule)  # type: ignore[arg-type]
        bench = MeasurementSetup(backend=self.backend, conditions=Conditions(batch=batch), stopping_rule=settled)
        return compare(*self.files, bench)


Make = Callable[[list[Script], list[Script]], Rig]


@pytest.fixture
def rig(make_network: NetworkMaker, tmp_path: Path) -> Make:
    return lambda before, after: Rig(make_network, tmp_path, before, after)


def test_speedup_is_the_originals_latency_over_the_new_ones(rig: Make) -> None:
    device = rig([steady(10.0)] * 2, [steady(8.0)] * 2)
    found = device.compare()
    assert found.speedup.estimate == pytest.approx(1.25)
    assert (found.verdict, found.sessions, found.backend) == ("faster", 2, "fake")
    assert found.aa_ratio.estimate == pytest.approx(1.0)
    assert list(found.samples["engines"]) == [ORIGINAL, ORIGINAL, NEW, NEW]
    assert found.samples["rounds_ms"].shape == (found.rounds, 4) == (40, 4)
    assert np.allclose(found.samples["rounds_ms"], [10, 10, 8, 8])
    assert len(device.engines) == 4 and all(engine._closed for engine in device.engines)


def test_slower_network_is_called_slower(rig: Make) -> None:
    found = rig([steady(8.0)] * 2, [steady(10.0)] * 2).compare()
    assert found.speedup.estimate == pytest.approx(0.8)
    assert found.verdict == "slower"


def test_equal_networks_cannot_be_told_apart(rig: Make) -> None:
    scripts = [noisy(steady(10.0), 3.0, seed=n) for n in range(4)]
    found = rig(scripts[:2], scripts[2:]).compare()
    assert found.verdict == "cannot tell"
    assert found.speedup.low < 1 < found.speedup.high


def test_gain_within_what_sessions_of_one_file_differ_by_cannot_be_told(rig: Make) -> None:
    """Each session is steady, but they differ by 5%: a mean gain of 2% says nothing."""
    found = rig([steady(10.0), steady(10.5)], [steady(9.8), steady(10.3)]).compare()
    assert found.speedup.estimate == pytest.approx((10 * 10.5 / 9.8 / 10.3) ** 0.5)
    assert found.session_percent > 2
    assert found.verdict == "cannot tell"


def test_original_that_differs_from_itself_counts_by_its_mean(rig: Make) -> None:
    found = rig([steady(8.0), steady(12.5)], [steady(10.0)] * 2).compare()
    assert found.aa_ratio.estimate == pytest.approx(12.5 / 8)
    assert found.speedup.estimate == pytest.approx(1.0)


def test_figures_of_both_engines_are_read_from_their_samples(rig: Make, tmp_path: Path) -> None:
    found = rig([steady(10.0)] * 2, [steady(8.0)] * 2).compare(batch=4)
    before, after = found.engines
    assert (before.name, after.name) == (ORIGINAL, NEW)
    assert before.p50_ms is not None and before.p50_ms.estimate == pytest.approx(10.0)
    assert after.p50_ms is not None and after.p50_ms.estimate == pytest.approx(8.0)
    assert (before.throughput_per_s, after.throughput_per_s) == pytest.approx((400.0, 500.0))
    assert before.file == str(tmp_path / "before.onnx")
    assert before.file_mb == pytest.approx((tmp_path / "before.onnx").stat().st_size / 1e6)
    assert before.load_ms is None and before.peak_memory_mb is None  # told for ONNX Runtime alone


@pytest.mark.parametrize("footprint", [True, False])
def test_cold_start_is_measured_on_onnxruntime_where_it_is_asked_for(
    make_network: NetworkMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, footprint: bool
) -> None:
    cold = Footprint(
        load_ms=(5.0, 9.0, 7.0),
        first_run_ms=(2.0, 3.0, 1.0),
        peak_rss_mb=120.0,
        file_mb=1.0,
    )
    monkeypatch.setattr(module, "cold_start", lambda path, conditions, shapes: cold)
    device = Rig(make_network, tmp_path, [steady(10.0)] * 2, [steady(8.0)] * 2)
    device.backend.name, device.backend.capabilities = "ort", Capabilities(cold_start=True)
    bench = MeasurementSetup(
        backend=device.backend, conditions=Conditions(), stopping_rule=dataclasses.replace(PATIENCE, sessions=2)
    )
    new = compare(*device.files, bench, footprint=footprint).engines[1]
    expected = (7.0, 2.0, 120.0) if footprint else (None, None, None)
    assert (new.load_ms, new.first_run_ms, new.peak_memory_mb) == expected


def test_cold_start_that_fails_is_a_note_and_loses_nothing(
    make_network: NetworkMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, conditions: Conditions, shapes: object) -> Footprint:
        raise MeasureError("the cold start failed: it ended with status -9", remedy="free memory")

    monkeypatch.setattr(module, "cold_start", killed)
    device = Rig(make_network, tmp_path, [steady(10.0)] * 2, [steady(8.0)] * 2)
    device.backend.name, device.backend.capabilities = "ort", Capabilities(cold_start=True)
    bench = MeasurementSetup(
        backend=device.backend, conditions=Conditions(), stopping_rule=dataclasses.replace(PATIENCE, sessions=2)
    )
    found = compare(*device.files, bench)
    assert found.speedup.estimate == pytest.approx(1.25) and found.engines[1].load_ms is None
    assert f"{NEW}: the cold start failed: it ended with status -9" in found.notes


def test_percentile_that_the_sample_cannot_bound_is_not_told(rig: Make) -> None:
    found = rig([steady(10.0)] * 2, [steady(8.0)] * 2).compare()
    assert found.engines[1].p99_ms is None  # 80 samples


def test_discarded_rounds_are_counted_and_take_no_part(rig: Make) -> None:
    before = [steady(10.0), spiking(steady(10.0), {25, 29}, 20.0)]
    found = rig(before, [steady(8.0)] * 2).compare()
    assert len(found.discarded) == 2 and found.rounds == 40
    assert np.isnan(found.samples["rounds_ms"]).sum() == 2 * 4
    assert found.engines[0].throughput_per_s == pytest.approx(100.0)


def test_confidence_is_the_one_asked_for(rig: Make) -> None:
    found = rig([steady(10.0)] * 2, [steady(8.0)] * 2).compare(confidence=0.9)
    figures = found.engines[0].p50_ms
    assert figures is not None
    assert {found.speedup.confidence, found.aa_ratio.confidence, figures.confidence} == {0.9}


def test_errors_of_all_estimators_are_told_with_the_one_that_was_taken(rig: Make) -> None:
    scripts = [noisy(steady(10.0), 3.0, seed=n) for n in range(8)]
    found = rig(scripts[:4], scripts[4:]).compare()
    assert found.estimator in found.estimator_errors_percent
    assert len(found.estimator_errors_percent) == 4
    assert all(error > 0 for error in found.estimator_errors_percent.values())


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
def test_verdict_takes_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert verdict_of(Interval(estimate=(low + high) / 2, low=low, high=high, confidence=0.95)) == verdict
