"""Which finetuning suits a tiny set: the default with one part of it changed at a time, on the same dropped blocks.

    python benchmarks/reproduce/ablation.py [--network resnet20] [--images 50] [--seed 0] [--list] [--data ../shared/data]

All variants take as many steps as `practise-deploy build` does. A grid of independent units (network, images, seed,
variant), one JSON each under benchmarks/results/ablation/: many variants are screened with one seed, those that the default was
decided by have several. A unit that is there is not computed again, and several processes
may run side by side. `summary.json` is written anew after every unit: mean accuracy, and the paired difference to the
default by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import fx

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_deploy.finetune import PAPER, TINY, finetune, schedule_for
from practise_deploy.model.compute import exact, fast_precision, pick_device, pick_precision
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import feature_in
from practise_deploy.model.schedule import Schedule
from practise_deploy.model.surgery import drop_blocks, load_weights, weights_of
from practise_deploy.planning.sequence import recover
from practise_deploy.progress import Silent
from practise_deploy.settings import Settings
from practise_deploy.store import write_atomically
from practise_deploy.terms import Student

RESULTS = ROOT / "benchmarks" / "results" / "ablation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to finetune. start: "refit" or "plain". progressive: the blocks go one after another."""

    schedule: Schedule = TINY
    start: str = "refit"
    progressive: bool = False


VARIANTS: dict[str, Variant] = {
    "paper": Variant(schedule=PAPER, start="plain"),
    "default": Variant(),
    "no finetuning": Variant(schedule=replace(TINY, steps=0)),
    "from the plain drop": Variant(start="plain"),
    "no mixing": Variant(schedule=replace(TINY, mix=0.0)),
    "half of the batches mixed": Variant(schedule=replace(TINY, mix=0.5)),
    "features alone": Variant(schedule=replace(TINY, exits=0.0)),
    "exits x1": Variant(schedule=replace(TINY, exits=1.0)),
    "exits x10": Variant(schedule=replace(TINY, exits=10.0)),
    "exits x30": Variant(schedule=replace(TINY, exits=30.0)),
    "no averaging": Variant(schedule=replace(TINY, average=0.0)),
    "norms trained": Variant(schedule=replace(TINY, norms="trained")),
    "norms re-estimated": Variant(schedule=replace(TINY, norms="re-estimated")),
    "KL x0.3": Variant(schedule=replace(TINY, logits=0.3)),
    "pull to the start": Variant(schedule=replace(TINY, pull=0.1, weight_decay=0.0)),
    "SGD": Variant(schedule=replace(TINY, optimiser="sgd", learning_rate=0.02)),
    "half the rate": Variant(schedule=replace(TINY, learning_rate=TINY.learning_rate / 2)),
    "twice the rate": Variant(schedule=replace(TINY, learning_rate=TINY.learning_rate * 2)),
    "early stop": Variant(schedule=replace(TINY, keep_best=True)),
    "progressive": Variant(progressive=True),
}


