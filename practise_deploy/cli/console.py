"""Terminal output with rich: results on stdout, everything else on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from practise_backends.cli.result import unwritable
from practise_backends.interfaces import Progress
from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import confidence, count, listed, plural, rounds, size
from practise_backends.results.table_diff import TableDiff
from practise_backends.results.tables import Table, engines, savings, scenarios, throughput
from practise_backends.terminal import clean, duration, one_line
from practise_backends.terms import Comparison, LatencyTable, Scenario, Throughput
from practise_deploy.cli.progress import Bar, Lines, rich_bars, rich_console
from practise_deploy.deployment.kit import WrittenKit
from practise_deploy.outcome import ExportedModel, Release, Verification
from practise_deploy.report import measurements, tables
from practise_deploy.report.demands import demands
from practise_deploy.report.headline import latency_change, latency_title, quality, speed
from practise_deploy.report.rows import (
    Rows,
    comparison_rows,
    compiled_rows,
    exported_rows,
    latency_rows,
    plan_rows,
    preprocessing_rows,
    student_rows,
    verification_rows,
)
from practise_deploy.report.table_diff import diff_rows, diff_table
from practise_deploy.run import Silent
from practise_deploy.terms import Block, NetworkSummary, Plan, Recoverability, Student

if TYPE_CHECKING:
    import rich.console
    import rich.progress


class Console:
    """Prose and progress go to stderr, tables to stdout; `quiet` shows errors only."""

    def __init__(self, *, quiet: bool = False, now_s: Callable[[], float] = time.monotonic) -> None:
        self.quiet = quiet
        self._now_s = now_s
        self._bars: rich.progress.Progress | None = None

    def note(self, text: str) -> None:
        """A dimmed message."""
        if not self.quiet:
            self._stderr.print(one_line(text), style="dim", markup=False, soft_wrap=True)

    def error(self, message: str, remedy: str = "", snippet: str = "") -> None:
        """An error and its remedy, shown even if quiet. snippet: Python to write, whose lines stay."""
        from rich.text import Text

        self._stderr.print(Text.assemble(("error: ", "bold red"), one_line(message)), soft_wrap=True)
        if remedy:
            self._stderr.print(Text.assemble(("remedy: ", "bold"), one_line(remedy)), soft_wrap=True)
        for line in snippet.splitlines():
            self._stderr.print(one_line(line), markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show the progress of a step: a bar in a terminal, occasional lines elsewhere."""
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

    def show_blocks(self, blocks: Sequence[Block], network: NetworkSummary) -> None:
        """The network and its blocks."""
        droppable = sum(block.droppable for block in blocks)
        self._rows(
            network.name,
            (
                ("Parameters", count(network.parameters)),
                ("MACs", f"{count(network.macs)} per image"),
                ("Weights", network.weights),
                *preprocessing_rows(network.preprocessing),
                ("Blocks", f"{len(blocks)}, of which {droppable} can be dropped"),
            ),
        )
        self._table(tables.inspected(blocks))
        self._notes(network.notes)

    def show_latency(self, table: LatencyTable) -> None:
        """The latency of each block on the device."""
        self._table(savings(table))
        self._table(measurements.checks(table))
        self._rows("", (*latency_rows(table), ("Intervals", confidence(table.baseline_ms))))
        self._notes(table.notes)

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
        self._table(tables.choices(plan, recoverability))
        if plan.considered:
            self._table(tables.considered(plan))
        elif plan.attempts:
            self._table(tables.attempts(plan))
        self._rows("Plan", plan_rows(plan))
        self._notes(plan.notes)

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
        self._table(engines(measurement, files=measurement.speedup is None))
        self._rows("", comparison_rows(measurement))
        self._notes(measurement.notes)

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
        kept, won = quality(release), speed(release)
        level = confidence(release.speedup or release.plan.predicted_percent)
        self._rows(
            release.network.name,
            (
                (won.title, f"{won.text}, {level} interval"),
                (latency_title(release), latency_change(release)),
                ("Rounds", rounds(release.measured_on)),
                (kept.title, f"{kept.text} ({kept.detail})" if kept.detail else kept.text),
                ("Blocks dropped", f"{len(release.plan.dropped)}: {listed(release.plan.dropped)}"),
                ("Network", release.exported.path),
                *compiled_rows(release.compiled),
                ("Files", str(folder)),
                ("Verdict", release.verdict.sentence),
                ("Promise", release.verdict.answer.value),
            ),
        )
        self._notes(release.verdict.reasons)
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

    @contextmanager
    def _bar(self, title: str) -> Iterator[Progress]:
        """A new bar, or one more beneath the bars that are shown already."""
        if self._bars is not None:
            yield Bar(self._bars, title, self._now_s)
            return
        with rich_bars(self._stderr) as self._bars:
            try:
                yield Bar(self._bars, title, self._now_s)
            finally:
                self._bars = None
