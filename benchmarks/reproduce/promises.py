"""Is the promise true? Builds of random networks, targets, seeds and numbers of images, each held against many other images.

    python benchmarks/reproduce/promises.py [--builds 44] [--first 0] [--data ../shared/data]

A build is drawn by its number: the network, the target, the tiny set (with labels or without), the demand on accuracy.
It goes as `practise-deploy build` goes, but for the measurement of the finished file, which says nothing about accuracy. Then the
shipped file runs on images that took no part in anything: the loss by their labels is the truth that the verdict and the stated
interval are held against. A build that is refused is made once more with `--max-drop none`, to see whether that was right. One
JSON a build under benchmarks/results/promises/; those that are there are left alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_backends.errors import Disturbed
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.verify import engine_runner
from practise_deploy.errors import TargetOutOfReach
from practise_deploy.images.tiny_set import HeldOutImages, image_size_of, load_images
from practise_deploy.network.loading.load import load_network
from practise_deploy.outcome import Frontier
from practise_deploy.pipeline.build import Build
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.planning.gate import Criteria, evaluate_gate
from practise_deploy.planning.loss import loss_of
from practise_deploy.run import Run, write_atomically
from practise_deploy.settings import Settings, read_settings
from practise_deploy.terms import Loss

RESULTS = ROOT / "benchmarks" / "results" / "promises"
NETWORKS = {"resnet20": 0.5, "resnet56": 0.26, "mobilenetv2": 0.14, "efficientnet-lite0": 0.1}
CIFAR = ("resnet20", "resnet56")
SEED, MANY_HELD_OUT = 2028, 100
"""Builds from this number on have many held-out images and modest targets, so that something can be proven."""
_CONDITIONS = Conditions(batch=1, threads=1)


Answers = np.ndarray[Any, np.dtype[np.float32]]
_ORIGINALS: dict[str, Answers] = {}
"""What the originals answer, by network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a build is given. labelled: whether its images carry labels. demand: in points; None is the default."""

    number: int
    network: str
    reduce: float
    images: int
    labelled: bool
    held_out_percent: float
    demand: float | None
    iterations: int
    seed: int


def drawn(number: int) -> Drawn:
    """The build of a number."""
    rng = np.random.default_rng([SEED, number])
    network = str(rng.choice(list(NETWORKS), p=list(NETWORKS.values())))
    can_prove = number >= MANY_HELD_OUT
    return Drawn(
        number=number,
        network=network,
        reduce=float(rng.choice([8, 12, 16, 20] if can_prove else [8, 12, 16, 20, 25, 30, 40, 50, 60])),
        images=int(rng.choice([800, 1600]) if can_prove else rng.choice([40, 80, 160, 320])),
        labelled=bool(rng.random() < 0.4),
        held_out_percent=float(75 if can_prove else rng.choice([25, 50])),
        demand=[None, None, 1.0, 5.0][int(rng.integers(4))],
        iterations=int(rng.choice([0, 60, 150]) if network in CIFAR else rng.choice([0, 20])),
        seed=int(rng.integers(1000)),
    )


def settings_of(one: Drawn, data: Path, place: Path) -> Settings:
    """What the product is told; the images are copied to a place of their own."""
    given: dict[str, Any] = {
        "reduce": one.reduce, "held_out_percent": one.held_out_percent, "max_drop": one.demand, "seed": one.seed,
        "iterations": one.iterations, "measure_budget_s": 10.0, "sessions": 2, "out": place / "run", "threads": 1,
    }  # fmt: skip
    rng = np.random.default_rng([SEED, one.number, 1])
    if one.network in CIFAR:
        pool = np.load(data / "cifar10" / "train.npz")
        which = rng.permutation(len(pool["images"]))[: one.images]
        arrays = {"images": pool["images"][which]} | ({"labels": pool["labels"][which]} if one.labelled else {})
        np.savez(place / "tiny.npz", **arrays)
        network = f"{ROOT / 'benchmarks' / 'cifar_resnets.py'}:make_{one.network}"
        return read_settings(
            given
            | {
                "network": network,
                "weights": data / "cifar10" / f"{one.network}.pt",
                "data": place / "tiny.npz",
            }
        )
    names = sorted((data / "imagenette" / "train").glob("*/*.JPEG"))
    for at in rng.permutation(len(names))[: one.images]:
        folder = place / "photos" / (names[at].parent.name if one.labelled else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[at].name).write_bytes(names[at].read_bytes())
    given["data"] = place / "photos"
    if one.network == "mobilenetv2":
        here = data / "mobilenetv2"
        given |= {
            "network": f"{here / 'net.py'}:mobilenet", "weights": here / "mobilenetv2.pth", "mean": (0.5,) * 3,
            "std": (0.5,) * 3, "input_size": 224,
        }  # fmt: skip
    else:
        given["network"] = one.network
    return read_settings(given)


@lru_cache(maxsize=4)
def test_images(network: str, data: Path) -> HeldOutImages:
    """Many images with labels that no build of this network is given."""
    eval_ = data / "cifar10" / "test.npz" if network in CIFAR else data / "imagenette" / "val"
    with tempfile.TemporaryDirectory() as folder:
        asked = settings_of(drawn_of(network), data, Path(folder)).model_copy(update={"eval": eval_})
        loaded = load_network(asked, image_size=image_size_of(asked))
        return load_images(asked, loaded.summary).held_out


def drawn_of(network: str) -> Drawn:
    """Any build of a network."""
    return next(one for one in map(drawn, range(10_000)) if one.network == network)


def answers(file: Path, images: HeldOutImages) -> Answers:
    """What an ONNX file answers. Shape: [images, classes]."""
    backend = OrtBackend()
    form = engine_runner(backend.open(backend.compile(file, _CONDITIONS), _CONDITIONS), 1)
    return np.concatenate([form(images.batch(slice(at, at + 100)))[0] for at in range(0, len(images), 100)])


def held_against(build: Build, one: Drawn, data: Path) -> dict[str, Any]:
    """A build that came to its end, beside the truth."""
    asked, verification = build.context.settings, build.verification
    demands = Criteria(min_speedup=None, max_drop=asked.most_points_lost, by_default=asked.max_drop is None)
    gate = evaluate_gate(demands, build.plan, None, verification, Frontier(points=(), fit_images=0, images=0))
    images = test_images(one.network, data)
    assert images.labels is not None and verification.loss is not None
    if one.network not in _ORIGINALS:
        _ORIGINALS[one.network] = answers(build.context.run.folder / "original.onnx", images)
    before, after = _ORIGINALS[one.network], answers(build.context.run.folder / "model.onnx", images)
    truth = loss_of(before, after, images.labels.numpy())
    chosen = build.plan.chosen
    return {
        "answer": None if gate is None else gate.constraints[0].answer.value,
        "demand_points": asked.most_points_lost,
        "loss": asdict(verification.loss),
        "true_loss": asdict(truth),
        "holds": _holds(verification.loss, truth),
        "plan": {
            "dropped": build.plan.dropped,
            "loss": None if chosen is None or chosen.loss is None else asdict(chosen.loss),
            "verified_error": None if chosen is None else chosen.verified_error,
        },
        "finetuned_mse": [build.finetuned.mse_before, build.finetuned.mse],
    }


def _holds(stated: Loss, truth: Loss) -> dict[str, bool]:
    """Whether the stated interval holds the truth, strictly, and as far as the truth is known itself."""
    points, true = stated.points, truth.points
    return {
        "strictly": points.low <= true.estimate <= points.high,
        "as_far_as_known": points.low <= true.high and true.low <= points.high,
    }


def build_of(one: Drawn, data: Path) -> dict[str, Any]:
    """One build, and what became of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(one, data, Path(folder))
        found: dict[str, Any] = {"refused": None}
        try:
            build = _begun(settings)
            build.reached_plan  # noqa: B018
            found |= held_against(build, one, data)
        except TargetOutOfReach as error:
            within = build.within_drop
            found |= {"refused": error.message, "within_drop": None if within is None else _brief(within)}
            if within is not None and one.network == "resnet20":
                freed = settings.model_copy(update={"max_drop": "none"})
                found["all_the_same"] = held_against(_begun(freed), one, data)
            if within is not None and within.best is not None:
                instead = settings.model_copy(update={"best_within_drop": True})
                found["best_within_drop"] = held_against(_begun(instead), one, data)
    return {"schema": 1, "drawn": asdict(one), "commit": commit(), **found, "seconds": round(time.monotonic() - began)}


