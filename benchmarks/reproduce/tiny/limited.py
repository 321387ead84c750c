"""Work on one network in a process of its own, with a limit of time and of memory."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def row_of(name: str, work: Callable[..., None], *arguments: Any, limit_s: float, limit_gib: float) -> Row:
    """What `work(name, *arguments, result)` sends over the connection `result`, or how it was killed."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    within = (work, (name, *arguments, theirs), limit_gib)
    process = multiprocessing.get_context("fork").Process(target=_limited, args=within)
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(limit_s) else {"ended": f"killed: it had run for {limit_s:g} s"}
    except EOFError:
        process.join()
        found = {"ended": f"killed: by signal {-(process.exitcode or 0)}"}
    process.kill()
    process.join()
    return {"network": name, **found}


def _limited(work: Callable[..., None], arguments: tuple[Any, ...], limit_gib: float) -> None:
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    work(*arguments)
