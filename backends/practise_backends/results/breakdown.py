"""Where the milliseconds of a run on a GPU go: copying in, computing, copying out, launching, all of it.

Measured after the paired rounds, on the sessions that took part in them; an engine without `parts_once` has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from practise_backends.interfaces import Engine
from practise_backends.rounds.feeds import select_feeds
from practise_backends.rounds.intervals import percentile_ms
from practise_backends.terms import Interval, Tensors

RUNS = 200
LAUNCH_BOUND = 0.8


def parts_of(engines: Sequence[Engine], feeds: Tensors, confidence: float) -> dict[str, Interval]:
    """The median of every part over all sessions, in milliseconds: `compute_ms`, `enqueue_ms` ..., by name."""
    samples = list(_samples(engines, feeds))
    names = samples[0] if samples else ()
    intervals = {name: percentile_ms([sample[name] for sample in samples], 50, confidence) for name in names}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def launch_notes(parts: Mapping[str, Mapping[str, Interval]]) -> tuple[str, ...]:
    """Which networks wait for the host rather than for the device. Source: trtexec's warning on enqueue time."""
    return tuple(
        f"{name} is bound by launching: telling the device takes {100 * share:.0f}% of computing; a CUDA graph may help"
        for name, intervals in parts.items()
        if (share := _launch_share(intervals)) > LAUNCH_BOUND
    )


def _launch_share(intervals: Mapping[str, Interval]) -> float:
    if "enqueue_ms" not in intervals or "compute_ms" not in intervals:
        return 0.0
    return intervals["enqueue_ms"].estimate / intervals["compute_ms"].estimate


def _samples(engines: Sequence[Engine], feeds: Tensors) -> Iterator[dict[str, float]]:
    """Runs of all sessions, alternating."""
    timeable = [engine for engine in engines if hasattr(engine, "parts_once")]
    inputs = [select_feeds(engine.inputs, feeds) for engine in timeable]
    for _ in range(-(-RUNS // len(timeable)) if timeable else 0):
        for engine, tensors in zip(timeable, inputs, strict=True):
            yield asdict(engine.parts_once(tensors))
