"""Programs run in forks of one process that has imported everything: what each said, how it ended, what it opened."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 15.0
_WALL_S = 300.0
MEMORY = 6 << 30
_LARGEST_FILE = 1 << 30
_STREAMS = ("stdout", "stderr")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_OPENED, _CHANGED, _IS_FOLDER = 0x20, 0x2 | 0x40 | 0x80 | 0x100 | 0x200, 0x40000000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. code: negative where a signal ended it. hung: why it was taken for hanging; empty where it was not.

    seconds: of the wall clock, and of the processor with its children. opened: files of the folder outside that it opened or changed.
    """

    code: int
    out: str
    err: str
    hung: str
    wall_s: float
    cpu_s: float
    opened: tuple[str, ...]


class Watched:
    """The folder outside: whoever opens or changes a file in it is noticed by the kernel, in whatever language it is written."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _OPENED | _CHANGED)
        if self._fd < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(folder))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def drain(self) -> tuple[str, ...]:
        """The files that were touched since the last call, each with what was done to it."""
        found: dict[str, None] = {}
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                found |= dict.fromkeys(self._events(data))
        return tuple(found)

    @staticmethod
    def _events(data: bytes) -> Iterator[str]:
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode(errors="replace")
            if not mask & _IS_FOLDER:
                yield f"{'opened' if mask & _OPENED else 'changed'} {name}"
            at += 16 + length


def run(
    main: Callable[[list[str]], Any], arguments: Sequence[str], here: Path, watched: Watched | None = None
) -> Ended:
    """Run a program in a fork, in a folder; its own temporary files go to `tmp` beside it."""
    temporary = here.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    streams = {name: here.parent / name for name in _STREAMS}
    if watched is not None:
        watched.drain()
    began = time.monotonic()
    if not (child := os.fork()):
        _be_the_program(main, list(arguments), here, temporary, streams)
    status, hung, cpu_s = _wait(child)
    _end_group(child)
    said = {name: path.read_bytes().decode("utf-8", "replace") for name, path in streams.items()}
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        out=said["stdout"],
        err=said["stderr"],
        hung=hung,
        wall_s=time.monotonic() - began,
        cpu_s=cpu_s,
        opened=watched.drain() if watched is not None else (),
    )


def _be_the_program(
    main: Callable[[list[str]], Any], arguments: list[str], here: Path, temporary: Path, streams: dict[str, Path]
) -> None:
    """In the fork: never returns."""
    code = 1
    try:
        os.setsid()
        for number, path in ((0, Path(os.devnull)), *((n, streams[name]) for n, name in enumerate(_STREAMS, 1))):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, number)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        os.chdir(here)
        os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
        for name, most in (
            ("RLIMIT_DATA", MEMORY),
            ("RLIMIT_FSIZE", _LARGEST_FILE),
            ("RLIMIT_CORE", 0),
            ("RLIMIT_CPU", 2 * int(LIMIT_S)),
        ):
            resource.setrlimit(getattr(resource, name), (most, most))
        found = main(arguments)
        code = found if isinstance(found, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code & 0xFF)


def _wait(child: int) -> tuple[int, str, float]:
    """The status of a child, why it hung, and its seconds of processor time.

    On a busy machine the wall clock tells little: it hangs where it has computed for longer than the limit, or where
    for as long it neither computed nor waited for a processor.
    """
    fd = os.pidfd_open(child)
    began = alive = time.monotonic()
    used, hung = 0.0, ""
    try:
        while not select.select([fd], [], [], 0.5)[0]:
            now, (computed, runnable) = time.monotonic(), _processor(child)
            if computed > used or runnable:
                alive = now
            used = max(used, computed)
            if used > LIMIT_S:
                hung = f"computed for {used:.0f} s"
            elif now - alive > LIMIT_S:
                hung = f"waited for {now - alive:.0f} s without computing"
            elif now - began > _WALL_S:
                hung = f"took {now - began:.0f} s, of which it computed {used:.1f} s"
            if hung:
                _end_group(child)
                break
        _, status, usage = os.wait4(child, 0)
        return status, hung, max(used, usage.ru_utime + usage.ru_stime)
    finally:
        os.close(fd)


def _processor(session: int) -> tuple[float, bool]:
    """Seconds of processor time of all processes of a session that still run, and whether one of them could go on."""
    total, runnable = 0.0, False
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            words = path.read_text().rpartition(") ")[2].split()
            if int(words[3]) == session:
                total += _TICK_S * sum(map(int, words[11:15]))
                runnable |= words[0] in ("R", "D")
    return total, runnable


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
