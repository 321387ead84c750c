"""The difference of two latency tables: does a second device, or a second measurement, rank the blocks alike?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from practise_backends.terms import SCHEMA, Interval, LatencyTable, Saving


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDiff:
    """One block in two tables. differs: the intervals of its reduction do not meet."""

    block: str
    saving_ms: tuple[Interval, Interval]
    reduction_percent: tuple[Interval, Interval]
    rank: tuple[int, int]
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff:
    """Two tables of one network.

    ratio_of_baselines: the second device's latency over the first's; not paired, so a hint.
    rank_agreement: Kendall's tau over the pairs of blocks that either table distinguishes (their intervals are
    disjoint there); None where there is no such pair. told_apart: how many pairs that is.
    only_in: blocks that the other table lacks. notes: what makes the tables hard to compare.
    """

    schema: int = SCHEMA
    devices: tuple[str, str]
    networks: tuple[str, str]
    baseline_ms: tuple[Interval, Interval]
    ratio_of_baselines: float
    blocks: tuple[BlockDiff, ...]
    rank_agreement: float | None
    told_apart: int
    only_in: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...]


def diff_tables(first: LatencyTable, second: LatencyTable) -> TableDiff:
    """Blocks, ranks and savings of two tables."""
    first_savings, second_savings = (
        {saving.block: saving for saving in table.savings} for table in (first, second)
    )
    common = [name for name in first_savings if name in second_savings]
    ranks = _ranks(first_savings, common), _ranks(second_savings, common)
    agreement, pairs = rank_agreement(
        [first_savings[name] for name in common], [second_savings[name] for name in common]
    )
    return TableDiff(
        devices=(first.device.name, second.device.name),
        networks=(first.network, second.network),
        baseline_ms=(first.baseline_ms, second.baseline_ms),
        ratio_of_baselines=second.baseline_ms.estimate / first.baseline_ms.estimate,
        blocks=tuple(
            BlockDiff(
                block=name,
                saving_ms=(first_savings[name].saving_ms, second_savings[name].saving_ms),
                reduction_percent=(
                    first_savings[name].reduction_percent,
                    second_savings[name].reduction_percent,
                ),
                rank=(ranks[0][name], ranks[1][name]),
                differs=disjoint(
                    first_savings[name].reduction_percent, second_savings[name].reduction_percent
                ),
            )
            for name in common
        ),
        rank_agreement=agreement,
        told_apart=pairs,
        only_in=(
            tuple(name for name in first_savings if name not in second_savings),
            tuple(name for name in second_savings if name not in first_savings),
        ),
        notes=_notes(first, second),
    )


def rank_agreement(first: list[Saving], second: list[Saving]) -> tuple[float | None, int]:
    """Kendall's tau over the pairs of blocks that either table distinguishes, and the number of such pairs.

    first, second: the same blocks in the same order.
    """
    score, pairs = 0, 0
    for a, b in combinations(range(len(first)), 2):
        apart = [disjoint(savings[a].saving_ms, savings[b].saving_ms) for savings in (first, second)]
        if any(apart):
            signs = [
                savings[a].saving_ms.estimate > savings[b].saving_ms.estimate for savings in (first, second)
            ]
            score += 1 if signs[0] == signs[1] else -1
            pairs += 1
    return (score / pairs if pairs else None), pairs


def disjoint(first: Interval, second: Interval) -> bool:
    """Whether two intervals do not meet."""
    return first.high < second.low or second.high < first.low


def _ranks(savings: dict[str, Saving], names: list[str]) -> dict[str, int]:
    """1 is the block that saves most."""
    ordered = sorted(names, key=lambda name: -savings[name].saving_ms.estimate)
    return {name: place for place, name in enumerate(ordered, 1)}


def _notes(first: LatencyTable, second: LatencyTable) -> tuple[str, ...]:
    """What makes these two hard to compare."""
    compared = {
        "network": (first.network, second.network),
        "input shape": (first.input_shape, second.input_shape),
        "backend": (first.backend, second.backend),
        "batch": (first.conditions.batch, second.conditions.batch),
        "threads": (first.conditions.threads, second.conditions.threads),
        "precision": (first.conditions.precision, second.conditions.precision),
    }
    return tuple(f"the {name} differs: {a} and {b}" for name, (a, b) in compared.items() if a != b)
