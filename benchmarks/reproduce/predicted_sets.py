"""How well the error of a set is predicted, with blocks scored by one site and by their whole recovery.

    python benchmarks/reproduce/predicted_sets.py [mobilenetv2] [resnet20] [--images 75] [--sets 16] [--data ../shared/data]

Random sets of 2 to 5 blocks: the quadratic form of how losses act together, made of blocks that were refitted at one site,
and of the same after `refit.whole_recovery`; beside the error and the estimated loss after the whole set was refitted, as the plan
verifies it. One JSON a network under benchmarks/results/predicted_sets/.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parent))

from losses import as_candidates
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_deploy.compute import exact, pick_precision
from practise_deploy.refit.recover import verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.refit.whole_recovery import MISLEADING, rescored
from practise_deploy.run import Silent, write_atomically

RESULTS = ROOT / "benchmarks" / "results" / "predicted_sets"
NETWORKS, SEED, SIZES = ("mobilenetv2", "resnet20"), 2021, (2, 3, 4, 5)


def spearman(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Spearman's rank correlation along the last axis, of what should be low with what should be high."""
    ranks = np.stack([rankdata(each, axis=-1) for each in (low, high)])
    centred = ranks - ranks.mean(-1, keepdims=True)
    return np.asarray(-(centred[0] * centred[1]).sum(-1) / np.sqrt((centred**2).sum(-1).prod(0)))


def study(subject: Subject, images: int, sets: int) -> dict[str, Any]:
    """A network's sets, and how their errors rank."""
    precision = pick_precision(None, subject.network.input_shape[-1], torch.device("cpu"))
    calibration, blocks = replace(subject.calibration(images, SEED), comparison_dtype=precision), subject.candidates
    with exact(SEED):
        one_site = measure_recoverability(calibration, blocks, Silent())
        whole = rescored(calibration, blocks, one_site, Silent())
        forms = {"one site": as_candidates(one_site, blocks), "whole recovery": as_candidates(whole, blocks)}
        rng, rows = np.random.default_rng(SEED), []
        for number in range(sets):
            size = min(SIZES[number % len(SIZES)], len(blocks) - 1)
            chosen = set(rng.choice([block.name for block in blocks], size, replace=False).tolist())
            names = tuple(block.name for block in blocks if block.name in chosen)
            found = verified_without(calibration, subject.named(names), Silent())
            rows.append(
                {
                    "dropped": names,
                    "predicted": {name: form.error_of(names) for name, form in forms.items()},
                    "verified": float(found.errors.mean()),
                    "lost": None if found.loss is None else found.loss.points.estimate,
                }
            )
            print(rows[-1], flush=True)
    verified = np.array([row["verified"] for row in rows])
    return {
        "schema": 1, "network": subject.name, "images": images, "misleading": MISLEADING, "commit": commit(),
        "blocks": {a.block: [a.relative, b.relative] for a, b in zip(one_site.of, whole.of, strict=True)},
        "rank_correlation": {
            name: float(-spearman(np.array([row["predicted"][name] for row in rows]), verified)) for name in forms
        },
        "sets": rows,
    }  # fmt: skip


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=75)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or NETWORKS:
        found = study(load_subject(name, folder_of(options.data)), options.images, options.sets)
        write_atomically(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
