"""Two latency tables side by side."""

from __future__ import annotations

from practise_backends.results.formatting import interval, listed, missing, number, plural
from practise_backends.results.table_diff import BlockDiff, TableDiff
from practise_backends.results.tables import Table
from practise_deploy.report.rows import Rows


def diff_table(diff: TableDiff) -> Table:
    """Every block that is in both tables."""
    first, second = diff.devices
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
        rows=tuple(_row(block) for block in diff.blocks),
        left=(0, 7),
        strong=tuple(index for index, block in enumerate(diff.blocks) if block.differs),
        note="A block differs if the intervals of its two reductions do not overlap. Rank 1 saves most.",
    )


def diff_rows(diff: TableDiff) -> Rows:
    """How far the two tables agree."""
    first, second = (interval(baseline, " ms") for baseline in diff.baseline_ms)
    agreement = missing("neither table distinguishes two blocks") if diff.rank_agreement is None else (
        f"{number(diff.rank_agreement)} over {plural(diff.told_apart, 'pair')} of blocks that either table distinguishes"
    )  # fmt: skip
    return (
        ("Latency of the original", f"A {first}, B {second}: {number(diff.ratio_of_baselines)} times (not paired)"),
        ("Rank agreement (Kendall's tau)", agreement),
        ("Blocks that differ", listed([block.block for block in diff.blocks if block.differs])),
        ("Only in A", listed(diff.only_in[0])),
        ("Only in B", listed(diff.only_in[1])),
        ("Beware", listed(diff.notes)),
    )


def _row(block: BlockDiff) -> tuple[str, ...]:
    savings = (interval(value) for value in block.saving_ms)
    reductions = (interval(value) for value in block.reduction_percent)
    ranks = (str(rank) for rank in block.rank)
    return (block.block, *savings, *reductions, *ranks, "yes" if block.differs else "no")
