"""Two latency tables beside each other: ranks, and what may not be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practise_backends.results.table_diff import diff_tables, disjoint, rank_agreement
from practise_backends.terms import Conditions, Device, Interval, LatencyTable, Saving


def around(estimate: float, half: float = 0.0) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def saving(block: str, ms: float, half: float = 0.1) -> Saving:
    return Saving(
        block=block,
        latency_class=0,
        saving_ms=around(ms, half),
        reduction_percent=around(10 * ms, 10 * half),
        pooled_with=(),
        distinguishable=True,
    )


def table(*savings: Saving, baseline_ms: float = 10.0, name: str = "board") -> LatencyTable:
    return LatencyTable(
        network="net",
        backend="ort",
        device=Device(name=name, fingerprint=name, versions={}, facts={}),
        conditions=Conditions(),
        input_shape=(1, 3, 8, 8),
        baseline_ms=around(baseline_ms),
        aa_ratio=around(1.0),
        resolution_ms=0.01,
        session_percent=0.1,
        estimator="mean",
        estimator_errors_percent={"mean": 0.1},
        savings=savings,
        twins=(),
        sets=(),
        additivity=None,
        rounds=30,
        discarded=(),
        warmup_s=1.0,
        stopped_because="",
        environment=None,
    )


THREE = (saving("a", 3.0), saving("b", 2.0), saving("c", 1.0))


def test_equal_tables_agree_in_everything() -> None:
    found = diff_tables(table(*THREE), table(*THREE))
    assert (found.rank_agreement, found.told_apart, found.ratio_of_baselines) == (1.0, 3, 1.0)
    assert [(block.block, block.rank) for block in found.blocks] == [("a", (1, 1)), ("b", (2, 2)), ("c", (3, 3))]
    assert not any(block.differs for block in found.blocks)
    assert (found.only_in, found.notes) == (((), ()), ())


def test_swapped_ranks_are_told_by_block_and_lower_the_agreement() -> None:
    swapped = table(saving("a", 1.0), saving("b", 2.0), saving("c", 3.0))
    found = diff_tables(table(*THREE), swapped)
    assert {block.block: block.rank for block in found.blocks} == {"a": (1, 3), "b": (2, 2), "c": (3, 1)}
    assert found.rank_agreement == -1.0
    assert {block.block: block.differs for block in found.blocks} == {"a": True, "b": False, "c": True}
    one_pair = diff_tables(table(*THREE), table(saving("a", 2.0), saving("b", 3.0), saving("c", 1.0)))
    assert one_pair.rank_agreement == pytest.approx(1 / 3)


def test_pairs_that_neither_table_tells_apart_do_not_count() -> None:
    """The first two trade places within their intervals: no disagreement."""
    one = table(saving("a", 3.0, 0.5), saving("b", 2.8, 0.5), saving("c", 1.0))
    two = table(saving("a", 2.8, 0.5), saving("b", 3.0, 0.5), saving("c", 1.0))
    found = diff_tables(one, two)
    assert (found.rank_agreement, found.told_apart) == (1.0, 2)


def test_pair_that_one_table_alone_tells_apart_counts() -> None:
    sure, unsure = [saving("a", 3.0), saving("b", 2.0)], [saving("a", 2.0, 2.0), saving("b", 2.1, 2.0)]
    assert rank_agreement(sure, unsure) == rank_agreement(unsure, sure) == (-1.0, 1)


@pytest.mark.parametrize("savings", [[], [saving("a", 1.0)], [saving("a", 1.0), saving("b", 1.0)]])
def test_without_a_pair_told_apart_there_is_no_agreement_to_tell(savings: list[Saving]) -> None:
    assert rank_agreement(savings, savings) == (None, 0)


def test_blocks_of_one_table_alone_are_named_and_left_out() -> None:
    found = diff_tables(table(*THREE, saving("x", 9.0)), table(*THREE[1:], saving("y", 0.5), saving("z", 0.4)))
    assert found.only_in == (("a", "x"), ("y", "z"))
    assert {block.block: block.rank for block in found.blocks} == {"b": (1, 1), "c": (2, 2)}
    assert found.told_apart == 1


def test_block_differs_by_its_share_of_the_network_not_by_its_milliseconds() -> None:
    """A device that is twice as slow in everything."""
    slow = tuple(replace(one, saving_ms=around(2 * one.saving_ms.estimate, 0.1)) for one in THREE)
    found = diff_tables(table(*THREE), table(*slow, baseline_ms=20.0, name="slow board"))
    assert found.ratio_of_baselines == 2.0
    assert found.devices == ("board", "slow board")
    assert found.rank_agreement == 1.0
    assert not any(block.differs for block in found.blocks)


def test_conditions_that_differ_are_noted() -> None:
    one = table(*THREE)
    other = replace(
        one,
        network="other",
        input_shape=(4, 3, 8, 8),
        backend="trt",
        conditions=Conditions(batch=4, threads=2, precision="fp16", seed=7),
    )
    assert diff_tables(one, other).notes == (
        "the network differs: net and other",
        "the input shape differs: (1, 3, 8, 8) and (4, 3, 8, 8)",
        "the backend differs: ort and trt",
        "the batch differs: 1 and 4",
        "the threads differs: 1 and 2",
        "the precision differs: fp32 and fp16",
    )


@pytest.mark.parametrize(("gap", "apart"), [(-0.1, False), (0.0, False), (0.001, True)])
def test_intervals_that_touch_are_not_disjoint(gap: float, apart: bool) -> None:
    low = Interval(estimate=1.5, low=1.0, high=2.0, confidence=0.95)
    high = Interval(estimate=2.5, low=2.0 + gap, high=3.0, confidence=0.95)
    assert disjoint(low, high) is disjoint(high, low) is apart
