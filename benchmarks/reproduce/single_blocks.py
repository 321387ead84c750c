"""How near the recoverability of a single block comes to what its whole recovery leaves, by where it is refitted to find out.

    python benchmarks/reproduce/single_blocks.py [resnet20] [resnet56] [efficientnet-lite0] [--images 50] [--data ../shared/data]

Of every block that can go: the relative error of the features with nothing refitted, with the site at the cut refitted, with
the first site behind the cut refitted instead, and with all of them, one after another, as sets are compared by. A block
without a writer before its cut has no more than the first, the third and the last of these. All are fitted on and judged by the
images that sets are compared on. One JSON under
benchmarks/results/single_blocks/ for each network and number of images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ranks import Floats, spearman
from sites import mean_of
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_deploy.compute import exact
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.refit.candidate import Candidate, candidate_for
from practise_deploy.refit.points import points_of
from practise_deploy.refit.recover import verified_without
from practise_deploy.refit.recoverability import recoverability_of
from practise_deploy.run import Silent, write_atomically
from practise_deploy.terms import Block

RESULTS = ROOT / "benchmarks" / "results" / "single_blocks"
NETWORKS, SEED = ("resnet20", "resnet56", "efficientnet-lite0"), 2021
PLAIN, BEHIND, AT_CUT, WHOLE = "plain drop", "first site behind the cut", "site at the cut", "all sites"


class ComparedAsSets(CalibrationProblem):
    """Blocks are judged by the images that sets are judged by."""

    @property
    def folds(self) -> list[tuple[FitImages, FitImages]]:
        return self.comparison_folds


@dataclass(frozen=True, slots=True)
class Judged:
    """A block's errors, by what was refitted; BEHIND is missing where there is no such site."""

    block: str
    errors: dict[str, float]


def behind_the_cut(calibration: CalibrationProblem, block: Block) -> Candidate | None:
    """The network without a block, as if nothing could be solved at the cut; None where nothing can be solved behind it."""
    usual = candidate_for(calibration, block)
    for site in points_of(usual.student, calibration.teacher, [block], calibration.feature):
        found = Candidate(block, usual.student, site, usual.end)
        if not found.is_refitted_at_the_cut:
            return found
    return None


def judged(calibration: CalibrationProblem, blocks: Sequence[Block]) -> list[Judged]:
    """All blocks, on the same images."""
    usual = [candidate_for(calibration, block) for block in blocks]
    later = [found for block in blocks if (found := behind_the_cut(calibration, block)) is not None]
    of = {each.block: each for each in recoverability_of(usual, calibration, Silent()).of}
    relative = {each.block: each.relative for each in recoverability_of(later, calibration, Silent()).of}
    rows = []
    for block, candidate in zip(blocks, usual, strict=True):
        known = of[block.name]
        errors = {PLAIN: known.mse_dropped * known.relative / known.mse.estimate}
        if block.name in relative:
            errors[BEHIND] = relative[block.name]
        if candidate.is_refitted_at_the_cut:
            errors[AT_CUT] = known.relative
        errors[WHOLE] = float(verified_without(calibration, [block], Silent()).errors.mean())
        rows.append(Judged(block.name, errors))
        print(block.name, {name: round(error, 4) for name, error in errors.items()}, flush=True)
    return rows


def summary(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """By what was refitted: how the errors rank beside those of the whole recovery, and how many times those they are.

    Of blocks with all four; the times are a geometric mean.
    """
    whole = [row for row in rows if len(row.errors) == 4]
    truth = np.array([row.errors[WHOLE] for row in whole])
    found = []
    for name in (PLAIN, BEHIND, AT_CUT):
        errors = np.array([row.errors[name] for row in whole])
        found.append(
            {
                "refitted": name,
                "blocks": len(whole),
                "rank_correlation": float(-spearman(errors, truth)),
                "times_the_whole": _times(errors, truth),
            }
        )
    return found


def _times(errors: Floats, truth: Floats) -> dict[str, float | None]:
    """The geometric mean of how many times the errors are as large, with its interval over blocks where there are enough."""
    found = mean_of(np.log(errors / truth))
    return {name: None if found[name] is None else float(np.exp(found[name])) for name in ("estimate", "low", "high")}


def study(subject: Subject, images: int) -> dict[str, Any]:
    """All blocks of a network, and what they tell."""
    with exact(SEED):
        usual = subject.calibration(images, SEED)
        calibration = ComparedAsSets(**{each.name: getattr(usual, each.name) for each in fields(usual)})
        rows = judged(calibration, subject.candidates)
    return {
        "schema": 1, "network": subject.name, "images": images, "commit": commit(), "torch": torch.__version__,
        "refits": summary(rows), "blocks": [asdict(row) for row in rows],
    }  # fmt: skip


def main() -> None:
    """Study the named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or NETWORKS:
        found = study(load_subject(name, folder_of(options.data)), options.images)
        write_atomically(RESULTS / f"{name}_{options.images}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
