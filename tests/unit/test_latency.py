"""Savings by block, on a scripted device whose times are known."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from networks import tiny_resnet
from practise_backends.fake import FakeBackend, Script, ScriptedClock, drifting, noisy, steady
from practise_backends.intervals import ORIGINAL, REPEAT
from practise_backends.terms import Artifact, Conditions, Patience
from practise_deploy.model.blocks import droppable, find_blocks
from practise_deploy.model.onnx_graph import with_cuts, without
from practise_deploy.model.trace import trace
from practise_deploy.planning.latency import Bench, measure_block_latency, measure_reduction

SHAPE = (1, 3, 16, 16)
BASELINE_MS = 10.0
PATIENCE = Patience(budget_s=60, warmup_s=0.0, min_rounds=30, max_rounds=40, enough_percent=1e-9)


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


@pytest.fixture(scope="module")
def cuttable():
    traced, _ = trace(tiny_resnet(), SHAPE)
    blocks = droppable(find_blocks(traced, SHAPE))
    return with_cuts(traced, blocks, SHAPE), {block.name: block for block in blocks}


class Device:
    """Runs the original and every variant of it at scripted speeds, and remembers what was opened."""

    def __init__(self, cuttable, sets: dict[tuple[str, ...], Script], original: list[Script]) -> None:
        model, blocks = cuttable
        self.known = {
            hashlib.sha256(without(model, [blocks[n] for n in names]).SerializeToString()).hexdigest(): names
            for names in ((), *sets)
        }
        self.sets, self.original, self.opened = sets, list(original), []
        self.engines = []

    def backend(self, clock: ScriptedClock) -> FakeBackend:
        device = self

        class Remembering(FakeBackend):
            def open(self, artifact: Artifact, conditions: Conditions):
                device.engines.append(super().open(artifact, conditions))
                return device.engines[-1]

        return Remembering(clock, self.script)

    def script(self, artifact: Artifact) -> Script:
        names = self.known[artifact.sha256]
        self.opened.append(names)
        return self.sets[names] if names else self.original.pop(0)


def table_of(cuttable, ms: dict[str, float | Script], original: list[Script] | None = None, **patience):
    model, blocks = cuttable
    scripts = {(name,): steady(each) if isinstance(each, float) else each for name, each in ms.items()}
    device = Device(cuttable, scripts, original or [steady(BASELINE_MS)] * 2)
    settings = {name: getattr(PATIENCE, name) for name in PATIENCE.__slots__} | patience
    bench = Bench(backend=device.backend(ScriptedClock()), conditions=Conditions(), patience=Patience(**settings))
    table = measure_block_latency(model, "tiny", [blocks[name] for name in ms], bench, Silent())
    return table, {saving.block: saving for saving in table.savings}, device


def test_saving_is_the_original_minus_the_network_without_the_block(cuttable):
    table, savings, _ = table_of(cuttable, {"layer1.0": 9.0, "layer2.1": 8.5})
    assert table.baseline_ms.estimate == pytest.approx(10.0)
    assert savings["layer1.0"].saving_ms.estimate == pytest.approx(1.0)
    assert savings["layer1.0"].reduction_percent.estimate == pytest.approx(10.0)
    assert savings["layer2.1"].saving_ms.estimate == pytest.approx(1.5)
    assert all(saving.distinguishable for saving in savings.values())


def test_blocks_of_one_class_are_pooled(cuttable):
    """layer1's blocks are equal: their measurements are of one saving."""
    _, savings, _ = table_of(cuttable, {"layer1.0": 9.0, "layer1.1": 8.8, "layer2.1": 9.5})
    pooled = 10 - (9.0 * 8.8) ** 0.5  # ratios are averaged as logs
    assert savings["layer1.0"].saving_ms.estimate == pytest.approx(pooled)
    assert savings["layer1.1"].saving_ms == savings["layer1.0"].saving_ms
    assert savings["layer1.0"].pooled_with == ("layer1.1",)
    assert savings["layer2.1"].pooled_with == ()
    assert savings["layer2.1"].saving_ms.estimate == pytest.approx(0.5)


def test_pooling_narrows_the_interval(cuttable):
    noise: dict[str, Script] = {
        f"layer1.{n}": noisy(steady(9.0), 5.0, seed=n) for n in range(3)
    } | {"layer2.1": noisy(steady(9.0), 5.0, seed=9)}  # fmt: skip
    _, savings, _ = table_of(cuttable, noise)

    def width(name: str) -> float:
        return savings[name].saving_ms.high - savings[name].saving_ms.low

    assert width("layer1.0") < width("layer2.1")


def test_block_that_costs_nothing_is_not_distinguishable(cuttable):
    original = [noisy(steady(10.0), 2.0, seed=1), noisy(steady(10.0), 2.0, seed=2)]
    none: dict[str, float | Script] = {"layer1.0": noisy(steady(10.0), 2.0, seed=3), "layer2.1": 8.0}
    table, savings, _ = table_of(cuttable, none, original)
    assert not savings["layer1.0"].distinguishable
    assert savings["layer2.1"].distinguishable
    assert savings["layer1.0"].saving_ms.low < table.resolution_ms


