"""Where the milliseconds of a run on a GPU go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from practise_backends.fake import FakeEngine, ScriptedClock, steady
from practise_backends.results.breakdown import RUNS, launch_notes, parts_of
from practise_backends.results.tables import engines as engines_table
from practise_backends.runtimes.tensorrt.engine import Parts
from practise_backends.terms import EngineFigures, Interval, TensorSpec
from samples import measured

FEEDS = {"x": np.zeros((1, 2), np.float32), "other": np.zeros(1, np.float32)}


class Telling:
    """An engine that tells its parts; the device takes `compute_ms`, the host `enqueue_ms` to tell it."""

    inputs = (TensorSpec(name="x", shape=(1, 2), dtype="float32"),)

    def __init__(self, compute_ms: float, enqueue_ms: float) -> None:
        self._compute_ms, self._enqueue_ms = compute_ms, enqueue_ms
        self.fed: list[Any] = []

    def parts_once(self, tensors: Any) -> Parts:
        self.fed.append(tensors)
        return Parts(
            host_to_device_ms=0.1,
            compute_ms=self._compute_ms,
            device_to_host_ms=0.2,
            enqueue_ms=self._enqueue_ms,
            end_to_end_ms=self._compute_ms + 0.5,
        )


def test_sessions_take_turns_with_the_tensors_that_they_name() -> None:
    sessions: Any = [Telling(1.0, 0.2), Telling(3.0, 0.2)]
    found = parts_of(sessions, FEEDS, 0.95)
    assert list(found) == ["host_to_device_ms", "compute_ms", "device_to_host_ms", "enqueue_ms", "end_to_end_ms"]
    assert found["host_to_device_ms"].estimate == pytest.approx(0.1)
    assert 1.0 <= found["compute_ms"].estimate <= 3.0
    assert [len(each.fed) for each in sessions] == [RUNS // 2, RUNS // 2]
    assert all(tensors is each.fed[0] and set(tensors) == {"x"} for each in sessions for tensors in each.fed)


def test_engine_that_cannot_tell_has_none() -> None:
    assert parts_of([FakeEngine(steady(1.0), ScriptedClock())], FEEDS, 0.95) == {}
    assert parts_of([], FEEDS, 0.95) == {}


@pytest.mark.parametrize(("enqueue_ms", "noted"), [(0.7, False), (0.9, True)])
def test_network_that_waits_for_the_host_is_noted(enqueue_ms: float, noted: bool) -> None:
    session: Any = Telling(1.0, enqueue_ms)
    notes = launch_notes({"network": parts_of([session], FEEDS, 0.95), "elsewhere": {}})
    assert bool(notes) == noted
    if noted:
        assert "network is bound by launching" in notes[0] and "90%" in notes[0]


def test_parts_are_rows_of_the_figures() -> None:
    one = Interval(estimate=1.25, low=1.2, high=1.3, confidence=0.95)
    plain: dict[str, Any] = dict.fromkeys(EngineFigures.__dataclass_fields__) | {
        "name": "a", "file": "a.onnx", "sha256": "", "precision": "fp16", "throughput_per_s": 1.0, "file_mb": 1.0,
    }  # fmt: skip
    engines = (EngineFigures(**plain | {"parts_ms": {"compute_ms": one}}), EngineFigures(**plain | {"parts_ms": {}}))
    told = engines_table(replace(measured.comparison(), engines=engines))
    (row,) = [row for row in told.rows if row[0] == "Compute, ms"]
    assert row[1].startswith("1.25") and row[2] != row[1]
