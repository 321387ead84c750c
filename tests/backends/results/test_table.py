"""The latency table, on a scripted device whose savings are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from practise_backends.fake import FakeBackend, FakeEngine, Script, ScriptedClock, drifting, noisy, steady
from practise_backends.interfaces import MeasurementSetup
from practise_backends.results.table import measure_sets, measure_table, measure_without, samples_digest
from practise_backends.results.table_design import Cut, design_of
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.terms import Artifact, Conditions, LatencyTable, Saving, StoppingRule

CUTS = [
    Cut(block=name, latency_class=at)
    for at, names in enumerate((("a0", "a1", "a2"), ("b0", "b1"), ("c0",)))
    for name in names
]
SAVED_MS = {"a0": 1.0, "a1": 1.0, "a2": 1.0, "b0": 0.5, "b1": 0.5, "c0": 2.0}
WHOLE_MS = 10.0
PATIENCE = StoppingRule(
    budget_s=1e6, warmup_s=0.0, min_rounds=30, max_rounds=30, half_width_percent=0.0, keep_throttled=True
)
TimesOf = Callable[[tuple[str, ...], int], Script]
"""(dropped blocks, which session of that network) -> its times."""


class Rig:
    """A network of named blocks on a device with scripted times; it remembers what was opened."""

    def __init__(self, file: Path, times: TimesOf, stopping_rule: StoppingRule = PATIENCE) -> None:
        self.opened: list[tuple[str, ...]] = []
        self.engines: list[FakeEngine] = []
        self._content, self._folder, self._times = file.read_bytes(), file.parent, times
        backend = FakeBackend(ScriptedClock(), self._script)
        self.bench = MeasurementSetup(backend=backend, conditions=Conditions(), stopping_rule=stopping_rule)

    def without(self, dropped: tuple[str, ...]) -> Path:
        path = self._folder / f"{'+'.join(dropped) or ORIGINAL}.onnx"
        path.write_bytes(self._content)
        return path

    def _script(self, artifact: Artifact) -> Script:
        name = Path(str(artifact.content)).stem
        dropped = () if name == ORIGINAL else tuple(name.split("+"))
        self.opened.append(dropped)
        return self._times(dropped, self.opened.count(dropped) - 1)

    def table(self, cuts: Sequence[Cut] = CUTS) -> LatencyTable:
        return measure_table("net", cuts, self.without, self.bench)


def saved(dropped: tuple[str, ...], share: float = 1.0) -> float:
    """Milliseconds without these blocks; together they save that share of their sum."""
    whole = sum(SAVED_MS[name] for name in dropped)
    return WHOLE_MS - whole * (share if len(dropped) > 1 else 1.0)


def additive(dropped: tuple[str, ...], session: int) -> Script:
    return steady(saved(dropped))


def by_block(table: LatencyTable) -> dict[str, Saving]:
    return {saving.block: saving for saving in table.savings}


def only(file: Path, *names: str, times: TimesOf = additive, stopping_rule: StoppingRule = PATIENCE) -> LatencyTable:
    """A table of some of the blocks."""
    return Rig(file, times, stopping_rule).table([cut for cut in CUTS if cut.block in names])


# The design.


def test_design_opens_the_original_four_times_a_block_of_each_class_twice_and_its_twin_once() -> None:
    design = design_of(CUTS, seed=0)
    counts = {one.name: one.sessions for one in design.variants()}
    assert counts[ORIGINAL] == 4
    assert design.firsts == {0: "a0", 1: "b0", 2: "c0"}
    assert [counts[name] for name in design.firsts.values()] == [2, 2, 2]
    assert [counts[name] for name in design.twins.values()] == [1, 1]
    assert len(design.sets) == 6
    assert all(counts[" + ".join(names)] == 1 for names in design.sets)
    assert len(counts) == 1 + 3 + 2 + 6


def test_twin_is_another_block_of_the_class_drawn_at_random() -> None:
    drawn = {design_of(CUTS, seed).twins[0] for seed in range(20)}
    assert drawn == {"a1", "a2"}
    assert all(design_of(CUTS, seed).twins.keys() == {0, 1} for seed in range(20))


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_different_ordered_and_hold_two_blocks_at_least_but_not_all(seed: int) -> None:
    order = [cut.block for cut in CUTS]
    sets = design_of(CUTS, seed).sets
    assert len(set(sets)) == len(sets)
    for names in sets:
        assert 2 <= len(names) < len(order)
        assert list(names) == sorted(names, key=order.index)


def test_seed_decides_the_design() -> None:
    assert design_of(CUTS, seed=1) == design_of(CUTS, seed=1)
    assert design_of(CUTS, seed=1).sets != design_of(CUTS, seed=2).sets


@pytest.mark.parametrize(("blocks", "sets"), [(1, []), (2, [("a0", "a1")])])
def test_few_blocks_have_few_sets(blocks: int, sets: list[tuple[str, ...]]) -> None:
    assert list(design_of(CUTS[:blocks], seed=0).sets) == sets


# Savings.


def test_saving_is_the_original_minus_the_network_without_the_block(network_file: Path) -> None:
    table = Rig(network_file, additive).table()
    assert table.baseline_ms.estimate == pytest.approx(WHOLE_MS)
    found = by_block(table)
    assert [found[name].saving_ms.estimate for name in SAVED_MS] == pytest.approx(list(SAVED_MS.values()))
    assert found["b1"].reduction_percent.estimate == pytest.approx(5.0)
    assert all(saving.distinguishable for saving in table.savings)


def test_blocks_of_one_class_share_a_figure_and_say_which_was_measured(network_file: Path) -> None:
    table = Rig(network_file, additive).table()
    found, twin = by_block(table), table.twins[0].blocks[1]
    assert found["a0"].pooled_with == ("a1", "a2") and found["c0"].pooled_with == ()
    assert found["a0"].saving_ms == found["a1"].saving_ms == found["a2"].saving_ms
    assert {name for name, saving in found.items() if not saving.measured} == {"a1", "a2"} - {twin}


def test_shared_figure_is_pooled_over_all_sessions_of_the_block_and_its_twin(network_file: Path) -> None:
    """The original's own sessions differ by 2%, so a twin that differs by less is taken for equal."""

    def times(dropped: tuple[str, ...], session: int) -> Script:
        return steady({(): (10.0, 10.0, 10.2, 10.2)[session], ("b0",): 9.0}.get(dropped, 9.1))

    table = only(network_file, "b0", "b1", times=times)
    original, without = (10 * 10.2) ** 0.5, (9.0 * 9.0 * 9.1) ** (1 / 3)  # logs are averaged
    assert table.twins[0].same
    reduction = by_block(table)["b0"].reduction_percent
    assert reduction.estimate == pytest.approx(100 * (1 - without / original))


