"""The progress of a step: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from practise_backends.cli.result import stop_telling
from practise_backends.results.formatting import duration
from practise_backends.terminal import clean

if TYPE_CHECKING:
    import rich.console
    import rich.progress

_DEFAULT_WIDTH = 200
_EVERY_S = 10.0
_RECENT_S = 30.0


class Pace:
    """The current pace of a step, over its last half minute; restarts with each part."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._marks = deque([(now_s(), 0.0)])

    def left(self, done: float, total: float) -> str:
        """The remaining time at that pace, as text; empty if it is unknown or nothing remains."""
        now = self._now_s()
        if done <= 0 or done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _RECENT_S:
            self._marks.popleft()
        began, before = self._marks[0]
        progressing = before < done < total and now > began
        return f"about {duration((total - done) * (now - began) / (done - before))} left" if progressing else ""


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


def rich_console(*, stderr: bool) -> rich.console.Console:
    """A console as wide as its terminal; elsewhere wide enough for every table, and without colour."""
    from rich.console import Console as RichConsole

    class Patient(RichConsole):
        def on_broken_pipe(self) -> None:
            """Fall silent if the reader has gone; rich would exit with a different code."""
            self.quiet = True
            stop_telling()

    console = Patient(stderr=stderr, highlight=False)
    if console.is_terminal:
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
