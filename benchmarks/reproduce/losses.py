"""How well a loss of accuracy is estimated without labels, and what finetuning wins back of it.

    python benchmarks/reproduce/losses.py [resnet20] [resnet56] [efficientnet-lite0] [mobilenetv2] [--data ../shared/data]
                                          [--images 50 200] [--sizes 1 2 4] [--seeds 0] [--steps 100]

Sets of blocks as the plan proposes them (of least predicted error among all of their size). Each is refitted as sets are
compared (cross-validated), then as the plan's choice is, then finetuned (unless --steps 0); after each stage the estimates at several temperatures stand
beside the loss by labels. One JSON a student under benchmarks/results/losses/NETWORK/; those that are there are left alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject
from torch import fx

from practise_deploy.compute import exact, pick_precision
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.network.graph.activations import batches
from practise_deploy.network.graph.surgery import drop_blocks, load_weights
from practise_deploy.planning.interactions import Candidates, best_sets
from practise_deploy.planning.loss import estimated_points, estimated_share, temperatures
from practise_deploy.refit.recover import judged_without, recover
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.run import Silent, write_atomically
from practise_deploy.settings import Settings
from practise_deploy.terms import Block, Budget, Recoverabilities
from practise_deploy.training.finetune import finetune, schedule_for

RESULTS = ROOT / "benchmarks" / "results" / "losses"
NETWORKS = ("resnet20", "resnet56", "mobilenetv2", "efficientnet-lite0")
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
_CPU = torch.device("cpu")

Answers = np.ndarray[Any, np.dtype[np.float32]]


@torch.inference_mode()
def logits_of(network: fx.GraphModule, images: HeldOutImages) -> Answers:
    """What a network answers. Shape: [images, classes]."""
    network.eval()
    return torch.cat([network(images.batch(part)).float() for part in batches(len(images), 100)]).numpy()


def compared(original: Answers, student: Answers, labels: Answers | None) -> dict[str, Any]:
    """Agreement, the estimated losses and, where there are labels, the true one with its standard error; all in points."""
    found: dict[str, Any] = {
        "images": len(original),
        "agreement": 100 * float((original.argmax(1) == student.argmax(1)).mean()),
        "estimated": {f"{t:g}": round(100 * estimated_share(original, student, t), 4) for t in TEMPERATURES},
    }
    if labels is not None:
        lost = (original.argmax(1) == labels).astype(float) - (student.argmax(1) == labels)
        found["stated"] = asdict(estimated_points(original, student))
        found["lost"] = 100 * float(lost.mean())
        found["standard_error"] = 100 * float(lost.std() / len(lost) ** 0.5)
    return found


def as_candidates(found: Recoverabilities, blocks: Sequence[Block]) -> Candidates:
    """Blocks that sets are made of, each saving as much."""
    ones = np.ones((3, len(blocks)))
    return Candidates(
        names=tuple(block.name for block in blocks), losses=found.interactions["features"], reductions=ones,
        additivity=(1.0, 1.0, 1.0), confidence=0.95, latency_classes=tuple(range(len(blocks))),
    )  # fmt: skip


def proposed(found: Recoverabilities, blocks: Sequence[Block], size: int) -> tuple[str, ...]:
    """The set of least predicted error of a size, where every block saves as much."""
    return best_sets(as_candidates(found, blocks), Budget(drop=size), 1)[0]


def student(
    subject: Subject, calibration: CalibrationProblem, names: tuple[str, ...], original: Answers, steps: int | None
) -> dict[str, Any]:
    """One set of blocks through all stages."""
    blocks, side = subject.named(names), subject.network.input_shape[-1]
    assert subject.test.labels is not None
    labels = subject.test.labels.numpy()
    began = time.monotonic()
    plain, refitted = judged_without(calibration, blocks, Silent())
    found: dict[str, Any] = {"dropped": list(names)}
    for stage, errors in (("plain", plain), ("compared", refitted)):
        found[stage] = {"relative_error": errors.relative} | compared(
            errors.teacher_answers.numpy(), errors.student_answers.numpy(), None
        )
    start = recover(calibration, blocks, Silent())
    network = drop_blocks(subject.teacher, blocks)
    load_weights(network, start.weights)
    found["refit"] = {"relative_error": start.relative} | compared(original, logits_of(network, subject.test), labels)
    refitted_s = time.monotonic() - began
    if steps == 0:
        return found | {"seconds": {"refit": round(refitted_s, 1)}}
    asked = schedule_for(Settings(iterations=steps), side, pick_precision(None, side, _CPU))
    done = finetune(subject.pair(network, start, _CPU), start, calibration.images, asked, Silent())
    facts = {"mse": [done.mse_before, done.mse], "steps": done.steps, "history": done.history, "method": done.method}
    found["finetuned"] = facts | compared(original, logits_of(network, subject.test), labels)
    return found | {"seconds": {"refit": round(refitted_s, 1), "finetuning": round(done.seconds, 1)}}


def study(name: str, options: argparse.Namespace) -> None:
    """Every student of a network that is not there yet."""
    subject = load_subject(name, folder_of(options.data))
    assert subject.test.labels is not None
    original = logits_of(subject.teacher, subject.test)
    side = subject.network.input_shape[-1]
    for seed in options.seeds:
        for images in options.images:
            calibration = replace(subject.calibration(images, seed), comparison_dtype=pick_precision(None, side, _CPU))
            recoverability = None
            for size in options.sizes:
                file = RESULTS / name / f"{images}-{size}-seed{seed}.json"
                if file.exists() or size >= len(subject.candidates):
                    continue
                with exact(seed):
                    torch.set_num_threads(options.threads)
                    recoverability = recoverability or measure_recoverability(calibration, subject.candidates, Silent())
                    names = proposed(recoverability, subject.candidates, size)
                    found = student(subject, calibration, names, original, options.steps)
                accuracy = 100 * float((original.argmax(1) == subject.test.labels.numpy()).mean())
                record = {
                    "schema": 1, "network": name, "images": images, "seed": seed, "commit": commit(),
                    "original": {"accuracy": accuracy, "temperatures": temperatures(original)}, **found,
                }  # fmt: skip
                write_atomically(file, json.dumps(record, indent=1) + "\n")
                print(
                    file.stem,
                    {
                        k: v.get("lost", v["estimated"]["1"])
                        for k, v in found.items()
                        if isinstance(v, dict) and "estimated" in v
                    },
                    found["seconds"],
                    flush=True,
                )


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    for name in options.names or NETWORKS:
        study(name, options)


if __name__ == "__main__":
    main()
