"""Can the instrument be believed on a disturbed machine? A CPU hog runs beside every measurement.

    python benchmarks/speed/noise.py [--repeats 20]

1. A/A: one file against itself, many times, by paired rounds and by the usual sequential timing (10 warm-ups,
   100 runs, mean) of the same file twice.
2. Two latency tables of each network, measured independently (a process each): do they rank the blocks alike? Beside
   them two tables by sequential timing of every variant.

Writes benchmarks/results/noise.json.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from practise_backends.interfaces import MeasurementSetup
from practise_backends.results.compare import compare
from practise_backends.results.table_diff import disjoint, rank_agreement
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, LatencyTable, StoppingRule

RESULTS = Path(__file__).resolve().parents[1] / "results"
CONDITIONS = Conditions()
NETWORKS = ("efficientnet-lite0", "torchvision:resnet34")
WARMUPS, RUNS = 10, 100


def hog() -> None:
    """Another program: computes, streams through memory, or rests, for a random while each."""
    rng, matrix, stream = random.Random(), np.ones((256, 256), np.float32), np.zeros(2**23)
    while True:
        ends, kind = time.monotonic() + rng.uniform(0.05, 2.0), rng.choice(("compute", "memory", "rest"))
        while time.monotonic() < ends:
            if kind == "compute":
                matrix = matrix @ matrix / 256
            elif kind == "memory":
                stream += 1
            else:
                time.sleep(0.01)


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many hogs beside."""
    running = [multiprocessing.get_context("spawn").Process(target=hog, daemon=True) for _ in range(count)]
    for each in running:
        each.start()
    time.sleep(2)
    try:
        yield
    finally:
        for each in running:
            each.terminate()


def mean_ms(path: Path) -> float:
    """The usual way: 10 warm-ups, 100 runs, the mean."""
    backend = OrtBackend()
    engine = backend.open(backend.compile(path, CONDITIONS), CONDITIONS)
    feeds = random_feeds(engine.inputs)
    times = [engine.time_once(feeds) for _ in range(WARMUPS + RUNS)][WARMUPS:]
    engine.close()
    return float(np.mean(times))


def export(network: str, folder: Path) -> tuple[object, list, Path]:
    """The network with its cuts, its droppable blocks, and the plain network's file."""
    from practise_deploy.network.graph.onnx_graph import without_blocks
    from practise_deploy.pipeline.context import BuildContext
    from practise_deploy.run import Run
    from practise_deploy.settings import read_settings

    settings = read_settings({"network": network, "out": folder / "run"})
    context = BuildContext(settings=settings, run=Run(folder / "run"), structure_only=network.startswith("torchvision"))
    blocks, model = list(context.candidates), context.cuttable.proto
    path = folder / "plain.onnx"
    path.write_bytes(without_blocks(model, []).SerializeToString())
    return model, blocks, path


def repeat_aa(path: Path, repeats: int, budget_s: float) -> list[dict[str, object]]:
    """One file against itself, by paired rounds and one after the other."""
    found = []
    for seed in range(repeats):
        bench = MeasurementSetup(
            backend=OrtBackend(),
            conditions=Conditions(seed=seed),
            stopping_rule=StoppingRule(budget_s=budget_s, warmup_s=1.0),
        )
        result = compare(path, path, bench, footprint=False)
        ratio = result.speedup
        row = {
            "ratio": ratio.estimate,
            "low": ratio.low,
            "high": ratio.high,
            "session_percent": result.session_percent,
            "estimator": result.estimator,
            "rounds": result.rounds,
            "discarded": len(result.discarded),
            "sequential_ratio": mean_ms(path) / mean_ms(path),
        }
        found.append(row)
        print(
            f"A/A {seed}: {ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}], sequential {row['sequential_ratio']:.4f}",
            flush=True,
        )
    return found


def tabulate(network: str, seed: int, budget_s: float, answer: multiprocessing.Queue) -> None:
    """One table by paired rounds, and the savings by sequential timing, in a process of its own."""
    from practise_deploy.deployment.block_latency import measure_block_latency, variants_of
    from practise_deploy.run import Silent, to_json

    with TemporaryDirectory() as folder:
        model, blocks, _ = export(network, Path(folder))
        bench = MeasurementSetup(
            backend=OrtBackend(), conditions=Conditions(seed=seed), stopping_rule=StoppingRule(budget_s=budget_s)
        )
        table = measure_block_latency(model, network, blocks, bench, Silent())
        with variants_of(model, blocks) as variants:
            plain = mean_ms(variants.without(()))
            single = {block.name: plain - mean_ms(variants.without((block.name,))) for block in blocks}
    answer.put((to_json(table), single))


