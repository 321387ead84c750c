"""How far a step is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from practise_backends.result import stop_telling
from practise_backends.terminal import clean
from practise_deploy.report.words import duration

if TYPE_CHECKING:
    import rich.console
    import rich.progress

_PLAIN_WIDTH = 200
_EVERY_S = 10.0


class Silent:
    """Progress that nobody sees."""

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Show nothing."""


class Bar:
    """Progress as a bar."""

    def __init__(self, bars: rich.progress.Progress, title: str) -> None:
        self._bars = bars
        self._task = bars.add_task(clean(title), total=None, note="")

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done, total=total, note=clean(note))


class Lines:
    """Progress as plain lines, one every ten seconds at most."""

    def __init__(self, title: str, tell: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._title, self._tell, self._now_s = title, tell, now_s
        self._began = self._told = now_s()

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Say how far it is, unless that was said just now."""
        now = self._now_s()
        if now - self._told < _EVERY_S:
            return
        self._told = now
        gone = now - self._began
        share = min(1.0, done / total) if total > 0 else 0.0
        told = f"{100 * share:.0f}%, " if total > 0 else ""
        left = f", about {duration(gone * (1 - share) / share)} left" if 0 < share < 1 else ""
        self._tell(f"{self._title}: {told}{duration(gone)} gone{left}{', ' + note if note else ''}")


def rich_console(*, stderr: bool) -> rich.console.Console:
    """A console as wide as its terminal; elsewhere wide enough for every table, and without colour."""
    from rich.console import Console as RichConsole

    class Patient(RichConsole):
        def on_broken_pipe(self) -> None:
            """Fall silent where nobody reads on; rich would end the command, with an exit code of its own."""
            self.quiet = True
            stop_telling()

    found = Patient(stderr=stderr, highlight=False)
    if found.is_terminal:
        return found
    return Patient(stderr=stderr, highlight=False, width=_PLAIN_WIDTH, color_system=None)


def rich_bars(console: rich.console.Console) -> rich.progress.Progress:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("gone,", style="dim"),
        TimeRemainingColumn(),
        TextColumn("left", style="dim"),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
    )
