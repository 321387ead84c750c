"""The saving of each block against its recoverability."""

from __future__ import annotations

import math

from practise_backends.results.formatting import interval, number
from practise_backends.terms import Saving
from practise_deploy.outcome import Release
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Key, Mark
from practise_deploy.terms import Recoverability

Pair = tuple[Saving, Recoverability]


def saving_vs_error(release: Release) -> Chart | None:
    """Saving against relative recoverability; None if no block has both."""
    pairs = _pairs(release)
    if not pairs:
        return None
    ends = [end for saving, _ in pairs for end in (saving.saving_ms.low, saving.saving_ms.high)]
    errors = [recoverability.relative for _, recoverability in pairs]
    dropped = release.plan.dropped
    marks = [_mark(saving, recoverability, saving.block in dropped) for saving, recoverability in pairs]
    low, high = spanned([0.0, *ends])
    return Chart(
        name="saving-vs-error",
        title="Saving against error, one point per block",
        description=(
            "Saving in milliseconds against the error that remains after recovery, one point per block; the table"
            " of candidates holds the numbers"
        ),
        x=Axis(title="saving, ms (right is better)", low=min(0.0, low if min(ends) < 0 else 0.0), high=high),
        y=Axis(
            title="error left, % of the features' variance (low is better)",
            low=100 * min(errors) / 1.6,
            high=100 * max(errors) * 1.6,
            log=True,
            unit="%",
        ),
        marks=tuple(sorted(marks, key=lambda mark: mark.tone)),
        keys=(Key(tone="new", shape="dot", text="dropped"), Key(tone="soft", shape="ring", text="kept")),
        note="Bars show the intervals of the savings.",
    )


def absent(release: Release) -> tuple[str, ...]:
    """The blocks that are not in the chart."""
    shown = {saving.block for saving, _ in _pairs(release)}
    return tuple(saving.block for saving in release.latency.savings if saving.block not in shown)


def _pairs(release: Release) -> list[Pair]:
    by_block = {recoverability.block: recoverability for recoverability in release.recoverability}
    both = [(saving, by_block[saving.block]) for saving in release.latency.savings if saving.block in by_block]
    return [pair for pair in both if _drawable(*pair)]


def _drawable(saving: Saving, recoverability: Recoverability) -> bool:
    """Whether the figures are finite and the error is positive, as a logarithmic axis needs."""
    ends = (saving.saving_ms.low, saving.saving_ms.high, saving.saving_ms.estimate, recoverability.relative)
    return all(math.isfinite(end) for end in ends) and recoverability.relative > 0


def _mark(saving: Saving, recoverability: Recoverability, dropped: bool) -> Mark:
    outcome = "dropped" if dropped else "kept"
    share = number(100 * recoverability.relative)
    return Mark(
        x=saving.saving_ms.estimate,
        y=100 * recoverability.relative,
        x_bar=(saving.saving_ms.low, saving.saving_ms.high),
        tone="new" if dropped else "soft",
        shape="dot" if dropped else "ring",
        name=saving.block,
        tooltip=f"{saving.block}, {outcome}: saves {interval(saving.saving_ms, ' ms')}, leaves {share}% error",
    )
