"""The face in a terminal, and the only place that knows rich: results on stdout, all else on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from practise_backends.cli.result import unwritable
from practise_backends.results.render import rounds
from practise_backends.results.table_diff import TableDiff
from practise_backends.terminal import clean, one_line
from practise_backends.terms import Comparison, LatencyTable, Progress, Scenario, Throughput
from practise_deploy.cli.progress import Bar, Lines, rich_bars, rich_console
from practise_deploy.deployment.kit import WrittenKit
from practise_deploy.outcome import Release, Shipped, Verification
from practise_deploy.report import measurements, tables
from practise_deploy.report.demands import demands
from practise_deploy.report.facts import (
    Facts,
    comparison_facts,
    compiled_facts,
    latency_facts,
    plan_facts,
    preprocessing_facts,
    shipped_facts,
    student_facts,
    verification_facts,
)
from practise_deploy.report.headline import latency_change, latency_title, quality, speed
from practise_deploy.report.table_diff import diff_facts, diff_table
from practise_deploy.report.tables import Table
from practise_deploy.report.words import confidence, count, duration, listed, plural, size
from practise_deploy.run import Silent
from practise_deploy.terms import Block, NetworkFacts, Plan, Recoverability, Student

if TYPE_CHECKING:
    import rich.console
    import rich.progress


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

        self._stderr.print(Text.assemble(("error: ", "bold red"), one_line(message)), soft_wrap=True)
        if remedy:
            self._stderr.print(Text.assemble(("remedy: ", "bold"), one_line(remedy)), soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show how far a step is: a bar in a terminal, a line now and then elsewhere."""
        began = self._now_s()
        if self.quiet:
            yield Silent()
        elif self._stderr.is_terminal:
            with self._bar(title) as bar:
                yield bar
        else:
            self.note(f"{title} ...")
            yield Lines(title, self.note, self._now_s)
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
        self._table(measurements.checks(table))
        self._facts("", (*latency_facts(table), ("Intervals", confidence(table.baseline_ms))))
        self._remarks(table.notes)

    def show_table_diff(self, found: TableDiff) -> None:
        """Two devices, or two measurements, block by block."""
        self._table(diff_table(found))
        self._facts("", diff_facts(found))

    def show_kit(self, found: WrittenKit) -> None:
        """Where the kit is, and what to do with it."""
        self._facts(
            f"Kit of {found.network}",
            (
                ("Folder", found.folder),
                ("Networks", f"{found.networks}, the original among them, for {plural(found.blocks, 'block')}"),
                ("Conditions", f"backend {found.backend}, batch {found.batch}, {found.precision}"),
                ("Size", size(found.bytes)),
                ("Copy it, and there", " && ".join(found.commands)),
                *((("With latency.json, here", found.plan),) if found.plan else ()),
            ),
        )

    def show_plan(self, plan: Plan, recoverability: Sequence[Recoverability]) -> None:
        """Which blocks go, and why the others stay."""
        self._table(tables.choices(plan, recoverability))
        if plan.considered:
            self._table(tables.considered(plan))
        elif plan.attempts:
            self._table(tables.attempts(plan))
        self._facts("Plan", plan_facts(plan))
        self._remarks(plan.notes)

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

    def show_comparison(self, found: Comparison) -> None:
        """Two networks against each other."""
        self._table(measurements.bench(found))
        self._facts("", comparison_facts(found))
        self._remarks(found.notes)

    def show_throughput(self, found: tuple[Throughput, ...]) -> None:
        """Images a second by batch and threads."""
        if found:
            self._table(measurements.throughput(found))

    def show_scenarios(self, found: tuple[Scenario, ...]) -> None:
        """What MLPerf LoadGen says."""
        if found:
            self._table(measurements.scenarios(found))

    def show_release(self, release: Release, folder: Path) -> None:
        """The end of a build: what was won, what it cost, and where it is."""
        kept, won = quality(release), speed(release)
        level = confidence(release.speedup or release.plan.predicted_percent)
        self._facts(
            release.network.name,
            (
                (won.title, f"{won.text}, {level} interval"),
                (latency_title(release), latency_change(release)),
                ("Rounds", rounds(release.measured_on)),
                (kept.title, f"{kept.text} ({kept.detail})" if kept.detail else kept.text),
                ("Blocks dropped", f"{len(release.plan.dropped)}: {listed(release.plan.dropped)}"),
                ("Network", release.shipped.path),
                *compiled_facts(release.compiled),
                ("Files", str(folder)),
                ("Verdict", release.verdict.sentence),
                ("Promise", release.verdict.answer.value),
            ),
        )
        self._remarks(release.verdict.reasons)
        if release.gate:
            self._table(demands(release.gate))

    @cached_property
    def _stdout(self) -> rich.console.Console:
        return rich_console(stderr=False)

    @cached_property
    def _stderr(self) -> rich.console.Console:
        return rich_console(stderr=True)

    def _result(self, *parts: rich.console.RenderableType, soft_wrap: bool = False) -> None:
        try:
            self._stdout.print(*parts, markup=False, soft_wrap=soft_wrap)
        except OSError as error:
            raise unwritable(error) from None

    def _prose(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self._stderr.print(one_line(text), style=style or None, markup=False, soft_wrap=True)

    def _remarks(self, lines: Sequence[str]) -> None:
        """Remarks belong to the result, so they follow it."""
        for line in () if self.quiet else lines:
            self._result(f"- {one_line(line)}", soft_wrap=True)

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
            grid.add_row(Text(clean(name)), Text(clean(fact)))
        if title:
            self._result(Text(clean(title), style="bold"))
        self._result(grid)
        self._result()

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
            grid.add_column(Text(clean(name)), justify="left" if words else "right", overflow="fold")
        for at, row in enumerate(found.rows):
            strong = "bold" if at in found.strong else None
            grid.add_row(*(Text(clean(cell)) for cell in row), style=strong)
        self._result(Text(clean(found.title), style="bold"))
        self._result(grid)
        if found.note:
            self._result(Text(clean(found.note), style="dim"), soft_wrap=True)
        self._result()

    @contextmanager
    def _bar(self, title: str) -> Iterator[Progress]:
        """A bar of its own, or one more beneath the bars that are shown already."""
        if self._bars is not None:
            yield Bar(self._bars, title, self._now_s)
            return
        with rich_bars(self._stderr) as self._bars:
            try:
                yield Bar(self._bars, title, self._now_s)
            finally:
                self._bars = None
