"""What the device saves without a block: the whole network with it minus without it, in paired rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from practise_backends.feeds import random_feeds
from practise_backends.intervals import ORIGINAL, REPEAT, noise_floor, paired_ratio, typical_ms
from practise_backends.measure import measure_rounds
from practise_backends.terms import Backend, Conditions, Engine, Interval, Patience, Progress, Timings
from practise_deploy.model.onnx_graph import without
from practise_deploy.terms import Block, LatencyTable, Saving


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A device under the conditions of the deployment: where candidates are measured."""

    backend: Backend
    conditions: Conditions
    patience: Patience


def measure_block_latency(
    model: onnx.ModelProto, network: str, blocks: Sequence[Block], bench: Bench, progress: Progress
) -> LatencyTable:
    """Every block's saving; blocks of one latency class are pooled.

    model: from `with_cuts`. All variants stay loaded and run in randomised rounds beside the original twice.
    """
    variants = {block.name: without(model, [block]) for block in blocks}
    timings, shape = _measure(without(model, []), variants, bench, progress)
    confidence = bench.patience.confidence
    aa_ratio = noise_floor(timings, confidence)
    baseline = typical_ms(timings, ORIGINAL, confidence)
    resolution = baseline.estimate * max(
        abs(aa_ratio.high - 1), abs(1 - aa_ratio.low), (aa_ratio.high - aa_ratio.low) / 2
    )
    twins = {block.name: tuple(b.name for b in blocks if b.latency_class == block.latency_class) for block in blocks}
    return LatencyTable(
        network=network,
        device=bench.backend.device(),
        conditions=bench.conditions,
        input_shape=shape,
        baseline_ms=baseline,
        aa_ratio=aa_ratio,
        resolution_ms=resolution,
        savings=tuple(_saving(block, twins[block.name], timings, baseline, resolution) for block in blocks),
        rounds=len(timings.rounds_ms),
        discarded=timings.discarded,
        stopped_because=timings.stopped_because,
        samples=_samples(timings),
    )


def measure_reduction(model: onnx.ModelProto, dropped: Sequence[Block], bench: Bench, progress: Progress) -> Interval:
    """By how many percent the latency falls when these blocks are dropped together, measured."""
    timings, _ = _measure(without(model, []), {"chosen": without(model, dropped)}, bench, progress)
    return _reduction_percent(timings, ("chosen",), bench.patience.confidence)


def _measure(
    original: onnx.ModelProto, variants: dict[str, onnx.ModelProto], bench: Bench, progress: Progress
) -> tuple[Timings, tuple[int, ...]]:
    engines: dict[str, Engine] = {}
    try:
        models = {ORIGINAL: original, REPEAT: original, **variants}
        for count, (name, each) in enumerate(models.items()):
            progress.advance(0, 1, f"loading {count + 1} of {len(models)}")
            artifact = bench.backend.compile(each.SerializeToString(), bench.conditions)
            engines[name] = bench.backend.open(artifact, bench.conditions)
        feeds = random_feeds(engines[ORIGINAL].inputs, bench.conditions.batch, bench.conditions.seed)
        timings = measure_rounds(engines, feeds, bench.conditions, bench.patience, progress=progress)
        return timings, next(iter(feeds.values())).shape
    finally:
        for engine in engines.values():
            engine.close()


def _reduction_percent(timings: Timings, names: tuple[str, ...], confidence: float) -> Interval:
    ratio = paired_ratio(timings, names, confidence=confidence)
    return Interval(
        estimate=100 * (1 - ratio.estimate),
        low=100 * (1 - ratio.high),
        high=100 * (1 - ratio.low),
        confidence=ratio.confidence,
    )


def _saving(
    block: Block, twins: tuple[str, ...], timings: Timings, baseline_ms: Interval, resolution_ms: float
) -> Saving:
    reduction = _reduction_percent(timings, twins, baseline_ms.confidence)
    scale = baseline_ms.estimate / 100
    saving = Interval(
        estimate=reduction.estimate * scale,
        low=reduction.low * scale,
        high=reduction.high * scale,
        confidence=reduction.confidence,
    )
    return Saving(
        block=block.name,
        latency_class=block.latency_class,
        saving_ms=saving,
        reduction_percent=reduction,
        pooled_with=tuple(name for name in twins if name != block.name),
        distinguishable=saving.low > 0 and saving.estimate > resolution_ms,
    )


def _samples(timings: Timings) -> dict[str, object]:
    import numpy as np

    return {"rounds_ms": timings.rounds_ms, "engines": np.array(timings.engines)}