def test_block_that_costs_nothing_is_not_distinguishable(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        ms = 8.0 if dropped == ("b0",) else WHOLE_MS
        return noisy(steady(ms), 1.0, seed=100 * len("".join(dropped)) + 10 * ("c0" in dropped) + session)

    found = by_block(only(network_file, "b0", "c0", times=times))
    assert not found["c0"].distinguishable
    assert found["c0"].saving_ms.low < 0 < found["c0"].saving_ms.high
    assert found["b0"].distinguishable


def test_block_that_is_slower_to_leave_out_is_not_distinguishable(network_file: Path) -> None:
    table = only(network_file, "c0", times=lambda dropped, session: steady(10.5 if dropped else 10.0))
    (saving,) = table.savings
    assert saving.saving_ms.estimate == pytest.approx(-0.5)
    assert not saving.distinguishable


def test_saving_below_what_the_original_differs_from_itself_is_not_distinguishable(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        own = {("b0",): 9.8, ("c0",): 7.0}
        return steady(own.get(dropped, (9.8, 10.2, 10.2, 9.8)[session % 4]))

    table = only(network_file, "b0", "c0", times=times)
    found = by_block(table)
    assert table.aa_ratio.estimate == pytest.approx(10.2 / 9.8)
    assert table.resolution_ms >= table.baseline_ms.estimate * (10.2 / 9.8 - 1) * 0.999
    assert 0 < found["b0"].saving_ms.estimate < table.resolution_ms
    assert not found["b0"].distinguishable
    assert found["c0"].distinguishable


def test_quiet_device_resolves_any_saving_and_finds_no_difference_of_sessions(network_file: Path) -> None:
    table = only(network_file, "c0")
    assert table.resolution_ms == pytest.approx(0.0, abs=1e-9)
    assert table.session_percent == pytest.approx(0.0, abs=1e-9)
    assert table.aa_ratio.estimate == pytest.approx(1.0)
    assert table.estimator in table.estimator_errors_percent


def test_sessions_that_differ_are_told_and_widen_the_intervals(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        return steady(saved(dropped) * (1.01 if session % 2 else 0.99))

    quiet, differing = only(network_file, "c0"), only(network_file, "c0", times=times)
    assert differing.session_percent == pytest.approx(100 * np.log(1.01 / 0.99) / 2, rel=0.5)
    width = [one.savings[0].reduction_percent.high - one.savings[0].reduction_percent.low for one in (quiet, differing)]
    assert width[0] < 1e-6 < 0.5 < width[1]


def test_drift_of_the_device_cancels(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        return drifting(steady(saved(dropped)), lambda now_s: 1 + now_s / 4)

    saving = only(network_file, "c0", times=times).savings[0]
    assert saving.reduction_percent.estimate == pytest.approx(20.0, abs=0.5)


def test_intervals_have_the_confidence_that_was_asked_for(network_file: Path) -> None:
    table = only(network_file, "b0", "c0", stopping_rule=dataclasses.replace(PATIENCE, confidence=0.9))
    assert table.additivity is not None
    figures = [table.baseline_ms, table.aa_ratio, table.additivity, table.savings[0].saving_ms]
    assert {one.confidence for one in figures} == {0.9}


# The spot check.


def disagreeing(dropped: tuple[str, ...], session: int) -> Script:
    """Class a is none: its blocks save 1, 2 and 3 ms."""
    own = {**SAVED_MS, "a0": 1.0, "a1": 2.0, "a2": 3.0}
    return steady(WHOLE_MS - sum(own[name] for name in dropped))


def test_class_whose_twin_disagrees_is_measured_one_by_one_and_says_so(network_file: Path) -> None:
    rig = Rig(network_file, disagreeing)
    table = rig.table()
    found, twin = by_block(table), table.twins[0].blocks[1]
    assert [found[name].saving_ms.estimate for name in ("a0", "a1", "a2")] == pytest.approx([1.0, 2.0, 3.0])
    assert all(found[name].pooled_with == () and found[name].measured for name in ("a0", "a1", "a2"))
    assert found["b0"].pooled_with == ("b1",)
    assert [check.same for check in table.twins] == [False, True]
    difference = table.twins[0].difference_percent.estimate
    assert difference == pytest.approx(100 * ({"a1": 8, "a2": 7}[twin] / 9 - 1))
    assert table.notes[0] == (
        "latency class 0 was split, its blocks measured one by one: "
        f"a0 and {twin} differ by {difference:.2f}% of the latency"
    )
    assert table.notes[1].startswith("split: ") and "rounds; " in table.notes[1]


def test_split_class_is_measured_beside_the_original_again_and_its_samples_are_kept(
    network_file: Path,
) -> None:
    rig = Rig(network_file, disagreeing)
    table = rig.table()
    columns = list(table.samples["split_engines"])
    assert {name: columns.count(name) for name in columns} == {ORIGINAL: 4, "a0": 2, "a1": 2, "a2": 2}
    assert table.samples["split_rounds_ms"].shape == (30, 10)
    assert rig.opened.count(()) == 8


def test_twin_that_differs_within_the_noise_is_the_same(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        at = 7 if dropped == ("b1",) else len(dropped)
        return noisy(steady(saved(dropped)), 2.0, seed=10 * at + session)

    table = only(network_file, "b0", "b1", times=times)
    (check,) = table.twins
    assert check.same and check.blocks == ("b0", "b1")
    assert check.difference_percent.low < 0 < check.difference_percent.high
    assert table.notes == () and "split_engines" not in table.samples


def test_class_of_a_single_block_has_no_twin(network_file: Path) -> None:
    table = Rig(network_file, additive).table()
    assert [check.latency_class for check in table.twins] == [0, 1]
    assert by_block(table)["c0"].measured


# Additivity.


def test_savings_that_add_up_have_an_additivity_of_one(network_file: Path) -> None:
    table = Rig(network_file, additive).table()
    assert table.additivity is not None
    assert table.additivity.estimate == pytest.approx(1.0)
    assert len(table.sets) == 6
    for check in table.sets:
        assert check.predicted_percent == pytest.approx(10 * sum(SAVED_MS[name] for name in check.dropped))
        assert check.measured_percent.estimate == pytest.approx(check.predicted_percent)


def test_sets_that_save_less_than_their_sum_have_an_additivity_below_one(network_file: Path) -> None:
    def times(dropped: tuple[str, ...], session: int) -> Script:
        seed = sum(ord(letter) for name in dropped for letter in name) + 1000 * session
        return noisy(steady(saved(dropped, 0.8)), 1.0, seed)

    table = Rig(network_file, times).table()
    assert table.additivity is not None
    assert table.additivity.low < 0.8 < table.additivity.high < 1.0
    assert 0 < table.additivity.high - table.additivity.low < 0.2


def test_network_with_one_block_has_no_sets_and_no_additivity(network_file: Path) -> None:
    table = only(network_file, "c0")
    assert (table.sets, table.twins, table.additivity) == ((), (), None)
    assert [saving.block for saving in table.savings] == ["c0"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("excess", [0.0, 4e-16], ids=["nothing", "what rounding leaves"])
def test_device_without_any_saving_has_no_additivity(network_file: Path, excess: float) -> None:
    table = Rig(network_file, lambda dropped, session: steady(2.6 * (1 - excess * len(dropped)))).table()
    assert table.additivity is None
    assert not any(saving.distinguishable for saving in table.savings if not excess)


# What is kept.


def test_samples_hold_every_session_and_their_digest_is_in_the_table(network_file: Path) -> None:
    table = only(network_file, "b0", "b1", "c0")
    columns = list(table.samples["engines"])
    counts = {name: columns.count(name) for name in columns}
    assert {name: counts[name] for name in (ORIGINAL, "b0", "b1", "c0")} == {
        ORIGINAL: 4,
        "b0": 2,
        "b1": 1,
        "c0": 2,
    }
    assert sorted(set(counts) - {ORIGINAL, "b0", "b1", "c0"}) == ["b0 + b1", "b0 + c0", "b1 + c0"]
    assert table.samples["rounds_ms"].shape == (table.rounds, len(columns)) == (30, 12)
    assert table.samples_sha256 == samples_digest(table.samples)
    assert table.input_shape == (1, 4, 8, 8)


def test_digest_of_samples_sees_names_types_shapes_and_values_but_no_order() -> None:
    one = {"rounds_ms": np.arange(6.0).reshape(2, 3), "engines": np.array(["a", "b", "c"])}
    assert samples_digest(one) == samples_digest(dict(reversed(one.items())))
    others = [
        {**one, "rounds_ms": one["rounds_ms"] + 1e-12},
        {**one, "rounds_ms": one["rounds_ms"].reshape(3, 2)},
        {**one, "rounds_ms": one["rounds_ms"].astype(np.int64)},
        {"rounds": one["rounds_ms"], "engines": one["engines"]},
    ]
    assert len({samples_digest(each) for each in (one, *others)}) == 5


# Sets of blocks, apart from a table.


def test_sets_are_measured_in_the_same_rounds(network_file: Path) -> None:
    rig = Rig(network_file, additive)
    found = measure_sets([("a0", "c0"), ("b0",), ()], rig.without, rig.bench)
    assert [one.estimate for one in found] == pytest.approx([30.0, 5.0, 0.0])
    assert {names: rig.opened.count(names) for names in rig.opened} == {(): 4, ("a0", "c0"): 2, ("b0",): 2}


def test_network_without_a_set_is_opened_as_often_as_the_original(network_file: Path) -> None:
    rig = Rig(network_file, additive, dataclasses.replace(PATIENCE, sessions=3))
    found = measure_without(("a0", "b0"), rig.without, rig.bench)
    assert found.estimate == pytest.approx(15.0)
    assert (rig.opened.count(()), rig.opened.count(("a0", "b0"))) == (3, 3)


# What the noise hides.


def hidden_behind_noise(times_quieter: float) -> TimesOf:
    """c0 saves 0.05 of 10 ms behind noise of 3% in the first measurement, and of so many times less where it is measured again."""
    calls: dict[tuple[tuple[str, ...], int], int] = {}

    def times(dropped: tuple[str, ...], session: int) -> Script:
        again = session >= (4 if not dropped else 2)
        calls[dropped, session] = 1
        percent = 3.0 / times_quieter if again else 3.0
        return noisy(steady(WHOLE_MS - (0.05 if dropped else 0.0)), percent, seed=len(calls))

    return times


def test_block_whose_saving_the_noise_hides_is_measured_again_alone_and_says_so(network_file: Path) -> None:
    rig = Rig(network_file, hidden_behind_noise(300.0))
    table = rig.table([CUTS[-1]])
    saving = by_block(table)["c0"]
    assert saving.distinguishable and saving.reduction_percent.low < 0.5 < saving.reduction_percent.high + 0.1
    assert any("the noise hid the saving of c0: measured again" in note for note in table.notes)
    assert {name.split("_")[0] for name in table.samples if name.startswith("again")} == {"again1"}


def test_block_that_stays_hidden_is_measured_again_twice_at_most(network_file: Path) -> None:
    table = Rig(network_file, hidden_behind_noise(1.0)).table([CUTS[-1]])
    told = [note for note in table.notes if "the noise hid" in note]
    assert len(told) <= 2 and (not by_block(table)["c0"].distinguishable) == (len(told) == 2)


def test_quiet_device_measures_nothing_again(network_file: Path) -> None:
    table = Rig(network_file, additive).table()
    assert not any("noise hid" in note for note in table.notes)
    assert not any(name.startswith("again") for name in table.samples)
