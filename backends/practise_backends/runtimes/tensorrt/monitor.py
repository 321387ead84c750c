"""The builder's progress, and Ctrl-C while it builds.

An exception in a monitor's callback would be raised into TensorRT's own code, and Python runs no signal handler while
the main thread is in there. So both are recorded, and the builder stops at its next step.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from practise_backends.interfaces import Progress
from practise_backends.runtimes.tensorrt.package import TensorRtPackage


class Phases:
    """How far the builder is. Phases lie in each other: a step of the outer one is all of an inner one.

    failure: what the screen raised.
    """

    def __init__(self, progress: Progress | None, interrupted: Callable[[], bool]) -> None:
        self._progress, self._interrupted = progress, interrupted
        self._open: list[tuple[str, int, int]] = []  # name, step, steps; outermost first
        self.failure: BaseException | None = None

    def start(self, name: str, steps: int) -> None:
        """A phase begins, inside those that are open."""
        self._open.append((name, 0, max(1, steps)))
        self._show()

    def step(self, name: str, step: int) -> bool:
        """A step of a phase is done; whether the builder may go on."""
        self._open = [(phase, step + 1 if phase == name else at, steps) for phase, at, steps in self._open]
        self._show()
        return self.failure is None and not self._interrupted()

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._open = [phase for phase in self._open if phase[0] != name]

    @property
    def share(self) -> float:
        """Of the outermost phase, from 0 to 1."""
        share = 0.0
        for _, step, steps in reversed(self._open):
            share = min(1.0, (step + share) / steps)
        return share

    def _show(self) -> None:
        if self._progress is None or self.failure is not None or not self._open:
            return
        try:
            self._progress.advance(self.share, 1.0, self._open[-1][0].lower())
        except BaseException as error:
            self.failure = error


def monitor_of(package: TensorRtPackage, phases: Phases) -> Any:
    """The package's monitor over these phases."""
    trt = package.module

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            phases.start(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            return phases.step(phase, step)

        def phase_finish(self, phase: str) -> None:
            phases.finish(phase)

    return Monitor()


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted instead of raised; the function says whether it came. Outside the main thread it is left alone.

    The signal's number reaches the socket at once, whatever the main thread is doing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    came = bytearray()

    def interrupted() -> bool:
        with suppress(BlockingIOError):
            came.extend(reader.recv(64))
        return signal.SIGINT in came

    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()
