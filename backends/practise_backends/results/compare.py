"""Two networks against each other in paired rounds: the speed-up with its interval, and the cost of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from practise_backends.choices import Precision
from practise_backends.errors import MeasureError
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.results.breakdown import launch_notes, parts_of
from practise_backends.results.footprint import Footprint, cold_start, file_mb
from practise_backends.rounds.estimates import LatencyEstimates, estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL, percentile_of, raw_samples, samples_ms
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.terms import Artifact, Comparison, EngineFigures, Fp32Original, Interval, Timings

NEW = "new"
FP32 = "original in fp32"


def compare(
    before: Path,
    after: Path,
    setup: MeasurementSetup,
    progress: Progress | None = None,
    *,
    footprint: bool = True,
    fp32: Path | None = None,
) -> Comparison:
    """How many times as fast `after` is as `before`.

    Each is opened `stopping_rule.sessions` times; the interval covers rounds and sessions (see `estimates`).
    footprint: also start each in fresh processes, for cold start and memory (where its backend has such).
    fp32: the original in fp32, measured in the same rounds, where the two are of less precision.
    Raises: CompileError, MeasureError.
    """
    files = {ORIGINAL: before, NEW: after} | ({FP32: fp32} if fp32 else {})
    fields, estimates = measure_engines(
        files, setup, progress, footprint=footprint, precisions={FP32: Precision.FP32}
    )
    speedup, engines = estimates.speedup(NEW), fields.pop("engines")
    return Comparison(
        **fields,
        engines=engines[:2],
        speedup=speedup,
        verdict=verdict_of(speedup),
        fp32=Fp32Original(engine=engines[2], speedup=estimates.speedup(NEW, over=FP32)) if fp32 else None,
    )


def measure_engines(
    files: Mapping[str, Path],
    setup: MeasurementSetup,
    progress: Progress | None,
    *,
    footprint: bool,
    precisions: Mapping[str, Precision] | None = None,
) -> tuple[dict[str, Any], LatencyEstimates]:
    """Paired rounds of one network or several, the original first: the fields of `Measurement`, and sessions and engines.

    precisions: by name, where they are not that of the setup.

    Raises: CompileError, MeasureError.
    """
    rule = setup.stopping_rule
    keys = dict(zip(files, (ORIGINAL, *list(files)[1:]), strict=True))
    candidates = {
        keys[name]: Candidate(model=path, sessions=rule.sessions, precision=(precisions or {}).get(name))
        for name, path in files.items()
    }
    with opened(candidates, setup, progress) as networks:
        timings = measure(networks, setup, progress)
        parts = {
            name: parts_of(networks.engines[key], networks.feeds, rule.confidence)
            for name, key in keys.items()
        }
    estimates = estimate_latencies(timings, rule.confidence)
    starts, failed = cold_starts(files, setup) if footprint else ({}, ())
    figures = tuple(
        replace(
            figures_of(
                key, networks.artifacts[key], timings, estimates, file=files[name], cold=starts.get(name)
            ),
            name=name,
            parts_ms=parts[name],
        )
        for name, key in keys.items()
    )
    names = {key: name for name, key in keys.items()}
    fields = shared_fields(setup, timings, estimates) | {
        "sessions": len(networks.engines[ORIGINAL]),
        "engines": figures,
        "notes": (*networks.notes, *timings.notes, *launch_notes(parts), *failed),
        "samples": raw_samples(timings) | {"engines": np.array([names[key] for key in timings.engines])},
    }
    return fields, estimates


def shared_fields(setup: MeasurementSetup, timings: Timings, estimates: LatencyEstimates) -> dict[str, Any]:
    """The fields of `Measurement` but for notes and samples."""
    return {
        "backend": setup.backend.name,
        "device": setup.backend.device(),
        "conditions": setup.conditions,
        "aa_ratio": estimates.noise_floor(),
        "session_percent": estimates.session_percent,
        "estimator": estimates.estimator,
        "estimator_errors_percent": estimates.errors_percent,
        "rounds": len(timings.rounds_ms),
        "discarded": timings.discarded,
        "warmup_s": timings.warmup_s,
        "stopped_because": timings.stopped_because,
        "environment": timings.environment,
        "timed_by": timings.timed_by,
    }


def verdict_of(speedup: Interval) -> str:
    """faster, slower, or cannot tell."""
    if speedup.low > 1:
        return "faster"
    return "slower" if speedup.high < 1 else "cannot tell"


def cold_starts(
    files: Mapping[str, Path], setup: MeasurementSetup
) -> tuple[dict[str, Footprint], tuple[str, ...]]:
    """What each network costs in fresh processes (ONNX Runtime alone), and a note where that failed.

    It comes after the rounds: what was measured is not lost for it.
    """
    if not setup.backend.capabilities.cold_start:
        return {}, (f"cold start and memory are not measured with backend {setup.backend.name}",)
    footprints: dict[str, Footprint] = {}
    failed: list[str] = []
    for name, path in files.items():
        try:
            footprints[name] = cold_start(path, setup.conditions, shapes=setup.shapes)
        except MeasureError as error:
            failed.append(f"{name}: {error.message}")
    return footprints, tuple(failed)


def figures_of(
    name: str,
    artifact: Artifact,
    timings: Timings,
    estimates: LatencyEstimates,
    *,
    file: Path,
    cold: Footprint | None,
) -> EngineFigures:
    """One network's figures. file_mb is of what is loaded: the engine, where the backend builds one."""
    return EngineFigures(
        name=name,
        file=str(file),
        sha256=artifact.sha256,
        precision=artifact.precision,
        precision_share=artifact.precision_share,
        p50_ms=estimates.typical_ms(name),
        p90_ms=percentile_of(timings, name, 90, estimates.confidence),
        p99_ms=percentile_of(timings, name, 99, estimates.confidence),
        throughput_per_s=1000 * timings.conditions.batch / float(samples_ms(timings, name).mean()),
        load_ms=_median(cold, "load_ms"),
        first_run_ms=_median(cold, "first_run_ms"),
        peak_memory_mb=cold.peak_rss_mb if cold else None,
        file_mb=len(artifact.content) / 1e6 if isinstance(artifact.content, bytes) else file_mb(file),
    )


def _median(cold: Footprint | None, field: str) -> float | None:
    return None if cold is None else float(np.median(getattr(cold, field)))
