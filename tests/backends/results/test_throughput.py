"""Images a second: the arithmetic on a scripted backend, and once on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from practise_backends.errors import CompileError, MeasureError
from practise_backends.fake import FakeBackend, FakeEngine, steady
from practise_backends.interfaces import Backend, MeasurementSetup
from practise_backends.results.throughput import measure_throughput
from practise_backends.runtimes.onnx_file import content_of, fixed_batch
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Artifact, Conditions, StoppingRule, TensorSpec

PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=12, max_rounds=12, half_width_percent=0.0, sessions=2, keep_throttled=True
)
NetworkMaker = Callable[..., onnx.ModelProto]


class NotingBackend(FakeBackend):
    """Scripted, and says at every opening how many engines are open."""

    def __init__(self, ms: Mapping[bytes, float] | None = None) -> None:
        super().__init__(script=lambda artifact: steady((ms or {}).get(content_of(artifact.content), 2.0)))
        self.engines: list[tuple[FakeEngine, Conditions]] = []
        self.most_open = 0

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        engine = super().open(artifact, conditions)
        self.engines.append((engine, conditions))
        self.most_open = max(self.most_open, sum(not each._closed for each, _ in self.engines))
        return engine


@pytest.fixture
def files(make_network: NetworkMaker) -> dict[str, bytes]:
    return {
        "original": make_network(3).SerializeToString(),
        "new": make_network(2).SerializeToString(),
        "fixed": make_network(1, shape=(2, 4, 8, 8)).SerializeToString(),
    }


def stand(backend: Backend) -> MeasurementSetup:
    """Where the points are measured; engines that are not scripted may lose most of their rounds to a busy machine."""
    stopping_rule = replace(PATIENCE, max_rounds=200) if isinstance(backend, OrtBackend) else PATIENCE
    return MeasurementSetup(backend=backend, conditions=Conditions(), stopping_rule=stopping_rule)


class Screen:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, float, str]] = []

    def advance(self, done: float, total: float, note: str = "") -> None:
        self.shown.append((done, total, note))


def test_rate_is_batch_over_median_latency_at_every_point(files: dict[str, bytes]) -> None:
    backend = NotingBackend({files["original"]: 4.0, files["new"]: 2.0, files["fixed"]: 1.0})
    found = measure_throughput(files, stand(backend), [1, 2], [1, 2])
    rates = {
        (each.engine, each.batch, each.threads): each.images_per_s.estimate if each.images_per_s else None
        for each in found
    }
    assert rates == {
        (name, batch, threads): rate
        for threads in (1, 2)
        for name, batch, rate in [
            ("original", 1, pytest.approx(250)),
            ("new", 1, pytest.approx(500)),
            ("fixed", 1, None),
            ("original", 2, pytest.approx(500)),
            ("new", 2, pytest.approx(1000)),
            ("fixed", 2, pytest.approx(2000)),
        ]
    }


def test_a_batch_that_a_network_cannot_take_is_refused_with_the_reason(files: dict[str, bytes]) -> None:
    found = measure_throughput({"fixed": files["fixed"]}, stand(NotingBackend()), [1, 2, 8], [1])
    refused = [each for each in found if each.refused]
    assert [each.batch for each in refused] == [1, 8]
    assert all((each.latency_ms, each.images_per_s) == (None, None) for each in refused)
    assert refused[0].refused == ("the network was exported with a fixed batch of 2; export it with a dynamic batch")


def test_a_point_that_cannot_be_measured_is_refused_with_the_reason(files: dict[str, bytes]) -> None:
    class Stubborn(FakeBackend):
        def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
            if conditions.batch == 2:
                raise MeasureError("it cannot be reshaped", remedy="export it again")
            return super().open(artifact, conditions)

    backend = Stubborn(script=lambda artifact: steady(2.0))
    found = measure_throughput({"original": files["original"]}, stand(backend), (1, 2, 4), (1,))
    assert [(one.batch, one.refused) for one in found] == [(1, ""), (2, "it cannot be reshaped"), (4, "")]


def test_a_network_that_is_refused_is_not_opened(files: dict[str, bytes]) -> None:
    backend = NotingBackend()
    measure_throughput({"fixed": files["fixed"]}, stand(backend), [1], [1])
    assert backend.engines == []


def test_one_point_is_closed_before_the_next_is_opened(files: dict[str, bytes]) -> None:
    backend = NotingBackend()
    measure_throughput({"original": files["original"], "new": files["new"]}, stand(backend), [1, 2], [1, 2])
    assert len(backend.engines) == 16  # 4 points, 2 networks, 2 sessions
    assert backend.most_open == 4
    assert all(engine._closed for engine, _ in backend.engines)
    assert {(asked.batch, asked.threads) for _, asked in backend.engines} == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_interval_of_the_rate_is_that_of_the_latency_turned_over(network_file: Path) -> None:
    (found,) = measure_throughput({"two": network_file}, stand(OrtBackend()), [2], [1])
    assert found.latency_ms is not None
    assert found.images_per_s is not None
    assert found.images_per_s.low == pytest.approx(2000 / found.latency_ms.high)
    assert found.images_per_s.high == pytest.approx(2000 / found.latency_ms.low)
    assert 0 < found.images_per_s.low <= found.images_per_s.estimate <= found.images_per_s.high


def test_networks_run_side_by_side_on_onnxruntime(files: dict[str, bytes]) -> None:
    found = measure_throughput(files, stand(OrtBackend()), [1, 2], [1])
    assert [(each.engine, each.batch, bool(each.refused)) for each in found] == [
        ("original", 1, False),
        ("new", 1, False),
        ("fixed", 1, True),
        ("original", 2, False),
        ("new", 2, False),
        ("fixed", 2, False),
    ]


def test_progress_goes_on_over_all_points(files: dict[str, bytes]) -> None:
    screen = Screen()
    measure_throughput({"new": files["new"]}, stand(NotingBackend()), [1, 2], [1, 2], screen)
    assert all(total == 4 for _, total, _ in screen.shown)
    assert [done for done, _, _ in screen.shown] == sorted(done for done, _, _ in screen.shown)
    assert screen.shown[-1][2].startswith("batch 2, 2 thread(s)")


@pytest.mark.parametrize(("batches", "threads"), [([], [1]), ([1], []), ([0], [1]), ([1], [-1])])
def test_points_that_no_engine_can_run_are_refused(
    files: dict[str, bytes], batches: list[int], threads: list[int]
) -> None:
    with pytest.raises(MeasureError, match="to measure is"):
        measure_throughput(files, stand(NotingBackend()), batches, threads)


def test_what_is_not_a_network_is_an_error_not_a_refusal() -> None:
    with pytest.raises(CompileError):
        measure_throughput({"broken": b"nothing"}, stand(NotingBackend()), [1], [1])


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [([(-1, 3)], None), ([(4, 3)], 4), ([(7,), (-1, 3)], None), ([(), (5, 2)], 5), ([()], 1), ([], 1)],
)
def test_batch_is_fixed_where_no_input_leaves_it_open(shapes: list[tuple[int, ...]], batch: int | None) -> None:
    inputs = [TensorSpec(name=str(at), shape=shape, dtype="float32") for at, shape in enumerate(shapes)]
    assert fixed_batch(inputs) == batch
