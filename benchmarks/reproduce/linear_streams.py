"""What the many ways to solve a site buy on networks whose residual stream is linear, where a full map of it is allowed.

    python benchmarks/reproduce/linear_streams.py [efficientnet-lite0] [mobilenetv2] [--images 50] [--sets 20] [--finetuned 5]
        [--data ../shared/data]

Each random set of blocks is recovered three times from one tiny set: with one ridge at every site, in each site's best way, and in
each site's best way but for maps of the stream. Of each: the features' relative error and top-1 on test images, and the seconds; of the
first sets also after the default finetuning. One JSON a network and number of images under benchmarks/results/linear_streams/,
written anew after every set; sets that are there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choice import random_sets
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_backends.rounds.intervals import bootstrap
from practise_deploy.compute import exact, fast_precision, pick_device
from practise_deploy.images.calibration import Lesson
from practise_deploy.network.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.refit import recover as sequence
from practise_deploy.run import Silent, write_atomically
from practise_deploy.terms import Student
from practise_deploy.training.finetune import TINY, finetune

RESULTS = ROOT / "benchmarks" / "results" / "linear_streams"
SIZES = {"efficientnet-lite0": 4, "mobilenetv2": 2}
SEED, TEST_IMAGES, LEAST = 0, 500, 10
ONE_RIDGE, BEST, BEST_WITHOUT_MAPS = "one ridge", "each site's best way", "each site's best way, no map of the stream"
_ways_of = sequence.ways_of


@contextmanager
def only(course: str) -> Iterator[None]:
    """Let a recovery take one course alone."""
    sequence.COURSES = (sequence.UNIFORM,) if course == ONE_RIDGE else (sequence.EACH,)
    sequence.ways_of = (lambda _: _ways_of(None)) if course == BEST_WITHOUT_MAPS else _ways_of
    try:
        yield
    finally:
        sequence.COURSES, sequence.ways_of = (sequence.EACH, sequence.UNIFORM), _ways_of


def judged(subject: Subject, state: Student) -> dict[str, float]:
    """Relative error of the features and top-1 on test images."""
    student = drop_blocks(subject.teacher, subject.named(state.dropped))
    load_weights(student, state.weights)
    own = feature_in(student, subject.feature, subject.named(state.dropped))
    judgement = subject.judge(student, own, pick_device("cpu"))
    return {"feature_error": judgement.feature_error, "percent": 100 * float(judgement.correct.mean())}


def recovered(subject: Subject, lesson: Lesson, names: tuple[str, ...], course: str) -> tuple[Student, dict[str, Any]]:
    """One course of the refit."""
    began = time.monotonic()
    with exact(SEED), only(course):
        state = sequence.recover(lesson, subject.named(names), Silent())
    seconds = round(time.monotonic() - began, 1)
    ways = [choice.method for choice in state.choices]
    return state, {**judged(subject, state), "told": state.relative, "seconds": seconds, "ways": ways}


def finetuned(subject: Subject, lesson: Lesson, start: Student) -> dict[str, float]:
    """The same after the default finetuning."""
    device = pick_device("cpu")
    student = drop_blocks(subject.teacher, subject.named(start.dropped))
    load_weights(student, start.weights)
    schedule = replace(TINY, steps=100, seed=SEED, dtype=fast_precision(device))
    with exact(SEED):
        state = finetune(subject.pair(student, start, device), start, lesson.images, schedule, Silent())
    return judged(subject, state)


def summary(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By course against one ridge: the ratio of errors, and points of top-1; without an interval where there are too few sets."""
    rows = []
    for after, course in ((after, course) for after in ("refit", "finetuned") for course in (BEST, BEST_WITHOUT_MAPS)):
        pairs = [(one[after][ONE_RIDGE], one[after][course]) for one in sets if course in one.get(after, {})]
        if not pairs:
            continue
        ratios = np.array([of["feature_error"] / ridge["feature_error"] for ridge, of in pairs])
        points = np.array([of["percent"] - ridge["percent"] for ridge, of in pairs])
        known = len(pairs) >= LEAST
        rows.append(
            {
                "after": after,
                "course": course,
                "sets": len(pairs),
                "median_error_ratio": float(np.median(ratios)),
                "one_ridge_better": int((ratios > 1).sum()),
                "points": asdict(bootstrap(points, lambda drawn: drawn.mean(-1))) if known else float(points.mean()),
                "mean_percent_one_ridge": float(np.mean([ridge["percent"] for ridge, _ in pairs])),
            }
        )
    return rows


def study(name: str, images: int, most: int, finetune_first: int, data: Path) -> None:
    """All sets of a network."""
    subject, path = load_subject(name, data), RESULTS / f"{name}_{images}.json"
    subject.test = subject.test.some(TEST_IMAGES, SEED)
    lesson = subject.lesson(images, SEED)
    sets = json.loads(path.read_text())["sets"] if path.is_file() else []
    for number, names in enumerate(random_sets(tuple(block.name for block in subject.candidates), SIZES[name])[:most]):
        if list(names) in [one["dropped"] for one in sets]:
            continue
        found: dict[str, Any] = {"dropped": list(names), "refit": {}, "finetuned": {}, "commit": commit()}
        for course in (ONE_RIDGE, BEST, BEST_WITHOUT_MAPS):
            state, found["refit"][course] = recovered(subject, lesson, names, course)
            if number < finetune_first and course != BEST_WITHOUT_MAPS:
                found["finetuned"][course] = finetuned(subject, lesson, state)
        sets.append(found)
        print(
            name,
            images,
            len(sets),
            *names,
            {c: (of["percent"], of["seconds"]) for c, of in found["refit"].items()},
            flush=True,
        )
        taken = [way for one in sets for way in one["refit"][BEST]["ways"]]
        document = {
            "schema": 1, "network": name, "images": images, "blocks": SIZES[name], "torch": torch.__version__,
            "sites_by_way": {way: taken.count(way) for way in sorted(set(taken))}, "summary": summary(sets), "sets": sets,
        }  # fmt: skip
        write_atomically(path, json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--sets", type=int, default=20, help="look at the first so many alone")
    parser.add_argument("--finetuned", type=int, default=5, help="finetune the first so many")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or SIZES:
        study(name, options.images, options.sets, options.finetuned, folder_of(options.data))


if __name__ == "__main__":
    main()
