"""Cold start and memory of a network, each repeat in a fresh interpreter."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practise_backends.errors import BackendError, MeasureError
from practise_backends.rounds.feeds import Shapes, random_feeds
from practise_backends.runtimes.external_data import size_of
from practise_backends.runtimes.ort import OrtEngine, import_onnxruntime
from practise_backends.terms import Conditions

_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a network costs before it answers. Raw samples, one a fresh interpreter.

    load_ms: opening the session, the runtime already imported. first_run_ms: the first run after that.
    peak_rss_mb: the resident peak after the first run in units of 10**6 bytes, the largest of the repeats; None where the
    platform does not tell. file_mb counts external weight files too.
    """

    load_ms: tuple[float, ...]
    first_run_ms: tuple[float, ...]
    peak_rss_mb: float | None
    file_mb: float


def cold_start(
    model_path: Path, conditions: Conditions, repeats: int = 5, *, shapes: Shapes | None = None
) -> Footprint:
    """Load and run once in `repeats` fresh interpreters, one after another.

    Raises: MeasureError where the network does not load or run there.
    """
    question = json.dumps(
        {"model": str(model_path), "conditions": dataclasses.asdict(conditions), "shapes": dict(shapes or {})}
    )
    answers = [_ask(question) for _ in range(max(1, repeats))]
    peaks = [answer["peak_rss_mb"] for answer in answers]
    return Footprint(
        load_ms=tuple(float(answer["load_ms"]) for answer in answers),
        first_run_ms=tuple(float(answer["first_run_ms"]) for answer in answers),
        peak_rss_mb=None if None in peaks else max(map(float, peaks)),
        file_mb=file_mb(model_path),
    )


def file_mb(model_path: Path) -> float:
    """The size of a network's file and its external weight files, in units of 10**6 bytes."""
    return size_of(model_path) / _MB


def _ask(question: str) -> dict[str, Any]:
    """The answer of one fresh interpreter."""
    command = [sys.executable, "-m", "practise_backends.results.footprint", question]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise MeasureError(f"the cold start failed: {last}", remedy="check that the file loads and runs")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise MeasureError(
            f"the cold start answered {done.stdout[-80:]!r}",
            remedy="find out what prints when Python starts",
        ) from None
    return answer


def _answer(question: Mapping[str, Any]) -> dict[str, float | None]:
    """Load and run in this interpreter, and say what it took."""
    conditions = Conditions(**question["conditions"])
    shapes = {name: tuple(shape) for name, shape in question["shapes"].items()}
    import_onnxruntime()
    began = time.perf_counter_ns()
    engine = OrtEngine(Path(question["model"]), conditions)
    load_ms = (time.perf_counter_ns() - began) / 1e6
    feeds = random_feeds(engine.inputs, conditions.batch, conditions.seed, shapes)
    return {
        "load_ms": load_ms,
        "first_run_ms": engine.time_once(feeds),
        "peak_rss_mb": _peak_rss_mb(),
    }


def _peak_rss_mb() -> float | None:
    """The resident peak of this interpreter.

    Linux is asked in /proc, since its getrusage counts the parent's memory from before the exec.
    """
    if sys.platform.startswith("linux"):
        return _high_water_mark_mb()
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else None


def _high_water_mark_mb() -> float | None:
    """VmHWM of /proc/self/status, which is in KiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    marks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(marks[0]) * 1024 / _MB if marks else None


def main() -> int:
    """Answer the question of the command line as JSON on stdout."""
    try:
        answer = _answer(json.loads(sys.argv[1]))
    except BackendError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
