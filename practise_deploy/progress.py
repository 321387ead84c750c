"""The progress of a step, on stderr: a bar in a terminal or a notebook, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from practise_backends.cli.progress import Pace
from practise_backends.cli.result import stop_telling
from practise_backends.interfaces import Progress
from practise_backends.terminal import clean, duration, one_line
from practise_deploy.run import Silent

if TYPE_CHECKING:
    import rich.console
    import rich.progress

_DEFAULT_WIDTH = 200
_EVERY_S = 10.0


class ProgressDisplay:
    """Notes and progress on stderr; nothing at all where `quiet`."""

    def __init__(self, *, quiet: bool = False, now_s: Callable[[], float] = time.monotonic) -> None:
        self.quiet = quiet
        self._now_s = now_s
        self._bars: rich.progress.Progress | None = None

    def note(self, text: str) -> None:
        """A dimmed message."""
        if not self.quiet:
            self._stderr.print(one_line(text), style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show the progress of a step: a bar in a terminal or a notebook, occasional lines elsewhere."""
        began = self._now_s()
        if self.quiet:
            yield Silent()
        elif shows_bars(self._stderr):
            with self._bar(title) as bar:
                yield bar
        else:
            self.note(f"{title} ...")
            yield Lines(title, self.note, self._now_s)
        self.note(f"{title}: {duration(self._now_s() - began)}")

    @cached_property
    def _stderr(self) -> rich.console.Console:
        return rich_console(stderr=True)

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


class Bar:
    """Progress as a bar."""

    def __init__(self, bars: rich.progress.Progress, title: str, now_s: Callable[[], float]) -> None:
        self._bars, self._pace = bars, Pace(now_s)
        self._task = bars.add_task(clean(title), total=None, note="", left="")

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Move the bar."""
        left = self._pace.left(done, total)
        self._bars.update(self._task, completed=done, total=total, note=clean(note), left=left)


class Lines:
    """Progress as lines, at most one in ten seconds."""

    def __init__(self, title: str, tell: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._title, self._tell, self._now_s = title, tell, now_s
        self._began = self._last_s = now_s()
        self._pace = Pace(now_s)

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Print the progress, at most once in ten seconds."""
        now, left = self._now_s(), self._pace.left(done, total)
        if now - self._last_s < _EVERY_S:
            return
        self._last_s = now
        share = f"{100 * min(1.0, done / total):.0f}%" if total > 0 else ""
        parts = (share, f"{duration(now - self._began)} elapsed", left, note)
        self._tell(f"{self._title}: {', '.join(part for part in parts if part)}")


def shows_bars(console: rich.console.Console) -> bool:
    """Whether a bar can move there: in a terminal, and in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def rich_console(*, stderr: bool) -> rich.console.Console:
    """A console as wide as its terminal or notebook; elsewhere wide enough for every table, and without colour."""
    from rich.console import Console as RichConsole
    from rich.control import Control

    class Patient(RichConsole):
        def on_broken_pipe(self) -> None:
            """Fall silent if the reader has gone; rich would exit with a different code."""
            self.quiet = True
            stop_telling()

        def control(self, *control: Control) -> None:
            """Move no cursor in a notebook, which would get an empty line for each move."""
            if not self.is_jupyter:
                super().control(*control)

    console = Patient(stderr=stderr, highlight=False)
    if console.is_terminal or console.is_jupyter:
        return console
    return Patient(stderr=stderr, highlight=False, width=_DEFAULT_WIDTH, color_system=None)


def rich_bars(console: rich.console.Console) -> rich.progress.Progress:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed", style="dim"),
        TextColumn("{task.fields[left]}", style="dim"),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
    )
