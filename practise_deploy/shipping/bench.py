"""The new engine against the original one, in paired rounds, and what each of them costs besides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from practise_backends.feeds import random_feeds
from practise_backends.footprint import Footprint, cold_start, file_mb
from practise_backends.intervals import ORIGINAL, REPEAT, noise_floor, percentile_ms, samples_ms, speedup
from practise_backends.measure import measure_rounds
from practise_backends.terms import Backend, Conditions, Engine, Interval, Patience, Progress, Timings
from practise_deploy.terms import EngineFigures, Speedup

NEW = "new"


def measure_speedup(
    before: Path,
    after: Path,
    backend: Backend,
    conditions: Conditions,
    patience: Patience,
    progress: Progress,
) -> Speedup:
    """Paired speed-up of `after` over `before` with its interval, percentiles, cold start and memory of both."""
    timings = _rounds({ORIGINAL: before, REPEAT: before, NEW: after}, backend, conditions, patience, progress)
    ratio = speedup(timings, NEW, confidence=patience.confidence)
    return Speedup(
        speedup=ratio,
        aa_ratio=noise_floor(timings, patience.confidence),
        engines=(
            _figures(ORIGINAL, before, timings, backend, patience.confidence),
            _figures(NEW, after, timings, backend, patience.confidence),
        ),
        device=backend.device(),
        conditions=conditions,
        rounds=len(timings.rounds_ms),
        discarded=timings.discarded,
        stopped_because=timings.stopped_because,
        verdict=verdict_of(ratio),
        samples={"rounds_ms": timings.rounds_ms, "engines": np.array(timings.engines)},
    )


def verdict_of(ratio: Interval) -> str:
    """faster, slower, or cannot tell."""
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "cannot tell"


def _rounds(
    files: Mapping[str, Path],
    backend: Backend,
    conditions: Conditions,
    patience: Patience,
    progress: Progress,
) -> Timings:
    engines: dict[str, Engine] = {}
    try:
        for name, path in files.items():
            engines[name] = backend.open(backend.compile(path, conditions), conditions)
        feeds: dict[str, Any] = {}
        for engine in engines.values():
            feeds |= random_feeds(engine.inputs, conditions.batch, conditions.seed)
        return measure_rounds(engines, feeds, conditions, patience, progress=progress)
    finally:
        for engine in engines.values():
            engine.close()


def _figures(name: str, path: Path, timings: Timings, backend: Backend, confidence: float) -> EngineFigures:
    samples = samples_ms(timings, name)
    cold = cold_start(path, timings.conditions) if backend.name == "ort" else None
    return EngineFigures(
        name=name,
        p50_ms=percentile_ms(samples, 50, confidence),
        p90_ms=percentile_ms(samples, 90, confidence),
        p99_ms=percentile_ms(samples, 99, confidence),
        throughput_per_s=1000 * timings.conditions.batch / float(samples.mean()),
        load_ms=_median(cold, "load_ms"),
        first_run_ms=_median(cold, "first_run_ms"),
        peak_memory_mb=cold.peak_rss_mb if cold else None,
        file_mb=file_mb(path),
    )


def _median(cold: Footprint | None, field: str) -> float | None:
    return None if cold is None else float(np.median(getattr(cold, field)))