def two_tables(network: str, budget_s: float) -> dict[str, object]:
    """Two independent tables, and how well they agree."""
    from pydantic import TypeAdapter

    tables, sequential = [], []
    for seed in (1, 2):
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(target=tabulate, args=(network, seed, budget_s, answer))
        process.start()
        text, single = answer.get(timeout=1800)
        process.join()
        tables.append(TypeAdapter(LatencyTable).validate_json(text))
        sequential.append(single)
    first, second = (list(table.savings) for table in tables)
    tau, pairs = rank_agreement(first, second)
    apart = [
        abs(a.reduction_percent.estimate - b.reduction_percent.estimate) for a, b in zip(first, second, strict=True)
    ]
    print(f"{network}: tau {tau} over {pairs} pairs", flush=True)
    return {
        "blocks": [saving.block for saving in first],
        "classes": [saving.latency_class for saving in first],
        "saving_percent": [[_ends(s.reduction_percent) for s in savings] for savings in (first, second)],
        "sequential_saving_ms": [[single[s.block] for s in first] for single in sequential],
        "baseline_ms": [table.baseline_ms.estimate for table in tables],
        "aa_ratio": [_ends(table.aa_ratio) for table in tables],
        "additivity": [_ends(table.additivity) if table.additivity else None for table in tables],
        "rounds": [table.rounds for table in tables],
        "stopped_because": [table.stopped_because for table in tables],
        "pairs_told_apart": pairs,
        "kendall_tau": tau,
        "agreeing_intervals": sum(
            not disjoint(a.reduction_percent, b.reduction_percent) for a, b in zip(first, second, strict=True)
        ),
        "sequential_kendall_tau_same_pairs": _sequential_tau(first, second, sequential),
        "sequential_spread_percent": _spread(sequential, tables),
        "spread_percent": float(np.mean(apart)),
        "sequential_negative": [sum(value < 0 for value in single.values()) for single in sequential],
    }


def _ends(found) -> list[float]:
    return [found.estimate, found.low, found.high]


def _spread(sequential: list[dict[str, float]], tables: list[LatencyTable]) -> float:
    """The mean distance of the two sequential savings of a block, in percent of the latency."""
    shares = [[100 * v / t.baseline_ms.estimate for v in s.values()] for s, t in zip(sequential, tables, strict=True)]
    return float(np.mean([abs(a - b) for a, b in zip(*shares, strict=True)]))


def _sequential_tau(first: list, second: list, sequential: list[dict[str, float]]) -> float | None:
    """Kendall's tau of the sequential savings over the pairs that the paired tables tell apart."""
    score, pairs = 0, 0
    for a, b in combinations(range(len(first)), 2):
        if any(disjoint(own[a].saving_ms, own[b].saving_ms) for own in (first, second)):
            signs = [single[first[a].block] > single[first[b].block] for single in sequential]
            score, pairs = score + (1 if signs[0] == signs[1] else -1), pairs + 1
    return score / pairs if pairs else None


def main() -> int:
    """Measure, write the JSON, and say whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--measure-budget-s", type=float, default=15.0, help="seconds of each A/A comparison")
    parser.add_argument("--table-s", type=float, default=60.0, help="seconds of each latency table")
    parser.add_argument("--hogs", type=int, default=1)
    options = parser.parse_args()
    device = OrtBackend().device()
    with TemporaryDirectory() as folder:
        _, _, path = export(NETWORKS[0], Path(folder))
        with hogs(options.hogs):
            aa = repeat_aa(path, options.repeats, options.measure_budget_s)
            tables = {network: two_tables(network, options.table_s) for network in NETWORKS}
    found = {
        "schema": 1,
        "hogs": options.hogs,
        "device": {"name": device.name, "facts": device.facts, "versions": device.versions},
        "aa": {
            "network": NETWORKS[0],
            "budget_s": options.measure_budget_s,
            "repeats": aa,
            "within_1_percent": sum(abs(row["ratio"] - 1) <= 0.01 for row in aa),
            "covers_1": sum(row["low"] <= 1 <= row["high"] for row in aa),
            "both": sum(abs(row["ratio"] - 1) <= 0.01 and row["low"] <= 1 <= row["high"] for row in aa),
            "sequential_within_1_percent": sum(abs(row["sequential_ratio"] - 1) <= 0.01 for row in aa),
            "worst_percent": 100 * max(abs(row["ratio"] - 1) for row in aa),
            "sequential_worst_percent": 100 * max(abs(row["sequential_ratio"] - 1) for row in aa),
            "typical_half_width_percent": 100 * float(np.median([(row["high"] - row["low"]) / 2 for row in aa])),
        },
        "tables": tables,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "noise.json").write_text(json.dumps(found, indent=1) + "\n")
    need = math.ceil(0.95 * len(aa))
    good = found["aa"]["both"] >= need
    ranked = all(each["kendall_tau"] is not None and each["kendall_tau"] >= 0.8 for each in tables.values())
    print(f"A/A {'met' if good else 'MISSED'}, ranks {'met' if ranked else 'MISSED'}")
    return 0 if good and ranked else 1


if __name__ == "__main__":
    sys.exit(main())
