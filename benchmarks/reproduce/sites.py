"""What the ways to solve a site should be compared by: the accuracy of the whole refit, before any finetuning.

    python benchmarks/reproduce/sites.py [resnet20] [resnet56] [efficientnet-lite0] [--images 50] [--data ../shared/data]

Each random set of `choice.py` is recovered three times from one tiny set, every site in the way of least error of the
features, of the classes (KL divergence to the teacher's), or of both added up; accuracy on the test images. One
JSON a network and number of images under benchmarks/results/sites/, written anew after every set; sets that are
there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choice import CASES, SEED, random_sets
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_backends.rounds.intervals import bootstrap
from practise_deploy.compute import exact, pick_device
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.refit.criterion import Errors
from practise_deploy.refit.recover import recover
from practise_deploy.run import Silent, write_atomically

RESULTS = ROOT / "benchmarks" / "results" / "sites"
SIZES = {**{name: size for name, (size, _, _) in CASES.items()}, "efficientnet-lite0": 4}
FEATURES, LEAST = "features", 10
_by_features = Errors.by_image
CRITERIA: dict[str, Callable[[Errors], torch.Tensor]] = {
    FEATURES: lambda errors: _by_features.__get__(errors),
    "KL": lambda errors: errors.divergence,
    "features and KL": lambda errors: _by_features.__get__(errors) + errors.divergence,
}


@contextmanager
def compared_by(criterion: str) -> Iterator[None]:
    """Let recoveries be compared by another criterion."""
    Errors.by_image = property(CRITERIA[criterion])  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        Errors.by_image = _by_features  # type: ignore[misc]


def refit(subject: Subject, calibration: CalibrationProblem, names: tuple[str, ...], criterion: str) -> dict[str, Any]:
    """The refit of a set of blocks, its accuracy, and what it tells of itself."""
    began, dropped = time.monotonic(), subject.named(names)
    with exact(SEED), compared_by(criterion):
        start = recover(calibration, dropped, Silent())
    student = drop_blocks(subject.teacher, dropped)
    load_weights(student, start.weights)
    own = feature_in(student, subject.feature, dropped)
    judgement = subject.judge(student, own, pick_device("cpu"))
    return {
        "percent": 100 * float(judgement.correct.mean()),
        "method": start.method,
        "told": start.notes[0].rsplit(": ", 1)[1],
        "ways": [choice.method for choice in start.choices],
        "seconds": round(time.monotonic() - began, 1),
    }


def mean_of(differences: np.ndarray) -> dict[str, Any]:
    """The mean with its interval; without one where there are too few for it."""
    if len(differences) < LEAST:
        return {"estimate": float(differences.mean()), "low": None, "high": None}
    return asdict(bootstrap(differences, lambda drawn: drawn.mean(-1)))


def summary(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By criterion: the mean accuracy, and the paired difference to the features' over all sets and over the better half.

    The better half: by the mean accuracy of all criteria, so that it favours none.
    """
    percent = {name: np.array([one["by"][name]["percent"] for one in sets]) for name in CRITERIA}
    level = np.mean(list(percent.values()), axis=0)
    better = level >= np.median(level)
    rows = []
    for name, found in percent.items():
        differences = found - percent[FEATURES]
        rows.append(
            {
                "criterion": name,
                "mean_percent": float(found.mean()),
                "mean_percent_of_the_better_half": float(found[better].mean()),
                "points_against_features": mean_of(differences),
                "points_of_the_better_half": mean_of(differences[better]),
            }
        )
    return rows


def study(name: str, images: int, most: int, data: Path) -> None:
    """All sets of a network."""
    subject, path = load_subject(name, data), RESULTS / f"{name}_{images}.json"
    calibration = subject.calibration(images, SEED)
    sets = json.loads(path.read_text())["sets"] if path.is_file() else []
    for names in random_sets(tuple(block.name for block in subject.candidates), SIZES[name])[:most]:
        if list(names) in [one["dropped"] for one in sets]:
            continue
        by = {criterion: refit(subject, calibration, names, criterion) for criterion in CRITERIA}
        sets.append({"dropped": list(names), "by": by, "commit": commit()})
        print(name, images, len(sets), *names, {c: found["percent"] for c, found in by.items()}, flush=True)
        found = {
            "schema": 1, "network": name, "images": images, "blocks": SIZES[name], "torch": torch.__version__,
            "criteria": summary(sets), "sets": sets,
        }  # fmt: skip
        write_atomically(path, json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--sets", type=int, default=40, help="look at the first so many alone")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or SIZES:
        study(name, options.images, options.sets, folder_of(options.data))


if __name__ == "__main__":
    main()
