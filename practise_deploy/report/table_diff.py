"""Two latency tables beside each other, in words."""

from __future__ import annotations

from practise_backends.results.table_diff import BlockDiff, TableDiff
from practise_deploy.report.facts import Facts
from practise_deploy.report.tables import Table
from practise_deploy.report.words import interval, listed, missing, number, plural


def diff_table(found: TableDiff) -> Table:
    """Every block that both tables hold."""
    first, second = found.devices
    return Table(
        title=f"A: {first}; B: {second}",
        head=(
            "Block",
            "Saving A, ms",
            "Saving B, ms",
            "Reduction A, %",
            "Reduction B, %",
            "Rank A",
            "Rank B",
            "Differs",
        ),
        rows=tuple(_row(one) for one in found.blocks),
        left=(0, 7),
        strong=tuple(at for at, one in enumerate(found.blocks) if one.differs),
        note="A block differs where the intervals of its two reductions do not meet. Rank 1 saves most.",
    )


def diff_facts(found: TableDiff) -> Facts:
    """What the two tables have in common."""
    first, second = (interval(one, " ms") for one in found.baseline_ms)
    agreement = missing("neither table tells two blocks apart") if found.rank_agreement is None else (
        f"{number(found.rank_agreement)} over {plural(found.told_apart, 'pair')} of blocks that either table tells apart"
    )  # fmt: skip
    return (
        ("Latency of the original", f"A {first}, B {second}: {number(found.ratio_of_baselines)} times (not paired)"),
        ("Rank agreement (Kendall's tau)", agreement),
        ("Blocks that differ", listed([one.block for one in found.blocks if one.differs])),
        ("Only in A", listed(found.only_in[0])),
        ("Only in B", listed(found.only_in[1])),
        ("Beware", listed(found.notes)),
    )


def _row(one: BlockDiff) -> tuple[str, ...]:
    savings = (interval(each) for each in one.saving_ms)
    reductions = (interval(each) for each in one.reduction_percent)
    ranks = (str(rank) for rank in one.rank)
    return (one.block, *savings, *reductions, *ranks, "yes" if one.differs else "no")