CONFIRMED = ("paper", "default", "no finetuning", "features alone", "exits x10", "no mixing")
DECISIVE = (*CONFIRMED, "from the plain drop", "no averaging", "norms trained", "SGD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network, the blocks it loses, and which variants it is tried with.

    seeds: of these variants. screened: further ones, tried with the first seed alone.
    """

    dropped: tuple[str, ...]
    seeds: int
    variants: tuple[str, ...]
    screened: tuple[str, ...] = ()
    images: tuple[int, ...] = (50, 500)

    def tried(self, seed: int) -> tuple[str, ...]:
        """The variants of a seed."""
        return (*self.variants, *(self.screened if seed == 0 else ()))


CASES: dict[str, Case] = {
    "resnet20": Case(
        dropped=("layer1.1", "layer2.2"),
        seeds=3,
        variants=(*DECISIVE, "exits x30"),
        screened=tuple(name for name in VARIANTS if name not in (*DECISIVE, "exits x30")),
    ),
    "resnet56": Case(
        dropped=("layer1.8", "layer1.5", "layer1.3", "layer2.6", "layer2.5", "layer2.4"),
        seeds=2,
        variants=CONFIRMED,
        screened=tuple(name for name in DECISIVE if name not in CONFIRMED),
    ),
    "efficientnet-lite0": Case(
        dropped=("_blocks.2", "_blocks.7", "_blocks.10", "_blocks.13"), seeds=1, variants=CONFIRMED, images=(500,)
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One run."""

    network: str
    images: int
    seed: int
    variant: str

    @property
    def path(self) -> Path:
        """Where its JSON is kept."""
        return RESULTS / self.network / f"{self.images}-{self.variant.replace(' ', '-')}-seed{self.seed}.json"


def units() -> Iterator[Unit]:
    """Seed by seed, so that a grid that is stopped early has whole seeds."""
    for network, case in CASES.items():
        for seed, images in product(range(case.seeds), case.images):
            for variant in case.tried(seed):
                yield Unit(network=network, images=images, seed=seed, variant=variant)


@lru_cache(maxsize=4)
def started(subject_name: str, images: int, seed: int, data: Path) -> Student:
    """The closed-form refit that all variants of a seed share."""
    subject = load_subject(subject_name, data)
    return recover(lesson_of(subject, images, seed), subject.named(CASES[subject_name].dropped), Silent())


def lesson_of(subject: Subject, images: int, seed: int) -> Lesson:
    """The tiny set of a seed."""
    dtype = pick_precision(None, subject.network.input_shape[-1], torch.device("cpu"))
    return Lesson(
        teacher=subject.teacher,
        feature=subject.feature,
        images=subject.tiny_set(images, seed),
        seed=seed,
        judging=dtype,
    )


def run(unit: Unit, data: Path, device: torch.device) -> dict[str, Any]:
    """A unit's record."""
    began = time.monotonic()
    subject, variant = load_subject(unit.network, data), VARIANTS[unit.variant]
    names = CASES[unit.network].dropped
    steps = schedule_for(Settings(), subject.network.input_shape[-1], torch.float32).steps
    schedule = replace(
        variant.schedule,
        steps=steps if variant.schedule.steps else 0,
        seed=unit.seed,
        dtype=fast_precision(device),
    )
    with exact(unit.seed):
        start = started(unit.network, unit.images, unit.seed, data) if variant.start == "refit" else None
        whole = [names] if not variant.progressive else [names[: count + 1] for count in range(len(names))]
        student: fx.GraphModule | None = None
        for gone in whole:
            part = replace(schedule, steps=schedule.steps // len(whole))
            student = _descended(subject, gone, part, (student, start if gone == names else None), unit, device)
    assert student is not None
    own = feature_in(student, subject.feature, subject.named(names))
    judged = subject.judge(student, own, device)
    return {
        "schema": 1, "network": unit.network, "images": unit.images, "seed": unit.seed, "variant": unit.variant,
        "dropped": list(names), "steps": schedule.steps, "correct": int(judged.correct.sum()), "of": len(judged.correct),
        "teacher_correct": int(subject.teacher_correct(device).sum()), "feature_error": judged.feature_error,
        "precision": str(schedule.dtype).removeprefix("torch."), "device": device.type,
        "seconds": round(time.monotonic() - began, 1), "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def _descended(
    subject: Subject,
    gone: tuple[str, ...],
    schedule: Schedule,
    before: tuple[fx.GraphModule | None, Student | None],
    unit: Unit,
    device: torch.device,
) -> fx.GraphModule:
    """The network without these blocks, finetuned from an earlier student's weights, a refit's, or its own."""
    student, refit = drop_blocks(subject.teacher, subject.named(gone)), before[1]
    if before[0] is not None:  # progressive: what was learnt so far, less the next block
        student.load_state_dict(
            {name: value for name, value in before[0].state_dict().items() if name in student.state_dict()}
        )
    elif refit is not None:
        load_weights(student, refit.weights)
    pair = subject.pair(student, gone, device)
    plain = Student(
        dropped=gone, method="", mse_before=0.0, mse=0.0, steps=0, seconds=0.0, notes=(), weights=weights_of(student)
    )
    if schedule.steps:
        finetune(pair, refit or plain, subject.tiny_set(unit.images, unit.seed), schedule, Silent())
    return student.eval()


def summary() -> str:
    """Means over seeds, and differences to the default on the same seed, in points."""
    done = [json.loads(unit.path.read_text()) for unit in units() if unit.path.is_file()]
    accuracy = {(d["network"], d["images"], d["variant"], d["seed"]): 100 * d["correct"] / d["of"] for d in done}
    errors = {(d["network"], d["images"], d["variant"], d["seed"]): d["feature_error"] for d in done}
    rows = []
    for network, images, variant in dict.fromkeys(key[:3] for key in accuracy):
        mine = {key[3]: value for key, value in accuracy.items() if key[:3] == (network, images, variant)}
        against = [
            value - accuracy[network, images, "default", seed]
            for seed, value in mine.items()
            if (network, images, "default", seed) in accuracy
        ]
        rows.append(
            {
                "network": network, "images": images, "variant": variant, "seeds": len(mine),
                "mean_percent": statistics.fmean(mine.values()),
                "feature_error": statistics.fmean(errors[network, images, variant, seed] for seed in mine),
                "against_default_points": statistics.fmean(against) if against else None,
                "differences_points": against,
            }
        )  # fmt: skip
    missing = [unit.path.stem for unit in units() if not unit.path.is_file()]
    teachers = {d["network"]: 100 * d["teacher_correct"] / d["of"] for d in done}
    return (
        json.dumps({"schema": 1, "teacher_percent": teachers, "rows": rows, "missing": len(missing)}, indent=1) + "\n"
    )


def main() -> None:
    """Compute what is missing of the chosen units."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="*")
    parser.add_argument("--images", nargs="*", type=int)
    parser.add_argument("--seed", nargs="*", type=int)
    parser.add_argument("--variant", nargs="*", choices=tuple(VARIANTS))
    parser.add_argument("--compute", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--list", action="store_true", help="show the units, compute none")
    parser.add_argument("--summary", action="store_true", help="write the summary anew, compute none")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    if options.summary:
        write_atomically(RESULTS / "summary.json", summary())
        return
    for unit in units():
        asked = all(
            not given or getattr(unit, name) in given
            for name in ("network", "images", "seed", "variant")
            if (given := getattr(options, name)) is not None
        )
        if options.list:
            print("done   " if unit.path.is_file() else "missing", unit)
        elif asked and not unit.path.is_file():
            unit.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(
                    Path(tempfile.gettempdir()) / f"ablation-{unit.network}-{unit.path.stem}.lock", timeout=0
                ):
                    found = run(unit, folder_of(options.data), pick_device(options.compute))
                    write_atomically(unit.path, json.dumps(found, indent=1) + "\n")
            except Timeout:
                continue  # another process is at it
            print(unit, f"{100 * found['correct'] / found['of']:.2f}%", f"{found['seconds']} s", flush=True)
            write_atomically(RESULTS / "summary.json", summary())


if __name__ == "__main__":
    main()
