"""What the instrument itself costs: the loop's own time, and the time to build a variant of a network.

    python benchmarks/speed/instrument.py

The loop's own time is taken from outside the engines' clocks, in percent of the time that they measured, for a
network of about 1 ms (the embedded digits' ResNet-20, two images a run). Variants are built of
torchvision's ResNet-34. Writes benchmarks/results/instrument.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.intervals import samples_ms
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, StoppingRule
from practise_deploy.deployment.block_latency import variants_of
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run
from practise_deploy.settings import read_settings

RESULTS = Path(__file__).resolve().parents[1] / "results"
REPEATS = 5


def context_of(network: str, folder: Path) -> BuildContext:
    """A network and its blocks."""
    settings = read_settings({"network": network, "out": folder})
    return BuildContext(settings=settings, run=Run(folder), structure_only=network.startswith("torchvision"))


def overhead(path: Path, batch: int, sessions: int) -> dict[str, float]:
    """The loop's own time beside two networks of so many sessions, the median of some measurements."""
    percent, median_ms, rounds = [], 0.0, 0
    for seed in range(REPEATS):
        bench = MeasurementSetup(
            backend=OrtBackend(),
            conditions=Conditions(batch=batch, seed=seed),
            stopping_rule=StoppingRule(budget_s=8.0, warmup_s=0.5, half_width_percent=0.0),
        )
        candidates = {name: Candidate(model=path, sessions=sessions) for name in ("original", "new")}
        with opened(candidates, bench) as found:
            timings = measure(found, bench)
        percent.append(timings.overhead_percent)
        median_ms, rounds = float(np.median(samples_ms(timings, "original"))), len(timings.rounds_ms)
    return {
        "sessions_of_each": sessions,
        "median_ms": median_ms,
        "rounds": rounds,
        "overhead_percent": float(np.median(percent)),
        "all_percent": percent,
    }


def variant_ms(folder: Path) -> dict[str, object]:
    """Building every single-block variant of ResNet-34: from the exported network to a file."""
    context = context_of("torchvision:resnet34", folder)
    blocks, model = list(context.candidates), context.cuttable.proto
    with variants_of(model, blocks) as variants:
        variants.without(())
        took = []
        for block in blocks:
            began = time.perf_counter()
            variants.without((block.name,))
            took.append(1e3 * (time.perf_counter() - began))
    return {
        "network": "torchvision:resnet34",
        "blocks": len(took),
        "median_ms": float(np.median(took)),
        "slowest_ms": max(took),
    }


def main() -> None:
    """Measure and write the JSON."""
    device = OrtBackend().device()
    with TemporaryDirectory() as folder:
        digits = context_of("digits", Path(folder) / "digits")
        path = Path(folder) / "digits.onnx"
        shape = (2, *digits.network.input_shape[1:])
        path.write_bytes(to_onnx(digits.network.traced, shape).SerializeToString())
        found = {
            "schema": 1,
            "device": {"name": device.name, "facts": device.facts, "versions": device.versions},
            "loop": [overhead(path, 2, sessions) for sessions in (1, 4)],
            "variant": variant_ms(Path(folder) / "r34"),
        }
    (RESULTS / "instrument.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({"loop": found["loop"], "variant": found["variant"]}, indent=1))


if __name__ == "__main__":
    main()