def test_block_that_is_slower_to_leave_out_is_not_distinguishable(cuttable):
    _, savings, _ = table_of(cuttable, {"layer1.0": 10.5})
    assert savings["layer1.0"].saving_ms.estimate == pytest.approx(-0.5)
    assert not savings["layer1.0"].distinguishable


def test_saving_below_what_the_original_differs_from_itself_is_not_distinguishable(cuttable):
    """The original opened twice differs by 4%: 2% of a block cannot be believed, however steady."""
    table, savings, _ = table_of(cuttable, {"layer1.0": 9.8, "layer2.1": 8.0}, [steady(9.8), steady(10.2)])
    assert table.aa_ratio.estimate == pytest.approx(10.2 / 9.8)
    assert table.resolution_ms == pytest.approx(9.8 * (10.2 / 9.8 - 1))
    assert savings["layer1.0"].saving_ms.low > 0
    assert not savings["layer1.0"].distinguishable
    assert savings["layer2.1"].distinguishable


def test_resolution_of_a_quiet_device_is_nothing(cuttable):
    table, _, _ = table_of(cuttable, {"layer1.0": 9.0})
    assert table.resolution_ms == pytest.approx(0.0, abs=1e-9)
    assert table.aa_ratio.estimate == pytest.approx(1.0)


def test_resolution_of_a_noisy_device_is_at_least_half_the_width_of_a_against_a(cuttable):
    original = [noisy(steady(10.0), 3.0, seed=1), noisy(steady(10.0), 3.0, seed=2)]
    table, _, _ = table_of(cuttable, {"layer1.0": 9.0}, original)
    half = (table.aa_ratio.high - table.aa_ratio.low) / 2
    assert table.resolution_ms >= table.baseline_ms.estimate * half > 0


def test_drift_of_the_device_cancels(cuttable):
    def factor(now_s: float) -> float:
        return 1 + now_s  # twice as slow after a second

    def drift(ms: float) -> Script:
        return drifting(steady(ms), factor)

    _, savings, _ = table_of(cuttable, {"layer1.0": drift(8.0)}, [drift(10.0), drift(10.0)])
    assert savings["layer1.0"].reduction_percent.estimate == pytest.approx(20.0, abs=1.0)


def test_samples_are_kept_and_hold_the_original_twice(cuttable):
    table, _, device = table_of(cuttable, {"layer1.0": 9.0, "layer2.1": 8.0})
    assert list(table.samples["engines"]) == [ORIGINAL, REPEAT, "layer1.0", "layer2.1"]
    assert table.samples["rounds_ms"].shape == (table.rounds, 4) == (30, 4)
    assert np.allclose(table.samples["rounds_ms"], [10, 10, 9, 8])
    assert device.opened == [(), (), ("layer1.0",), ("layer2.1",)]
    assert table.input_shape == SHAPE


def closed(engine) -> bool:
    return engine._closed


def test_all_engines_are_closed(cuttable):
    _, _, device = table_of(cuttable, {"layer1.0": 9.0})
    assert len(device.engines) == 3 and all(closed(engine) for engine in device.engines)


def test_engines_are_closed_where_measuring_fails(cuttable):
    def breaks(call: int, now_s: float) -> float:
        raise RuntimeError("the device is gone")

    model, blocks = cuttable
    device = Device(cuttable, {("layer1.0",): breaks}, [steady(10.0)] * 2)
    bench = Bench(backend=device.backend(ScriptedClock()), conditions=Conditions(), patience=PATIENCE)
    with pytest.raises(RuntimeError, match="gone"):
        measure_block_latency(model, "tiny", [blocks["layer1.0"]], bench, Silent())
    assert len(device.engines) == 3 and all(closed(engine) for engine in device.engines)


def reduction(cuttable, names: tuple[str, ...], script: Callable[[], Script], **patience):
    model, blocks = cuttable
    device = Device(cuttable, {names: script()}, [noisy(steady(10.0), 2.0, seed=n) for n in (1, 2)])
    settings = {name: getattr(PATIENCE, name) for name in PATIENCE.__slots__} | patience
    bench = Bench(backend=device.backend(ScriptedClock()), conditions=Conditions(), patience=Patience(**settings))
    return measure_reduction(model, [blocks[name] for name in names], bench, Silent())


def test_reduction_of_a_set_is_measured_with_all_of_it_gone(cuttable):
    found = reduction(cuttable, ("layer1.0", "layer2.1", "layer2.2"), lambda: steady(7.0))
    assert found.low < 30 < found.high
    assert found.estimate == pytest.approx(30.0, abs=1.0)


def test_reduction_keeps_the_confidence_that_was_asked_for(cuttable):
    usual = reduction(cuttable, ("layer1.0",), lambda: noisy(steady(9.0), 3.0, seed=4))
    sure = reduction(cuttable, ("layer1.0",), lambda: noisy(steady(9.0), 3.0, seed=4), confidence=0.999)
    assert (usual.confidence, sure.confidence) == (0.95, 0.999)
    assert sure.low < usual.low < usual.high < sure.high


def test_savings_keep_the_confidence_that_was_asked_for(cuttable):
    table, savings, _ = table_of(cuttable, {"layer1.0": 9.0}, confidence=0.9)
    assert table.baseline_ms.confidence == savings["layer1.0"].saving_ms.confidence == 0.9
    assert savings["layer1.0"].reduction_percent.confidence == 0.9
