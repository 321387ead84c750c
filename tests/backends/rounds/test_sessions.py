"""Networks opened several times for a measurement: none sooner than another, within the memory, and closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from practise_backends.errors import CompileError, MeasureError
from practise_backends.fake import FakeBackend, FakeEngine, steady
from practise_backends.interfaces import Capabilities, MeasurementSetup
from practise_backends.rounds import sessions
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.terms import Artifact, Conditions, StoppingRule

NetworkMaker = Callable[..., onnx.ModelProto]
PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=12, max_rounds=12, half_width_percent=0.0, keep_throttled=True
)


class Noting(FakeBackend):
    """Scripted; it notes what is compiled and opened, and fails at the opening of that number."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__(script=lambda artifact: steady(2.0))
        self.compiled: list[bytes | Path] = []
        self.order: list[bytes | Path] = []
        self.engines: list[FakeEngine] = []
        self._fails_at = fails_at

    def compile(self, model: bytes | Path, conditions: Conditions, **how: Any) -> Artifact:
        self.compiled.append(model)
        return super().compile(model, conditions, **how)

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        if len(self.engines) == self._fails_at:
            raise MeasureError("out of memory", remedy="buy some")
        self.order.append(artifact.content)
        self.engines.append(super().open(artifact, conditions))
        return self.engines[-1]

    @property
    def all_closed(self) -> bool:
        return all(engine._closed for engine in self.engines)


def bench(backend: FakeBackend, seed: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None) -> MeasurementSetup:
    return MeasurementSetup(
        backend=backend, conditions=Conditions(seed=seed), stopping_rule=PATIENCE, shapes=dict(shapes or {})
    )


@pytest.fixture
def models(make_network: NetworkMaker) -> dict[str, bytes]:
    names = (ORIGINAL, "new", "other")
    return {name: make_network(count).SerializeToString() for count, name in enumerate(names, 1)}


@pytest.fixture
def candidates(models: dict[str, bytes]) -> dict[str, Candidate]:
    counts = {ORIGINAL: 4, "new": 2, "other": 1}
    return {name: Candidate(model=model, sessions=counts[name]) for name, model in models.items()}


Candidates = dict[str, Candidate]


def test_every_network_is_compiled_once_and_opened_as_often_as_asked(candidates: Candidates) -> None:
    backend = Noting()
    with opened(candidates, bench(backend)) as found:
        assert {name: len(engines) for name, engines in found.engines.items()} == {
            ORIGINAL: 4,
            "new": 2,
            "other": 1,
        }
        assert len(backend.compiled) == 3 and len(backend.engines) == 7
        assert not any(engine._closed for engine in backend.engines)
        assert found.notes == ()
        assert list(found.feeds) == ["image"]
    assert backend.all_closed


class Building(Noting):
    """As TensorRT: two builds of one network differ, and the builder warns."""

    capabilities = Capabilities(builds_differ=True)

    def __init__(self) -> None:
        super().__init__()
        self.builds: list[tuple[bytes | Path, str]] = []

    def compile(self, model: bytes | Path, conditions: Conditions, *, build: int = 0, **how: Any) -> Artifact:
        return replace(super().compile(model, conditions, **how), sha256=f"build {build}", notes=("slow tactic",))

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        engine = super().open(artifact, conditions)
        self.builds.append((self.order[-1], artifact.sha256))
        return engine


def test_every_session_has_a_build_of_its_own_where_builds_differ(candidates: Candidates) -> None:
    backend = Building()
    with opened(candidates, bench(backend)) as found:
        assert len(backend.compiled) == 7
        assert found.notes == ("slow tactic",)
    for candidate in candidates.values():
        own = [build for model, build in backend.builds if model == candidate.model]
        assert own == [f"build {at}" for at in range(candidate.sessions)]


def test_no_network_is_opened_sooner_than_another_on_average(candidates: Candidates, models: dict[str, bytes]) -> None:
    names = {model: name for name, model in models.items()}

    def order(seed: int) -> list[str]:
        backend = Noting()
        with opened(candidates, bench(backend, seed)):
            return [names[bytes(model)] for model in backend.order if isinstance(model, bytes)]

    orders = [[name for name in order(seed) if name != "other"] for seed in range(8)]
    for found in orders:
        assert found == found[::-1]  # alike from both ends
        assert sorted(found) == sorted([ORIGINAL] * 4 + ["new"] * 2)
    assert order(3) == order(3)
    assert len({tuple(found) for found in orders}) > 1


def test_engines_are_closed_where_the_measurement_fails(candidates: Candidates) -> None:
    backend = Noting()
    with pytest.raises(RuntimeError, match="gone"), opened(candidates, bench(backend)):
        raise RuntimeError("the device is gone")
    assert len(backend.engines) == 7 and backend.all_closed


