"""From units to figures: means, paired differences with intervals, and what is missing. Needs no torch.

A paired difference is that of two methods on the same tiny sets and the same test images. Its interval is Student's t over
the seeds (the tiny sets that could have been drawn), with the spread over test images added to it (the images that could
have been drawn): half-width^2 = (t s / sqrt(seeds))^2 + (1.96 s' / sqrt(images))^2, s' the standard deviation over images
of the difference, averaged over seeds. A single seed has no interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_deploy.run import write_atomically

from .grid import FILTERS, GRIDS, MET_AT, SCORES, Unit
from .shelf import Record, Shelf, unpacked

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
Found = dict[Unit, Record]
Sets = dict[tuple[str, frozenset[str]], Record]


def write_summary(grid: str, shelf: Shelf) -> Path:
    """Summarise a grid into one JSON beside the folder of the units."""
    units = [unit for part in GRIDS[grid] for unit in part.units()]
    found = {unit: record for unit in units if (record := shelf.read(unit)) is not None}
    path = shelf.folder.with_suffix(".json")
    text = json.dumps(summary(grid, units, found, read_sets(shelf.folder)), indent=1, allow_nan=False)
    write_atomically(path, text + "\n")
    return path


def read_sets(folder: Path) -> Sets:
    """Measured reductions of sets of blocks, by network and set."""
    found: Sets = {}
    for path in sorted(folder.glob(f"sets_*{MET_AT}.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for each in record["sets"]:
            found[record["network"], frozenset(each["dropped"])] = each["reduction_percent"]
    return found


def summary(grid: str, units: Sequence[Unit], found: Found, sets: Sets) -> Record:
    """All points of a grid; units that are not done are named."""
    points: dict[tuple[str, int, int], list[Unit]] = {}
    for unit in units:
        if unit.method != SCORES:
            points.setdefault((unit.network, unit.reduction, unit.images), []).append(unit)
    made = [_point(key, asked, found, sets) for key, asked in points.items()]
    return {
        "schema": 1,
        "grid": grid,
        "budget_met_at": MET_AT,
        "interval": "95%, Student's t over seeds, the spread over test images added",
        "points": made,
        "figures": _figures(made),
        "done": len(found),
        "missing": [unit.name for unit in units if unit not in found],
    }


def _point(key: tuple[str, int, int], asked: Sequence[Unit], found: Found, sets: Sets) -> Record:
    network, reduction, images = key
    done = {unit: found[unit] for unit in asked if unit in found}
    methods = {}
    for method in dict.fromkeys(unit.method for unit in asked):
        wanted = [unit for unit in asked if unit.method == method]
        methods[method] = _method(wanted, done, sets)
    ours = _answers("ours", done)
    for method in methods:
        if method != "ours":
            methods[method]["ours_minus"] = paired(ours, _answers(method, done))
    teachers = [record["teacher"] for record in done.values()]
    teacher = 100 * teachers[0]["correct"] / teachers[0]["images"] if teachers else None
    return {
        "network": network, "asked_percent": reduction, "images": images, "steps": asked[0].steps,
        "teacher_percent": teacher, "methods": methods,
    }  # fmt: skip


def _method(wanted: Sequence[Unit], done: Found, sets: Sets) -> Record:
    """One method at one point."""
    records = {unit.seed: done[unit] for unit in wanted if unit in done}
    accuracy = [100 * each["student"]["correct"] / each["student"]["images"] for each in records.values()]
    reductions = [_reduction(wanted[0].network, each, sets) for each in records.values()]
    return {
        "seeds": sorted(records),
        "missing_seeds": sorted(unit.seed for unit in wanted if unit not in done),
        "precision": sorted({each["precision"] for each in records.values()}),
        "recovered_by": sorted({how for each in records.values() if (how := each.get("recovered_by"))}),
        "recovery_unrecorded_seeds": sorted(seed for seed, each in records.items() if not each.get("recovered_by")),
        "accuracy_percent": accuracy,
        "mean": float(np.mean(accuracy)) if accuracy else None,
        "std": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
        "reduction_percent": {
            end: float(np.mean([each[end] for each in reductions])) for end in ("estimate", "low", "high")
        } if reductions else None,
        "reduction_measured": bool(reductions) and all(each["measured"] for each in reductions),
        "seconds": float(np.mean([each["seconds"] for each in records.values()])) if records else None,
    }  # fmt: skip


def _reduction(network: str, record: Record, sets: Sets) -> Record:
    """The measured reduction where there is one, else the predicted one."""
    measured = record["measured_percent"]
    if measured is None and record["dropped"]:
        measured = sets.get((network, frozenset(record["dropped"])))
    return {**(measured or record["predicted_percent"]), "measured": measured is not None}


def _answers(method: str, done: Found) -> dict[int, npt.NDArray[np.bool_]]:
    """By seed, which test images were told right."""
    students = {unit.seed: record["student"] for unit, record in done.items() if unit.method == method}
    return {seed: unpacked(each["bits"], each["images"]) for seed, each in students.items()}


def paired(first: dict[int, npt.NDArray[np.bool_]], second: dict[int, npt.NDArray[np.bool_]]) -> dict[str, Any] | None:
    """First minus second in points of accuracy, over the seeds that both have; None where they share none."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = 100 * np.stack([first[seed].astype(float) - second[seed].astype(float) for seed in shared])
    by_seed, by_image = differences.mean(1), differences.mean(0)
    found: dict[str, Any] = {"seeds": shared, "estimate": float(by_seed.mean()), "low": None, "high": None}
    if len(shared) > 1:
        t = _T95[len(shared) - 2] if len(shared) - 2 < len(_T95) else 1.96
        over_seeds = t * by_seed.std(ddof=1) / math.sqrt(len(shared))
        over_images = 1.96 * by_image.std(ddof=1) / math.sqrt(len(by_image))
        half = math.hypot(over_seeds, over_images)
        found |= {"low": found["estimate"] - half, "high": found["estimate"] + half}
    return found


