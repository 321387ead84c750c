"""Which finetuning suits a tiny set: the default with one part of it changed at a time, on the same dropped blocks.

    python benchmarks/reproduce/ablation.py [--network resnet20] [--images 50] [--seed 0] [--list] [--data ../shared/data]

All variants take as many steps as `practise-deploy build` does. A grid of independent units (network, images, seed,
variant), one JSON each under benchmarks/results/ablation/: many variants are screened with one seed, those that the default was
decided by have several. A unit that is there is not computed again, and several processes
may run side by side. All are computed in the fastest precision of the device (bf16 where it is native), since what is
compared is paired; the product finetunes inputs of up to 64 pixels in fp32. `summary.json` is written anew after every unit:
mean accuracy, and the paired difference to the default by seed, each among units of one precision.
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
from itertools import product
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of
from variants import VARIANTS, Task, finetuned

from practise_deploy.compute import exact, fast_precision, pick_device
from practise_deploy.network.graph.surgery import feature_in
from practise_deploy.run import write_atomically
from practise_deploy.settings import Settings
from practise_deploy.training.finetune import schedule_for

RESULTS = ROOT / "benchmarks" / "results" / "ablation"


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
    "mobilenetv2": Case(
        dropped=("units.5", "units.8"),
        seeds=1,
        images=(500,),
        variants=(
            "default",
            "no finetuning",
            "no mixing",
        ),
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


def run(unit: Unit, data: Path, device: torch.device) -> dict[str, Any]:
    """A unit's record."""
    began, names, variant = time.monotonic(), CASES[unit.network].dropped, VARIANTS[unit.variant]
    task = Task(
        network=unit.network, images=unit.images, seed=unit.seed, dropped=names, data=data, device=device
    )  # fmt: skip
    subject = task.subject
    steps = schedule_for(Settings(), subject.network.input_shape[-1], torch.float32).steps
    schedule = replace(
        variant.schedule,
        steps=steps if variant.schedule.steps else 0,
        seed=unit.seed,
        dtype=fast_precision(device),
    )
    with exact(unit.seed):
        student = finetuned(task, variant, schedule)
    judged = subject.judge(student, feature_in(student, subject.feature, subject.named(names)), device)
    return {
        "schema": 1, "network": unit.network, "images": unit.images, "seed": unit.seed, "variant": unit.variant,
        "dropped": list(names), "steps": schedule.steps, "correct": int(judged.correct.sum()), "of": len(judged.correct),
        "teacher_correct": int(subject.teacher_correct(device).sum()), "feature_error": judged.feature_error,
        "precision": str(schedule.dtype).removeprefix("torch."), "device": device.type,
        "seconds": round(time.monotonic() - began, 1), "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def summary() -> str:
    """The table's rows, what the teachers reach, and how many units are missing."""
    paths = [unit.path for unit in units()]
    missing = sum(not path.is_file() for path in paths)
    former = sorted(set(RESULTS.glob("*/*.json")) - set(paths))  # of variants that the product no longer has
    done = [json.loads(path.read_text()) for path in (*paths, *former) if path.is_file()]
    teachers = {d["network"]: 100 * d["teacher_correct"] / d["of"] for d in done}
    found = {"schema": 1, "teacher_percent": teachers, "rows": rows_of(done), "missing": missing}
    return json.dumps(found, indent=1) + "\n"


def rows_of(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds of one precision, and differences to the default on the same seed in that precision, in points."""

    def key(one: dict[str, Any]) -> tuple[str, int, str, str]:
        return one["network"], one["images"], one["precision"], one["variant"]

    percent: dict[tuple[str, int, str, str], dict[int, float]] = {}
    for one in done:
        percent.setdefault(key(one), {})[one["seed"]] = 100 * one["correct"] / one["of"]
    rows = []
    for (network, images, precision, variant), by_seed in percent.items():
        default = percent.get((network, images, precision, "default"), {})
        against = [value - default[seed] for seed, value in by_seed.items() if seed in default]
        errors = [one["feature_error"] for one in done if key(one) == (network, images, precision, variant)]
        rows.append(
            {
                "network": network, "images": images, "variant": variant, "precision": precision, "seeds": len(by_seed),
                "mean_percent": statistics.fmean(by_seed.values()),
                "feature_error": statistics.fmean(errors),
                "against_default_points": statistics.fmean(against) if against else None,
                "differences_points": against,
            }
        )  # fmt: skip
    return rows


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
