"""Which criterion knows best what a set of blocks will cost: its rank correlation with the accuracy after finetuning.

    python benchmarks/reproduce/choice.py [resnet20] [resnet56] [--images 50] [--data ../shared/data]

Random sets of one size, so that all are equally fast; each is refitted in closed form and finetuned by the default,
from the same tiny set. Criteria see that tiny set and no labels; the accuracy is on the test images. The paper's R are the
grid's (`tiny_sets.py`), computed here where they are missing. One JSON a network under benchmarks/results/choice/, written anew
after every set; sets that are there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.choice import plain_errors
from tiny.grid import SCORES, Unit
from tiny.provenance import commit
from tiny.shelf import Shelf
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject
from tiny.work import Place, compute

from practise_backends.intervals import bootstrap
from practise_deploy.finetune import TINY, finetune
from practise_deploy.model.compute import exact, fast_precision, pick_device
from practise_deploy.model.images import FitImages
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import feature_in
from practise_deploy.model.surgery import drop_blocks, load_weights
from practise_deploy.model.values import batches, input_of
from practise_deploy.planning.criterion import Errors, end_of, errors_of, joined
from practise_deploy.planning.interactions import set_errors
from practise_deploy.planning.recoverability import measure_recoverability
from practise_deploy.planning.sequence import recover
from practise_deploy.progress import Silent
from practise_deploy.store import write_atomically

RESULTS = ROOT / "benchmarks" / "results" / "choice"
CASES = {"resnet20": (3, 300, 1000), "resnet56": (8, 100, 150)}
"""Blocks a set, steps of finetuning, and steps of the paper's scoring, by network."""
SETS, SEED, TOP = 40, 0, 5
BASIS = "refit, features"
"""The criterion that the product verifies sets by: the others are compared with it."""

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def random_sets(names: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Distinct sets, drawn with the seed, in the network's order."""
    random, found = np.random.default_rng(SEED), dict[tuple[str, ...], None]()
    while len(found) < min(SETS, math.comb(len(names), size)):
        found[tuple(names[at] for at in sorted(random.choice(len(names), size, replace=False)))] = None
    return list(found)


def plain_set(subject: Subject, names: tuple[str, ...], images: FitImages) -> Errors:
    """The errors of the network without these blocks, nothing else changed."""
    student, parts = drop_blocks(subject.teacher, subject.named(names)), []
    own = feature_in(student, subject.feature, subject.named(names))
    with torch.no_grad():
        for part in batches(len(images), 64):
            x = images.batch(part)
            wanted = end_of(subject.teacher, {input_of(subject.teacher).name: x}, subject.feature)
            parts.append(errors_of(wanted, end_of(student, {input_of(student).name: x}, own)))
    return joined(parts)


class Study:
    """What is known of single blocks of a network, and what a set of them comes to."""

    def __init__(self, name: str, images: int, data: Path) -> None:
        self.subject = load_subject(name, data)
        self.images = self.subject.tiny_set(images, SEED)
        self.size, self.steps, score_steps = CASES[name]
        self.device = pick_device("cpu")
        fast = fast_precision(self.device)
        self.schedule = replace(TINY, steps=self.steps, seed=SEED, dtype=fast)
        self.lesson = Lesson(
            teacher=self.subject.teacher, feature=self.subject.feature, images=self.images, seed=SEED
        )  # fmt: skip
        unit = Unit(network=name, reduction=0, images=images, method=SCORES, seed=SEED, steps=score_steps)
        shelf = Shelf(ROOT / "benchmarks/results/tiny_sets", Path(tempfile.gettempdir()) / "practise-tiny-sets")
        place = Place(shelf=shelf, data=data, device=self.device, dtype=fast)
        scored = shelf.get(unit, lambda each: compute(each, place), wait=True)
        assert scored is not None
        with exact(SEED):
            self.recoverabilities = measure_recoverability(self.lesson, self.subject.candidates, Silent())
            plain = plain_errors(self.subject, self.images)
        self.single = {
            "paper's R, summed": {block: one["mse"] for block, one in scored["scores"].items()},
            "plain drops, features, summed": plain,
            "refits, features, summed": {one.block: one.mse.estimate for one in self.recoverabilities.of},
            "refits, KL, summed": {one.block: one.divergence for one in self.recoverabilities.of},
        }

    def record(self, names: tuple[str, ...]) -> dict[str, Any]:
        """A set's criteria, and its accuracy before and after finetuning."""
        began, subject, dropped = time.monotonic(), self.subject, self.subject.named(names)
        with exact(SEED):
            plain = plain_set(subject, names, self.images)
            start = recover(self.lesson, dropped, Silent())
            student = drop_blocks(subject.teacher, dropped)
            load_weights(student, start.weights)
            own = feature_in(student, subject.feature, dropped)
            before = subject.judge(student, own, self.device)
            pair = subject.pair(student, names, self.device)
            finetune(pair, start, self.images, self.schedule, Silent())
            after = subject.judge(student.eval(), own, self.device)
        assert start.relative is not None and start.divergence is not None
        divergence = float(plain.divergence.mean())
        of_set = {
            "plain drop, features": plain.relative,
            "plain drop, KL": divergence,
            "plain drop, features and KL": plain.relative + divergence,
            "refit, features": start.relative,
            "refit, KL": start.divergence,
            "refit, features and KL": start.relative + start.divergence,
        }
        return {
            "dropped": list(names),
            "criteria": of_set,
            "refit_percent": 100 * float(before.correct.mean()),
            "finetuned_percent": 100 * float(after.correct.mean()),
            "seconds": round(time.monotonic() - began, 1),
            "commit": commit(),
        }

    def predicted(self, names: tuple[str, ...]) -> dict[str, float]:
        """What is known of a set before it was computed: sums over its blocks, and how they act together."""
        summed = {name: sum(values[block] for block in names) for name, values in self.single.items()}
        row = np.array([[one.block in names for one in self.recoverabilities.of]])
        form = np.asarray(self.recoverabilities.interactions["features"]).mean(0)
        features = float(set_errors(form, row)[0])
        both = features + summed["refits, KL, summed"]
        return {**summed, "set predicted, features": features, "set predicted, features and KL": both}


def correlation(criterion: Floats, accuracy: Floats) -> dict[str, Any]:
    """Spearman's rank correlation of a low criterion with a high accuracy; its interval is a bootstrap over sets."""
    return _over_sets(lambda drawn: spearman(criterion[drawn], accuracy[drawn]), len(accuracy))


def advantage(criterion: Floats, basis: Floats, accuracy: Floats) -> dict[str, Any]:
    """By how much a criterion's rank correlation exceeds another's, both on the same drawn sets."""

    def of(drawn: Places) -> Floats:
        return spearman(criterion[drawn], accuracy[drawn]) - spearman(basis[drawn], accuracy[drawn])

    return _over_sets(of, len(accuracy))


def spearman(low: Floats, high: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, of what should be low with what should be high."""
    ranks = np.stack([rankdata(each, axis=-1) for each in (low, high)])
    centred = ranks - ranks.mean(-1, keepdims=True)
    return np.asarray(-(centred[0] * centred[1]).sum(-1) / np.sqrt((centred**2).sum(-1).prod(0)))


def _over_sets(statistic: Callable[[Places], Floats], count: int) -> dict[str, Any]:
    places = np.arange(count, dtype=np.float64)
    return asdict(bootstrap(places, lambda drawn: statistic(drawn.astype(np.int64))))


def summary(study: Study, sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By criterion: the rank correlation with both accuracies, and what its best set and its best few reach."""
    known = [{**study.predicted(tuple(one["dropped"])), **one["criteria"]} for one in sets]
    after, before = (np.array([one[key] for one in sets]) for key in ("finetuned_percent", "refit_percent"))
    basis, rows = np.array([each[BASIS] for each in known]), []
    for name in known[0]:
        values = np.array([each[name] for each in known])
        best = np.argsort(values, kind="stable")
        rows.append(
            {
                "criterion": name,
                "finetuned": correlation(values, after),
                "finetuned_minus_basis": advantage(values, basis, after),
                "refit": correlation(values, before),
                "best_percent": float(after[best[0]]),
                "best_few_percent": float(after[best[:TOP]].mean()),
            }
        )
    return rows


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or CASES:
        study = Study(name, options.images, folder_of(options.data))
        path = RESULTS / f"{name}_{options.images}.json"
        sets = kept_sets(path, study)
        for names in random_sets(tuple(block.name for block in study.subject.candidates), study.size):
            if list(names) not in [one["dropped"] for one in sets]:
                sets.append(study.record(names))
                print(name, len(sets), *names, f"{sets[-1]['finetuned_percent']:.2f}%", flush=True)
                write(path, study, sets)
        write(path, study, sets)


def kept_sets(path: Path, study: Study) -> list[dict[str, Any]]:
    """The sets that are there already; those of another finetuning are not mixed with new ones."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text())
    if found.get("finetuning") != repr(study.schedule):
        sys.exit(f"{path} is of another finetuning than {study.schedule}: remove it to begin anew")
    return list(found["sets"])


def write(path: Path, study: Study, sets: list[dict[str, Any]]) -> None:
    """The study as it stands."""
    after = np.array([one["finetuned_percent"] for one in sets])
    found = {
        "schema": 1, "network": study.subject.name, "images": len(study.images), "blocks": study.size,
        "steps": study.steps, "finetuning": repr(study.schedule), "score_steps": CASES[study.subject.name][2],
        "precision": str(study.schedule.dtype).removeprefix("torch."), "torch": torch.__version__,
        "mean_percent": float(after.mean()), "most_percent": float(after.max()), "best_few": TOP,
        "criteria": summary(study, sets) if len(sets) >= 10 else [], "sets": sets,
    }  # fmt: skip
    write_atomically(path, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
