"""The selection frequency of each block over resamples, against its rank by score."""

from __future__ import annotations

import math

from practise_backends.results.formatting import number
from practise_deploy.outcome import Release
from practise_deploy.report.charts.axes import Axis
from practise_deploy.report.charts.chart import Chart, Key, Mark


def shares(release: Release) -> Chart | None:
    """Rank by score against selection frequency; None if no sets were searched."""
    plan = release.plan
    ranked = [name for name in plan.scores if math.isfinite(plan.selection_frequency.get(name, math.nan))]
    if not ranked:
        return None
    marks = [
        _mark(name, rank, plan.selection_frequency[name], name in plan.dropped)
        for rank, name in enumerate(ranked, start=1)
    ]
    return Chart(
        name="shares",
        title="Stability of the choice",
        description=(
            "Rank of each block by score against the share of resampled choices that drop it, one point per "
            "block; the table of candidates holds the numbers"
        ),
        x=Axis(title="rank by score (left is better)", low=0.0, high=len(ranked) + 1.0),
        y=Axis(title="share of the resamples that drop it", low=-4.0, high=104.0, unit="%"),
        marks=tuple(sorted(marks, key=lambda mark: mark.tone)),
        keys=(Key(tone="new", shape="dot", text="dropped"), Key(tone="soft", shape="ring", text="kept")),
        note=(
            "Each resample redraws the images and the savings, and chooses again. Near 0 or 100% the choice is "
            "stable. A block with a good score may stay, and one with a bad score may go, if errors interact or "
            "another sum of savings fits the target better."
        ),
    )


def _mark(name: str, rank: int, share: float, dropped: bool) -> Mark:
    outcome = "dropped" if dropped else "kept"
    return Mark(
        x=float(rank),
        y=100 * share,
        tone="new" if dropped else "soft",
        shape="dot" if dropped else "ring",
        name=name,
        tooltip=f"{name}, {outcome}: ranked {rank} by score, dropped in {number(100 * share)}% of the resamples",
    )
