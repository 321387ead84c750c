"""The face in a terminal, and the only place that knows rich: results on stdout, all else on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from practise_backends.terms import Progress
from practise_deploy.report import tables
from practise_deploy.report.facts import (
    Facts,
    latency_facts,
    plan_facts,
    preprocessing_facts,
    rounds_facts,
    shipped_facts,
    student_facts,
    verification_facts,
)
from practise_deploy.report.sections import latency_change, quality
from practise_deploy.report.tables import Table
from practise_deploy.report.words import confidence, count, duration, listed, times
from practise_deploy.terms import (
    Block,
    LatencyTable,
    NetworkFacts,
    Plan,
    Recoverability,
    Release,
    Shipped,
    Speedup,
    Student,
    Verification,
)

if TYPE_CHECKING:
    import rich.console
    import rich.progress

_PLAIN_WIDTH = 200
_EVERY_S = 10.0


class Console:
    """Prose and progress go to stderr, tables to stdout; `quiet` leaves nothing but errors."""

    def __init__(self, *, quiet: bool = False, now_s: Callable[[], float] = time.monotonic) -> None:
        self.quiet = quiet
        self._now_s = now_s
        self._bars: rich.progress.Progress | None = None

    def say(self, text: str) -> None:
        """A sentence about what happens."""
        self._prose(text)

    def note(self, text: str) -> None:
        """A sentence of less weight."""
        self._prose(text, "dim")

    def error(self, message: str, remedy: str = "") -> None:
        """What went wrong and what to do about it; said even where quiet."""
        from rich.text import Text

        self._stderr.print(Text.assemble(("error: ", "bold red"), _clean(message)), soft_wrap=True)
        if remedy:
            self._stderr.print(Text.assemble(("remedy: ", "bold"), _clean(remedy)), soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show how far a step is: a bar in a terminal, a line now and then elsewhere."""
        began = self._now_s()
        if self.quiet:
            yield _Silent()
        elif self._stderr.is_terminal:
            with self._bar(title) as bar:
                yield bar
        else:
            self.note(f"{title} ...")
            yield _Lines(title, self.note, self._now_s)
        self.note(f"{title}: {duration(self._now_s() - began)}")

    def show_blocks(self, blocks: Sequence[Block], facts: NetworkFacts) -> None:
        """The network and its blocks."""
        droppable = sum(block.droppable for block in blocks)
        self._facts(
            facts.name,
            (
                ("Parameters", count(facts.parameters)),
                ("MACs", f"{count(facts.macs)} an image"),
                ("Weights", facts.weights),
                *preprocessing_facts(facts.preprocessing),
                ("Blocks", f"{len(blocks)}, of which {droppable} can be dropped"),
            ),
        )
        self._table(tables.inspected(blocks))
        self._remarks(facts.notes)

    def show_latency(self, table: LatencyTable) -> None:
        """What each block costs on the device."""
        self._table(tables.savings(table))
        self._facts("", (*latency_facts(table), ("Intervals", confidence(table.baseline_ms))))

    def show_plan(self, plan: Plan, recoverability: Sequence[Recoverability]) -> None:
        """Which blocks go, and why the others stay."""
        self._table(tables.choices(plan, recoverability))
        if plan.attempts:
            self._table(tables.attempts(plan))
        self._facts("Plan", plan_facts(plan))

    def show_student(self, student: Student, title: str) -> None:
        """How the pruned network recovered."""
        self._facts(title, student_facts(student))
        self._remarks(student.notes)

    def show_shipped(self, shipped: Shipped) -> None:
        """The file that was exported."""
        self._facts("Exported", shipped_facts(shipped))

    def show_verification(self, verification: Verification) -> None:
        """Whether the shipped network still computes the same."""
        self._table(tables.links(verification))
        if verification.accuracy:
            self._table(tables.accuracies(verification))
        self._facts("Verification", verification_facts(verification))
        self._remarks(verification.problems)

    def show_speedup(self, speedup: Speedup) -> None:
        """Two engines against each other."""
        self._table(tables.bench(speedup))
        self._facts(
            "",
            (
                ("Speed-up", f"{times(speedup.speedup)}, {confidence(speedup.speedup)} interval"),
                ("Verdict", speedup.verdict),
                ("Device", speedup.device.name),
                *rounds_facts(speedup),
            ),
        )

    def show_release(self, release: Release, folder: Path) -> None:
        """The end of a build: what was won, what it cost, and where it is."""
        kept = quality(release)
        self._facts(
            release.network.name,
            (
                ("Speed-up", f"{times(release.speedup)}, {confidence(release.speedup)} interval"),
                ("Latency, p50", latency_change(release)),
                (kept.title, f"{kept.text} ({kept.detail})" if kept.detail else kept.text),
                ("Blocks dropped", f"{len(release.plan.dropped)}: {listed(release.plan.dropped)}"),
                ("Network", release.shipped.path),
                ("Files", str(folder)),
                ("Verdict", release.verdict.sentence),
                ("Promise", "kept" if release.verdict.kept else "broken"),
            ),
        )
        self._remarks(release.verdict.reasons)

    @cached_property
    def _stdout(self) -> rich.console.Console:
        return _rich_console(stderr=False)

    @cached_property
    def _stderr(self) -> rich.console.Console:
        return _rich_console(stderr=True)

    def _prose(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self._stderr.print(_clean(text), style=style or None, markup=False, soft_wrap=True)

    def _remarks(self, lines: Sequence[str]) -> None:
        """Remarks belong to the result, so they follow it."""
        for line in () if self.quiet else lines:
            self._stdout.print(f"- {_clean(line)}", markup=False, soft_wrap=True)

    def _facts(self, title: str, facts: Facts) -> None:
        """Names and what they are, in two columns."""
        from rich.table import Table as Grid
        from rich.text import Text

        if self.quiet:
            return
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, fact in facts:
            grid.add_row(Text(_clean(name)), Text(_clean(fact)))
        if title:
            self._stdout.print(Text(_clean(title), style="bold"))
        self._stdout.print(grid)
        self._stdout.print()

    def _table(self, found: Table) -> None:
        """A table with its title and its note."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Grid
        from rich.text import Text

        if self.quiet:
            return
        grid = Grid(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for at, name in enumerate(found.head):
            words = at in found.left
            grid.add_column(Text(_clean(name)), justify="left" if words else "right", overflow="fold")
        for at, row in enumerate(found.rows):
            strong = "bold" if at in found.strong else None
            grid.add_row(*(Text(_clean(cell)) for cell in row), style=strong)
        self._stdout.print(Text(_clean(found.title), style="bold"))
        self._stdout.print(grid)
        if found.note:
            self._stdout.print(Text(found.note, style="dim"), soft_wrap=True)
        self._stdout.print()

    @contextmanager
    def _bar(self, title: str) -> Iterator[Progress]:
        """A bar of its own, or one more beneath the bars that are shown already."""
        if self._bars is not None:
            yield _Bar(self._bars, title)
            return
        with _rich_bars(self._stderr) as self._bars:
            try:
                yield _Bar(self._bars, title)
            finally:
                self._bars = None


class _Silent:
    """Progress that nobody sees."""

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Show nothing."""


class _Bar:
    """Progress as a bar."""

    def __init__(self, bars: rich.progress.Progress, title: str) -> None:
        self._bars = bars
        self._task = bars.add_task(_clean(title), total=None, note="")

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done, total=total, note=_clean(note))


class _Lines:
    """Progress as plain lines, one every ten seconds at most."""

    def __init__(self, title: str, tell: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._title, self._tell, self._now_s = title, tell, now_s
        self._began = self._told = now_s()

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Say how far it is, unless that was said just now."""
        now = self._now_s()
        if now - self._told < _EVERY_S or total <= 0:
            return
        self._told = now
        share = min(1.0, done / total)
        left = f", about {duration((now - self._began) * (1 - share) / share)} left" if 0 < share < 1 else ""
        self._tell(f"{self._title}: {100 * share:.0f}%{left}{', ' + note if note else ''}")


def _rich_console(*, stderr: bool) -> rich.console.Console:
    """A console as wide as its terminal; elsewhere wide enough for every table, and without colour."""
    from rich.console import Console as RichConsole

    found = RichConsole(stderr=stderr, highlight=False)
    if found.is_terminal:
        return found
    return RichConsole(stderr=stderr, highlight=False, width=_PLAIN_WIDTH, color_system=None)


def _rich_bars(console: rich.console.Console) -> rich.progress.Progress:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
    )


def _clean(text: str) -> str:
    """Without control characters, which could command the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
