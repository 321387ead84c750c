"""Terminal output with rich: results on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from practise_backends.cli.result import unwritable
from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import plural, size
from practise_backends.results.table_diff import TableDiff
from practise_backends.results.tables import Table, scenarios, throughput
from practise_backends.terminal import clean, one_line
from practise_backends.terms import Comparison, LatencyTable, Scenario, Throughput
from practise_deploy.deployment.kit import WrittenKit
from practise_deploy.outcome import ExportedModel, Levers, Release, Verification
from practise_deploy.progress import ProgressDisplay, rich_console
from practise_deploy.report import summaries, tables
from practise_deploy.report.levers import levers_section
from practise_deploy.report.rows import Rows, exported_rows, student_rows, verification_rows
from practise_deploy.report.section import Section
from practise_deploy.report.table_diff import diff_rows, diff_table
from practise_deploy.terms import Block, NetworkSummary, Plan, Recoverability, Student, Task

if TYPE_CHECKING:
    import rich.console
    import rich.progress


class Console(ProgressDisplay):
    """Prose and progress go to stderr, tables to stdout; `quiet` shows errors only."""

    def error(self, message: str, remedy: str = "", snippet: str = "") -> None:
        """An error and its remedy, shown even if quiet. snippet: Python to write, whose lines stay."""
        from rich.text import Text

        self._stderr.print(Text.assemble(("error: ", "bold red"), one_line(message)), soft_wrap=True)
        if remedy:
            self._stderr.print(Text.assemble(("remedy: ", "bold"), one_line(remedy)), soft_wrap=True)
        for line in snippet.splitlines():
            self._stderr.print(one_line(line), markup=False, soft_wrap=True)

    def show_blocks(self, blocks: Sequence[Block], network: NetworkSummary) -> None:
        """The network and its blocks."""
        section = summaries.inspection(blocks, network)
        self._rows(section.title, section.rows)
        self._tables_of(section)
        self._notes(section.notes)

    def show_latency(self, table: LatencyTable) -> None:
        """The latency of each block on the device."""
        self._section(summaries.latency(table))

    def show_table_diff(self, diff: TableDiff) -> None:
        """Two devices, or two measurements, block by block."""
        self._table(diff_table(diff))
        self._rows("", diff_rows(diff))

    def show_kit(self, kit: WrittenKit) -> None:
        """The kit's folder, and how to use it."""
        self._rows(
            f"Kit of {kit.network}",
            (
                ("Folder", kit.folder),
                ("Networks", f"{kit.networks}, the original among them, for {plural(kit.blocks, 'block')}"),
                ("Conditions", f"backend {kit.backend}, batch {kit.batch}, {kit.precision}"),
                ("Size", size(kit.bytes)),
                ("Copy it, and there", " && ".join(kit.commands)),
                *((("With latency.json, here", kit.plan),) if kit.plan else ()),
            ),
        )

    def show_plan(self, plan: Plan, recoverability: Sequence[Recoverability]) -> None:
        """Which blocks are dropped, and why the others are kept."""
        self._section(summaries.plan(plan, recoverability))

    def show_levers(self, measured: Levers, task: Task, max_drop: float | None) -> None:
        """Dropped blocks and precision measured together."""
        self._section(levers_section(measured, task, max_drop))

    def show_student(self, student: Student, title: str) -> None:
        """How the pruned network recovered."""
        self._rows(title, student_rows(student))
        self._notes(student.notes)

    def show_exported(self, model: ExportedModel) -> None:
        """The exported file."""
        self._rows("Exported", exported_rows(model))

    def show_verification(self, verification: Verification) -> None:
        """Whether the exported network computes the same as the student."""
        self._table(tables.links(verification))
        if verification.accuracy:
            self._table(tables.accuracies(verification))
        self._rows("Verification", verification_rows(verification))
        self._notes(verification.problems)

    def show_comparison(self, measurement: Comparison | Benchmark) -> None:
        """Two networks against each other, or one alone."""
        self._section(summaries.comparison(measurement))

    def show_throughput(self, throughputs: tuple[Throughput, ...]) -> None:
        """Images a second by batch and threads."""
        if throughputs:
            self._table(throughput(throughputs))

    def show_scenarios(self, runs: tuple[Scenario, ...]) -> None:
        """The results of MLPerf LoadGen."""
        if runs:
            self._table(scenarios(runs))

    def show_release(self, release: Release, folder: Path) -> None:
        """The result of a build: speed-up, loss, and files."""
        section = summaries.release(release, folder)
        self._rows(section.title, section.rows)
        self._notes(section.notes)
        self._tables_of(section)

    def _section(self, section: Section) -> None:
        """Tables, then what surrounds them."""
        self._tables_of(section)
        self._rows(section.title, section.rows)
        self._notes(section.notes)

    def _tables_of(self, section: Section) -> None:
        for table in section.tables:
            self._table(table)

    @cached_property
    def _stdout(self) -> rich.console.Console:
        return rich_console(stderr=False)

    def _result(self, *parts: rich.console.RenderableType, soft_wrap: bool = False) -> None:
        try:
            self._stdout.print(*parts, markup=False, soft_wrap=soft_wrap)
        except OSError as error:
            raise unwritable(error) from None

    def _notes(self, lines: Sequence[str]) -> None:
        """Notes are part of the result, so they follow it on stdout."""
        for line in () if self.quiet else lines:
            self._result(f"- {one_line(line)}", soft_wrap=True)

    def _rows(self, title: str, rows: Rows) -> None:
        """Names and values in two columns."""
        from rich.table import Table as Grid
        from rich.text import Text

        if self.quiet:
            return
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, text in rows:
            grid.add_row(Text(clean(name)), Text(clean(text)))
        if title:
            self._result(Text(clean(title), style="bold"))
        self._result(grid)
        self._result()

    def _table(self, table: Table) -> None:
        """A table with its title and its note."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Grid
        from rich.text import Text

        if self.quiet:
            return
        grid = Grid(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for index, name in enumerate(table.head):
            is_left = index in table.left
            grid.add_column(Text(clean(name)), justify="left" if is_left else "right", overflow="fold")
        for index, row in enumerate(table.rows):
            strong = "bold" if index in table.strong else None
            grid.add_row(*(Text(clean(cell)) for cell in row), style=strong)
        self._result(Text(clean(table.title), style="bold"))
        self._result(grid)
        if table.note:
            self._result(Text(clean(table.note), style="dim"), soft_wrap=True)
        self._result()
