"""How sure is the choice of a set? What resamples of one tiny set claim, beside what other tiny sets choose.

    python benchmarks/reproduce/sureness.py [resnet20] [resnet56] [--images 50 500] [--draws 10] [--data ../shared/data]

From every tiny set (other seeds, other images) a set of blocks is chosen as `practise-deploy build` chooses it, with the grid's
latency table, every saving known exactly. A claim is calibrated where a set that is chosen again in so many of the resamples
is chosen again as often from other images. One JSON under benchmarks/results, written anew after every draw; draws
that are there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tiny.bench import table_of
from tiny.commands import RESULTS as GRID
from tiny.ours import chosen_by_default
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject, folder_of, load_subject

from practise_deploy.compute import exact
from practise_deploy.run import write_atomically

RESULTS = ROOT / "benchmarks" / "results" / "sureness.json"
NETWORKS, REDUCTION = ("resnet20", "resnet56"), 22


def draw(subject: Subject, images: int, seed: int) -> dict[str, Any]:
    """What is chosen from one tiny set, and how sure that is said to be."""
    began = time.monotonic()
    with exact(seed):
        plan = chosen_by_default(subject.calibration(images, seed), subject, table_of(GRID, subject.name), REDUCTION)
    return {
        "network": subject.name, "images": images, "seed": seed, "dropped": list(plan.dropped),
        "set_frequency": plan.set_frequency, "selection_frequency": plan.selection_frequency,
        "verified": {",".join(one.dropped): one.verified_error for one in plan.considered},
        "seconds": round(time.monotonic() - began, 1), "commit": commit(),
    }  # fmt: skip


def summary(draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By network and number of images: the mean claim, and how often another tiny set chooses the same."""
    rows = []
    for network, images in dict.fromkeys((one["network"], one["images"]) for one in draws):
        mine = [one for one in draws if (one["network"], one["images"]) == (network, images)]
        chosen = Counter(tuple(one["dropped"]) for one in mine)
        again = [chosen[tuple(one["dropped"])] - 1 for one in mine]
        blocks = mine[0]["selection_frequency"]
        off = [
            abs(statistics.fmean(one["selection_frequency"][name] for one in mine) - _share_of(name, mine))
            for name in blocks
        ]
        rows.append({
            "network": network, "images": images, "asked_percent": REDUCTION, "draws": len(mine), "sets": len(chosen),
            "claimed_share_of_the_set": statistics.fmean(one["set_frequency"] for one in mine),
            "chosen_again_share": sum(again) / (len(mine) * (len(mine) - 1)) if len(mine) > 1 else None,
            "largest_difference_of_a_block": max(off),
        })  # fmt: skip
    return rows


def _share_of(name: str, draws: list[dict[str, Any]]) -> float:
    return statistics.fmean(name in one["dropped"] for one in draws)


def main() -> None:
    """Choose from every tiny set that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--images", nargs="*", type=int, default=(50, 500))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    draws = json.loads(options.results.read_text())["draws"] if options.results.is_file() else []
    known = {(one["network"], one["images"], one["seed"]) for one in draws}
    for network in options.networks or NETWORKS:
        for images in options.images:
            for seed in range(options.draws):
                if (network, images, seed) in known:
                    continue
                draws.append(draw(load_subject(network, folder_of(options.data)), images, seed))
                print(network, images, seed, *draws[-1]["dropped"], f"{draws[-1]['set_frequency']:.0%}", flush=True)
                found = {"schema": 1, "rows": summary(draws), "draws": draws}
                write_atomically(options.results, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