def undisturbed(build: Callable[[], dict[str, Any]], tries: int = 3) -> dict[str, Any] | None:
    """A build, begun anew where the machine was too disturbed to measure on; None where it stayed so."""
    for _ in range(tries):
        try:
            return build()
        except Disturbed as error:
            print(error.message, flush=True)
    return None


def _begun(settings: Settings) -> Build:
    build = Build(BuildContext(settings=settings, run=Run(settings.run_folder)))
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    build.check()
    return build


def _brief(within: Any) -> dict[str, Any]:
    def brief(one: Any) -> dict[str, Any]:
        return {"dropped": one.dropped, "reduction": one.predicted_percent.estimate, "loss": asdict(one.loss)}

    return {
        "demand_points": within.demand_points,
        "asked": brief(within.target_set),
        "sets": [brief(each) for each in within.sets],
        "best": None if within.best is None else brief(within.best),
    }


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the builds come to together."""
    ended = [one[key] for one in records for key in ("best_within_drop",) if key in one]
    ended += [one for one in records if one.get("answer")]
    freed = [one for one in records if "all_the_same" in one]
    kept = [one for one in ended if one["answer"] == "kept"]
    return {
        "schema": 1,
        "builds": len(records),
        "refused_for_accuracy": sum(one.get("within_drop") is not None for one in records),
        "answers": {
            answer: sum(one["answer"] == answer for one in ended) for answer in ("kept", "broken", "not proven")
        },
        "refused_and_built": len(freed),
        "rightly_refused": sum(
            one["all_the_same"]["true_loss"]["points"]["estimate"] > one["within_drop"]["demand_points"]
            for one in freed
        ),
        "kept_wrongly": sum(one["true_loss"]["points"]["low"] > one["demand_points"] for one in kept),
        "kept_loss_points": sorted(round(one["true_loss"]["points"]["estimate"], 2) for one in kept),
        "intervals": len(ended),
        "hold_strictly": sum(one["holds"]["strictly"] for one in ended),
        "hold_as_far_as_known": sum(one["holds"]["as_far_as_known"] for one in ended),
    }


def main() -> None:
    """Make the builds that are not there yet, and sum them all up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--builds", type=int, default=44, help="up to this number; those from 100 on have many held-out images"
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    data = folder_of(options.data)
    for number in range(options.first, options.builds, options.step):
        one, file = drawn(number), RESULTS / f"{number:03}.json"
        if file.exists() or one.network not in options.networks:
            continue
        found = undisturbed(lambda one=one: build_of(one, data))  # type: ignore[misc]
        if found is None:
            continue
        write_atomically(file, json.dumps(found, indent=1) + "\n")
        truth = found.get("true_loss", {}).get("points", {})
        print(number, asdict(one), found.get("answer") or found["refused"], truth, found["seconds"], flush=True)
    records = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("[0-9]*.json"))]
    write_atomically(RESULTS.with_suffix(".json"), json.dumps(summary(records), indent=1) + "\n")


if __name__ == "__main__":
    main()
