"""What a fake device measured: two networks in paired rounds, on a machine that drifts a little."""

from __future__ import annotations

import numpy as np

from practise_backends.terms import (
    Arrays,
    Comparison,
    Conditions,
    Device,
    EngineFigures,
    Environment,
    Interval,
    Scenario,
    Throughput,
)

CONDITIONS = Conditions(batch=1, threads=2, precision="fp32", clock="end_to_end")
DEVICE = Device(
    name="Example CPU 3000 @ 2.40GHz",
    fingerprint="5f" * 32,
    versions={"onnxruntime": "1.27.0"},
    facts={"cpu": "Example CPU 3000", "logical_cores": "8", "os": "Linux", "load_average": "0.42"},
)


def around(estimate: float, half: float) -> Interval:
    """A 95% interval."""
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


def environment() -> Environment:
    """A machine that was shared a little."""
    return Environment(
        seconds=61.2,
        load=(0.42, 1.37),
        steal_percent=0.8,
        quota_stops=3,
        heat_stops=0,
        clock_mhz=(2390.0, 3412.0),
        temperature_c=(51.0, 63.5),
    )


def samples(rounds: int = 412, sessions: int = 4, seed: int = 0) -> Arrays:
    """Raw samples of a machine that slows down half-way, with a heavy tail and a few rounds discarded."""
    chance = np.random.default_rng(seed)
    names = ("original",) * sessions + ("new",) * sessions
    medians = np.repeat([31.4, 24.5], sessions) * chance.normal(1, 0.004, 2 * sessions)
    drift = 0.975 + 0.05 / (1 + np.exp(-(np.arange(rounds) - rounds / 2) / (rounds / 40)))
    tail = np.where(chance.random((rounds, 2 * sessions)) < 0.02, chance.uniform(1.2, 3.0, (rounds, 2 * sessions)), 1)
    rounds_ms = medians * drift[:, None] * chance.lognormal(0, 0.012, (rounds, 2 * sessions)) * tail
    rounds_ms[chance.choice(rounds, max(1, rounds // 80), replace=False)] = np.nan
    return {"rounds_ms": rounds_ms, "engines": np.array(names)}


def comparison() -> Comparison:
    """The original and the release."""
    return Comparison(
        backend="ort",
        speedup=around(1.281, 0.006),
        verdict="faster",
        aa_ratio=around(0.9998, 0.0015),
        sessions=4,
        session_percent=0.38,
        estimator="median",
        estimator_errors_percent={"median": 0.15, "least": 0.22, "mean": 0.94},
        engines=(figures("original", 31.4, 87.2), figures("new", 24.5, 85.9)),
        device=DEVICE,
        conditions=CONDITIONS,
        rounds=412,
        discarded=tuple(f"round {n}: the quota stopped the processor" for n in (41, 77, 160, 288, 390)),
        warmup_s=2.4,
        stopped_because="the interval of every ratio is within +-0.25%",
        environment=environment(),
        samples=samples(),
    )


def figures(name: str, median_ms: float, file_mb: float) -> EngineFigures:
    """Figures of one engine; the sample is too small for its p99."""
    return EngineFigures(
        name=name,
        file=f"runs/resnet34/{name}.onnx",
        sha256=("a4" if name == "original" else "c1") * 32,
        precision="fp32",
        precision_share=1.0,
        p50_ms=around(median_ms, 0.08),
        p90_ms=around(median_ms + 1.1, 0.4),
        p99_ms=None,
        throughput_per_s=1000 / median_ms,
        load_ms=142.0,
        first_run_ms=48.9,
        peak_memory_mb=211.0,
        file_mb=file_mb,
    )


def throughput() -> tuple[Throughput, ...]:
    """Both engines at three settings, the largest of which does not fit."""
    settings = ((1, 1, 1.0), (1, 2, 1.7), (8, 2, 2.1))
    measured = [
        Throughput(
            engine=engine,
            batch=batch,
            threads=threads,
            latency_ms=around(batch * base / gain, 0.2),
            images_per_s=around(1000 * gain / base, 0.6),
        )
        for engine, base in (("original", 52.0), ("new", 40.6))
        for batch, threads, gain in settings
    ]
    refused = Throughput(
        engine="new", batch=64, threads=2, latency_ms=None, images_per_s=None, refused="more memory than the device has"
    )
    return (*measured, refused)


def scenarios() -> tuple[Scenario, ...]:
    """One scenario of LoadGen, too short for a submission."""
    return tuple(
        Scenario(
            engine=engine,
            scenario="SingleStream",
            metric=metric,
            unit="ms (90th percentile)",
            valid=False,
            problems=("Min queries not satisfied",),
            queries=640,
            latency_ms={"p50": metric - 1, "p90": metric},
            settings={"min_duration_s": "10"},
        )
        for engine, metric in (("original", 32.5), ("new", 25.6))
    )
