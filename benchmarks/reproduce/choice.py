"""Which criterion knows best what a set of blocks will cost: its rank correlation with the accuracy after finetuning.

    python benchmarks/reproduce/choice.py [resnet20] [resnet56] [--images 50] [--sets 40] [--data ../shared/data]

Random sets, ranked among those of one size, which are about equally fast; each is refitted in closed form and finetuned by the
default, in fewer steps, from the same tiny set. Where a network has too few sets of one size there are several sizes (`ranks.py`
averages over them). Criteria see that tiny set and no labels; the accuracy is on the test images. The paper's R are the grid's
(`tiny_sets.py`), computed here where they are missing. One JSON a network under benchmarks/results/choice/, written anew
after every set; sets that are there are not computed again, unless they were finetuned otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ranks import FEWEST, advantage, best_mean, correlation
from tiny.choice import plain_errors
from tiny.grid import SCORES, Unit
from tiny.provenance import commit
from tiny.shelf import Shelf
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject
from tiny.work import Place, compute

from practise_deploy.compute import exact, fast_precision, pick_device
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.activations import batches, input_of
from practise_deploy.network.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.planning.interactions import set_errors
from practise_deploy.refit.criterion import Errors, end_of, errors_of, joined
from practise_deploy.refit.recover import recover
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.run import Silent, write_atomically
from practise_deploy.training.finetune import TINY, finetune

RESULTS = ROOT / "benchmarks" / "results" / "choice"
CASES = {"resnet20": (3, 100, 1000), "resnet56": (8, 100, 150)}
"""Blocks a set, steps of finetuning, and steps of the paper's scoring, by network."""
FURTHER_SIZES = {"resnet20": (2,)}
"""Sizes beside that of CASES, where it has fewer sets than SETS."""
SETS, SEED, TOP = 40, 0, 5
BASIS = "refit, features"
"""The criterion that the product verifies sets by: the others are compared with it."""


def random_sets(names: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Distinct sets, drawn with the seed, in the network's order."""
    random, found = np.random.default_rng(SEED), dict[tuple[str, ...], None]()
    while len(found) < min(SETS, math.comb(len(names), size)):
        found[tuple(names[at] for at in sorted(random.choice(len(names), size, replace=False)))] = None
    return list(found)


def sets_of(network: str, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """SETS sets to study, as many of each size, the sizes by turns."""
    sizes = (CASES[network][0], *FURTHER_SIZES.get(network, ()))
    each = math.ceil(SETS / len(sizes))
    drawn = [random_sets(names, size)[:each] for size in sizes]
    return [names for turn in zip(*drawn, strict=True) for names in turn]


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
        _, self.steps, score_steps = CASES[name]
        self.device = pick_device("cpu")
        fast = fast_precision(self.device)
        self.schedule = replace(TINY, steps=self.steps, seed=SEED, dtype=fast)
        self.calibration = self.subject.calibration(self.images, SEED)
        unit = Unit(network=name, reduction=0, images=images, method=SCORES, seed=SEED, steps=score_steps)
        shelf = Shelf(ROOT / "benchmarks/results/tiny_sets", Path(tempfile.gettempdir()) / "practise-tiny-sets")
        place = Place(shelf=shelf, data=data, device=self.device, dtype=fast)
        scored = shelf.get(unit, lambda each: compute(each, place), wait=True)
        assert scored is not None
        with exact(SEED):
            self.recoverabilities = measure_recoverability(self.calibration, self.subject.candidates, Silent())
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
            start = recover(self.calibration, dropped, Silent())
            student = drop_blocks(subject.teacher, dropped)
            load_weights(student, start.weights)
            own = feature_in(student, subject.feature, dropped)
            before = subject.judge(student, own, self.device)
            pair = subject.pair(student, start, self.device)
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
            "finetuning": repr(self.schedule),
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


def summary(study: Study, sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By criterion: the rank correlation with both accuracies, and what its best set and its best few reach."""
    sizes = [len(one["dropped"]) for one in sets]
    if min(map(sizes.count, sizes), default=0) < FEWEST:
        return []
    known = [{**study.predicted(tuple(one["dropped"])), **one["criteria"]} for one in sets]
    after, before = (np.array([one[key] for one in sets]) for key in ("finetuned_percent", "refit_percent"))
    basis, rows = np.array([each[BASIS] for each in known]), []
    for name in known[0]:
        values = np.array([each[name] for each in known])
        rows.append(
            {
                "criterion": name,
                "finetuned": correlation(values, after, sizes),
                "finetuned_minus_basis": advantage(values, basis, after, sizes),
                "refit": correlation(values, before, sizes),
                "best_percent": best_mean(values, after, sizes, 1),
                "best_few_percent": best_mean(values, after, sizes, TOP),
            }
        )
    return rows


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--sets", type=int, default=SETS, help="look at the first so many alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or CASES:
        study = Study(name, options.images, folder_of(options.data))
        complete(study, options.results / f"{name}_{options.images}.json", options.sets)


def complete(study: Study, path: Path, most: int) -> None:
    """Add the sets that are missing of the first so many, and say how long the rest of them will take."""
    sets = kept_sets(path, repr(study.schedule))
    wanted = sets_of(study.subject.name, tuple(block.name for block in study.subject.candidates))[:most]
    there = [tuple(one["dropped"]) for one in sets]
    missing = [names for names in wanted if names not in there]
    print(f"{study.subject.name}: {len(missing)} of {len(wanted)} sets to compute{_in_minutes(sets, len(missing))}")
    for done, names in enumerate(missing, 1):
        sets.append(study.record(names))
        left = _in_minutes(sets, len(missing) - done)
        print(*names, f"{sets[-1]['finetuned_percent']:.2f}%, {len(missing) - done} to go{left}", flush=True)
        write(path, study, sets)
    if sets and not missing:
        write(path, study, sets)


def _in_minutes(sets: list[dict[str, Any]], count: int) -> str:
    """How long so many more sets take, by those that there are."""
    if not sets or not count:
        return ""
    return f", about {math.ceil(count * statistics.median(one['seconds'] for one in sets) / 60)} min"


def kept_sets(path: Path, finetuning: str) -> list[dict[str, Any]]:
    """The sets that are there already; those finetuned otherwise are left out, and so computed anew."""
    found = json.loads(path.read_text())["sets"] if path.is_file() else []
    kept = [one for one in found if one.get("finetuning") == finetuning]
    if len(kept) < len(found):
        print(f"{path}: {len(found) - len(kept)} sets of another finetuning are left out")
    return kept


def write(path: Path, study: Study, sets: list[dict[str, Any]]) -> None:
    """The study as it stands."""
    after = np.array([one["finetuned_percent"] for one in sets])
    sizes = sorted({len(one["dropped"]) for one in sets})
    found = {
        "schema": 1, "network": study.subject.name, "images": len(study.images), "blocks": " or ".join(map(str, sizes)),
        "steps": study.steps, "finetuning": repr(study.schedule), "score_steps": CASES[study.subject.name][2],
        "precision": str(study.schedule.dtype).removeprefix("torch."), "torch": torch.__version__,
        "mean_percent": float(after.mean()), "most_percent": float(after.max()), "best_few": TOP,
        "criteria": summary(study, sets), "sets": sets,
    }  # fmt: skip
    write_atomically(path, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
