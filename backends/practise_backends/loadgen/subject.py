"""The system under test, as LoadGen calls it from its own threads.

An exception that reaches LoadGen leaves its log thread running, and the next test ends the interpreter. So
nothing is raised in a callback: the first failure is kept, the engine runs no more, and every query is
answered, so that LoadGen comes to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from practise_backends.interfaces import Engine
from practise_backends.terms import Tensors

_SAMPLES = 64
_LOG_POLL_MS = 100


@dataclass(slots=True, kw_only=True)
class Subject:
    """One engine with the tensors that its runs are fed in turn.

    size: images of one run. stop: set from outside to end the test, and by the first failure.
    queries, samples: how many LoadGen issued.
    """

    loadgen: Any
    engine: Engine
    feeds: Sequence[Tensors]
    size: int
    stop: threading.Event
    failure: BaseException | None = None
    queries: int = 0
    samples: int = 0
    waiting: SimpleQueue[tuple[int, int] | None] = field(default_factory=SimpleQueue)

    def run(self, index: int) -> bool:
        """Run the engine once; False where the test is to end instead."""
        if self.stop.is_set():
            return False
        try:
            self.engine.run(self.feeds[index % len(self.feeds)])
        except BaseException as error:  # whatever it is, it must not reach LoadGen
            self.failure = error
            self.stop.set()
            return False
        return True

    def answer(self, query: Sequence[Any]) -> None:
        """Run one query at once, in the thread that asks, `size` samples a run.

        After the end was asked for, queries are answered without a run, until LoadGen has issued those
        that it had prepared.
        """
        self._count(query)
        for at in range(0, len(query), self.size):
            part = query[at : at + self.size]
            self.run(part[0].index)
            self._complete([sample.id for sample in part])

    def enqueue(self, query: Sequence[Any]) -> None:
        """Leave one query to `serve`."""
        self._count(query)
        for sample in query:
            self.waiting.put((sample.id, sample.index))

    def close_queue(self) -> None:
        """Say that no further query comes."""
        self.waiting.put(None)

    def serve(self) -> None:
        """Run the queue, first in first out, until it is closed.

        After the end was asked for, queries are held back: LoadGen stops issuing when too many are
        outstanding, closes the queue, and is answered then.
        """
        held: list[int] = []
        while (sample := self.waiting.get()) is not None:
            if self.run(sample[1]):
                self._complete([sample[0]])
            else:
                held.append(sample[0])
        self._complete(held)

    def _count(self, query: Sequence[Any]) -> None:
        """Count one query and its samples."""
        self.queries += 1
        self.samples += len(query)

    def _complete(self, ids: Sequence[int]) -> None:
        """Answer samples; nobody reads the outputs in a performance test."""
        response = self.loadgen.QuerySampleResponse
        self.loadgen.QuerySamplesComplete([response(sample_id, 0, 0) for sample_id in ids])


def run_test(subject: Subject, settings: Any, folder: Path, *, queued: bool) -> None:
    """Let LoadGen test the subject, and write its logs to the folder.

    The engine runs in the calling thread: in LoadGen's callbacks, or, where `queued`, beside LoadGen's thread.
    """
    loadgen = subject.loadgen
    issue, flush = (subject.enqueue, subject.close_queue) if queued else (subject.answer, _nothing)
    system = loadgen.ConstructSUT(issue, flush)
    library = loadgen.ConstructQSL(_SAMPLES, _SAMPLES, _nothing, _nothing)
    audit = str(folder / "no audit")  # else LoadGen obeys a file audit.config in the working directory

    def start() -> None:
        loadgen.StartTestWithLogSettings(system, library, settings, _log_settings(loadgen, folder), audit)

    try:
        if queued:
            _serve_during(start, subject)
        else:
            start()
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)


def _serve_during(start: Callable[[], None], subject: Subject) -> None:
    """Serve the queue in this thread while LoadGen fills it from another."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loadgen-issue") as pool:
        test = pool.submit(start)
        test.add_done_callback(lambda _: subject.close_queue())
        subject.serve()
        test.result()


def _log_settings(loadgen: Any, folder: Path) -> Any:
    """Logs in the folder, nothing on the screen, no trace."""
    settings = loadgen.LogSettings()
    settings.enable_trace = False
    settings.log_mode_async_poll_interval_ms = _LOG_POLL_MS
    settings.log_output.outdir = str(folder)
    settings.log_output.copy_summary_to_stdout = False
    settings.log_output.copy_detail_to_stdout = False
    return settings


def _nothing(*ignored: object) -> None:
    """A callback without work: the samples lie in memory already."""