def test_engines_are_closed_where_a_later_one_does_not_open(candidates: Candidates) -> None:
    backend = Noting(fails_at=5)
    with pytest.raises(MeasureError, match="out of memory"), opened(candidates, bench(backend)):
        pytest.fail("it was opened all the same")
    assert len(backend.engines) == 5 and backend.all_closed


def test_nothing_is_opened_where_the_networks_cannot_share_their_input(make_network: NetworkMaker) -> None:
    backend = Noting()
    apart = {
        name: Candidate(model=make_network(1, shape=(1, 4, side, side)).SerializeToString(), sessions=1)
        for name, side in ((ORIGINAL, 8), ("new", 9))
    }
    with pytest.raises(MeasureError, match="earlier network"), opened(apart, bench(backend)):
        pytest.fail("it was opened all the same")
    assert backend.engines == []


def test_nothing_is_opened_where_one_network_does_not_compile(candidates: Candidates) -> None:
    backend = Noting()
    broken = {**candidates, "broken": Candidate(model=b"nothing", sessions=1)}
    with pytest.raises(CompileError), opened(broken, bench(backend)):
        pytest.fail("it was opened all the same")
    assert backend.engines == []


def test_rounds_have_a_column_for_every_session(candidates: Candidates) -> None:
    asked = bench(Noting())
    with opened(candidates, asked) as found:
        timings = measure(found, asked)
    assert timings.engines == (ORIGINAL,) * 4 + ("new",) * 2 + ("other",)
    assert timings.rounds_ms.shape == (12, 7)


def test_shape_of_a_dynamic_input_is_the_one_asked_for(make_network: NetworkMaker) -> None:
    model = make_network(1, shape=("N", 4, "H", "W")).SerializeToString()
    asked = bench(Noting(), shapes={"image": (1, 4, 6, 7)})
    with opened({ORIGINAL: Candidate(model=model, sessions=1)}, asked) as found:
        assert found.feeds["image"].shape == (1, 4, 6, 7)


def test_the_screen_hears_of_compiling_and_loading(candidates: Candidates) -> None:
    notes: list[str] = []

    class Screen:
        def advance(self, done: float, total: float, note: str = "") -> None:
            notes.append(note)

    with opened(candidates, bench(Noting()), Screen()):
        pass
    assert notes == [f"compiling {n} of 3" for n in (1, 2, 3)] + [f"loading {n} of 7" for n in range(1, 8)]


# Memory.


def opened_with(free: int | None, candidates: Candidates, monkeypatch: pytest.MonkeyPatch):
    """How many sessions of each are opened with so much memory free, and the notes."""
    monkeypatch.setattr(sessions, "available_memory", lambda: free)
    backend = Noting()
    with opened(candidates, bench(backend)) as found:
        return {name: len(engines) for name, engines in found.engines.items()}, found.notes


ALL = {ORIGINAL: 4, "new": 2, "other": 1}


def needed(candidates: Candidates, counts: Mapping[str, int]) -> int:
    """Free bytes that just do for so many sessions: three times the file each, in half of the memory."""
    return 2 * 3 * sum(len(bytes(one.model)) * counts[name] for name, one in candidates.items())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fewer", [{ORIGINAL: 3, "new": 2, "other": 1}, {ORIGINAL: 2, "new": 2, "other": 1}, {ORIGINAL: 2, "new": 1, "other": 1}]
)  # fmt: skip
def test_fewer_sessions_are_opened_where_memory_is_short(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch, fewer: dict[str, int]
) -> None:
    free = needed(candidates, fewer)
    counts, notes = opened_with(free, candidates, monkeypatch)
    assert counts == fewer
    assert notes == (
        f"at most {fewer[ORIGINAL]} sessions of each network instead of 4: {free / 2**20:.0f} MiB of memory are free",
    )


def test_all_are_opened_where_memory_does_or_is_not_told(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened_with(needed(candidates, ALL), candidates, monkeypatch) == (ALL, ())
    assert opened_with(None, candidates, monkeypatch) == (ALL, ())


def test_original_is_opened_twice_however_short_memory_is_or_nothing_could_be_told(
    candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, notes = opened_with(1, candidates, monkeypatch)
    assert counts == {ORIGINAL: 2, "new": 1, "other": 1}
    assert len(notes) == 1


def test_one_session_of_each_is_not_called_fewer(models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    once = {name: Candidate(model=model, sessions=1) for name, model in models.items()}
    assert opened_with(1, once, monkeypatch) == (dict.fromkeys(models, 1), ())


def test_weights_in_a_file_beside_the_network_count(
    make_network: NetworkMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "light.onnx"
    onnx.save_model(make_network(3), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    heavy, light = (tmp_path / "weights.bin").stat().st_size, path.stat().st_size
    whole = {ORIGINAL: Candidate(model=path, sessions=4)}
    enough = 2 * 3 * 4 * (heavy + light)
    assert opened_with(enough, whole, monkeypatch) == ({ORIGINAL: 4}, ())
    assert opened_with(enough - 1, whole, monkeypatch)[0] == {ORIGINAL: 3}
