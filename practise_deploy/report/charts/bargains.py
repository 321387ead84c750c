"""The picture of the bargain: what each block saves against how hard its loss is to recover."""

from __future__ import annotations

import math

from practise_backends.terms import Saving
from practise_deploy.outcome import Release
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart, Key, Mark
from practise_deploy.report.words import interval, number
from practise_deploy.terms import Recoverability

Pair = tuple[Saving, Recoverability]


def bargains(release: Release) -> Chart | None:
    """Saving against relative recoverability; None where no block has both."""
    pairs = _pairs(release)
    if not pairs:
        return None
    ends = [end for saving, _ in pairs for end in (saving.saving_ms.low, saving.saving_ms.high)]
    errors = [found.relative for _, found in pairs]
    dropped = release.plan.dropped
    marks = [_mark(saving, found, saving.block in dropped) for saving, found in pairs]
    low, high = spanned([0.0, *ends])
    return Chart(
        name="bargains",
        title="Saved against lost, one mark a block",
        said="Saving in milliseconds against the error that stays after recovery, one mark a block; "
        "the table of candidates holds the numbers",
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
        note="Bars are the intervals of the savings.",
    )


def absent(release: Release) -> tuple[str, ...]:
    """The blocks that have no place in the picture."""
    shown = {saving.block for saving, _ in _pairs(release)}
    return tuple(saving.block for saving in release.latency.savings if saving.block not in shown)


def _pairs(release: Release) -> list[Pair]:
    judged = {found.block: found for found in release.recoverability}
    both = [(saving, judged[saving.block]) for saving in release.latency.savings if saving.block in judged]
    return [pair for pair in both if _drawable(*pair)]


def _drawable(saving: Saving, found: Recoverability) -> bool:
    """A logarithm needs a positive number."""
    ends = (saving.saving_ms.low, saving.saving_ms.high, saving.saving_ms.estimate, found.relative)
    return all(math.isfinite(end) for end in ends) and found.relative > 0


def _mark(saving: Saving, found: Recoverability, dropped: bool) -> Mark:
    outcome = "dropped" if dropped else "kept"
    share = number(100 * found.relative)
    return Mark(
        x=saving.saving_ms.estimate,
        y=100 * found.relative,
        x_bar=(saving.saving_ms.low, saving.saving_ms.high),
        tone="new" if dropped else "soft",
        shape="dot" if dropped else "ring",
        name=saving.block,
        said=f"{saving.block}, {outcome}: saves {interval(saving.saving_ms, ' ms')}, leaves {share}% error",
    )