def _figures(points: Sequence[Record]) -> Record:
    """The figures that the comparison is about; None where units are missing."""
    against_paper = [
        {**_place(point), **(point["methods"].get("paper", {}).get("ours_minus") or {"estimate": None})}
        for point in points
    ]
    few = [each for each in against_paper if each["images"] == 50 and each["asked_percent"] in (22, 30)]
    filters = [_best_filters(point) for point in points if point["asked_percent"] == 22]
    return {
        "ours_minus_paper": against_paper,
        "ours_minus_paper_mean_at_50_images": _mean(few),
        "ours_minus_best_filters_at_22": filters,
        "ours_minus_best_filters_mean_at_22": _mean(filters),
    }


def _place(point: Record) -> Record:
    return {name: point[name] for name in ("network", "asked_percent", "images")}


def _mean(differences: Sequence[Record]) -> Record:
    """The mean over points, each counting alike; None where one of them is missing.

    Its half-width is the mean of theirs, the most that it can be: points share tiny sets and test images, so that they
    may all err the same way.
    """
    if not differences or any(each["estimate"] is None for each in differences):
        return {"points": len(differences), "estimate": None, "low": None, "high": None}
    estimate = float(np.mean([each["estimate"] for each in differences]))
    if any(each["low"] is None for each in differences):
        return {"points": len(differences), "estimate": estimate, "low": None, "high": None}
    half = float(np.mean([each["high"] - each["estimate"] for each in differences]))
    return {"points": len(differences), "estimate": estimate, "low": estimate - half, "high": estimate + half}


def _best_filters(point: Record) -> Record:
    """Against the filter baseline of highest mean accuracy at this point, of those that were run."""
    known = {name: point["methods"][name] for name in FILTERS if point["methods"].get(name, {}).get("seeds")}
    if not known:
        return {**_place(point), "method": None, "not_run": [], "estimate": None}
    best = max(known, key=lambda name: known[name]["mean"])
    rest = [name for name in FILTERS if name in point["methods"] and name not in known]
    return {**_place(point), "method": best, "not_run": rest, **(known[best]["ours_minus"] or {"estimate": None})}
