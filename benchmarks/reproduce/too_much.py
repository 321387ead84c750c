"""Targets that a network cannot meet: is the build refused in time, and is what it offers instead worth what it says?

    python benchmarks/reproduce/too_much.py [mobilenetv2] [resnet56] [efficientnet-lite0] [--busy 6] [--data ../shared/data]

Each network is given some hundred images without labels and a target beyond it, with so many busy processes beside. A second
build, without them, takes the best within the demand (`--best-within-drop`); its agreement and its loss are then counted on all
test images.
One JSON a network and number of busy processes under benchmarks/results/too_much/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from promises import answers, test_images
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_deploy.planning.loss import loss_of
from practise_deploy.run import write_atomically

RESULTS = ROOT / "benchmarks" / "results" / "too_much"
ASKED = {"mobilenetv2": (22, 100), "resnet56": (60, 120), "efficientnet-lite0": (60, 100)}
"""By network, the reduction in percent and the number of images."""


def arguments(network: str, data: Path, place: Path) -> list[str]:
    """What the build is told; its images are put into `place`, without labels."""
    reduce, count = ASKED[network]
    if network == "resnet56":
        pool = np.load(data / "cifar10" / "train.npz")["images"]
        np.savez(place / "tiny.npz", images=pool[np.random.default_rng(count).permutation(len(pool))[:count]])
        weights = str(data / "cifar10" / "resnet56.pt")
        given = [
            f"{ROOT / 'benchmarks' / 'cifar_resnets.py'}:make_resnet56",
            "--weights",
            weights,
            "--data",
            str(place / "tiny.npz"),
        ]
    else:
        names = sorted((data / "imagenet-one-per-class").glob("*.jpg"))
        (place / "photos").mkdir()
        for name in names[:: len(names) // count]:
            (place / "photos" / name.name).write_bytes(name.read_bytes())
        here = data / "mobilenetv2"
        own = [network]
        if network == "mobilenetv2":
            own = [
                f"{here / 'net.py'}:mobilenet", "--weights", str(here / "mobilenetv2.pth"), "--input-size", "224",
                "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5",
            ]  # fmt: skip
        given = [*own, "--data", str(place / "photos")]
    return [*given, "--reduce", f"{reduce}%", "--threads", "1", "--out", str(place / "run")]


def built(given: list[str]) -> dict[str, Any]:
    """One build as a user runs it: its exit code, its last words, its seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "practise_deploy.cli", "build", *given], capture_output=True, text=True
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("error:", "remedy:"))]
    return {"exit_code": done.returncode, "said": said, "seconds": round(time.monotonic() - began)}


def checked(network: str, data: Path, busy_processes: int) -> dict[str, Any]:
    """Both builds of a network, and what holds of the second."""
    with tempfile.TemporaryDirectory() as folder:
        given, run = arguments(network, data, Path(folder)), Path(folder) / "run"
        with busy(busy_processes):
            first = built(given)
        within = json.loads((run / "steps" / "within-drop.json").read_text())["of"]
        first |= {"finetuned": (run / "steps" / "finetune.json").exists(), "offered": within["best"]}
        found = {"network": network, "reduce_percent": ASKED[network][0], "images": ASKED[network][1], "refused": first}
        if not first["offered"]:
            return found
        second = built([*given, "--best-within-drop"])
        if not (run / "release.json").exists():
            return found | {"instead": second}
        release = json.loads((run / "release.json").read_text())
        images = test_images(network, data)
        assert images.labels is not None
        before, after = (answers(run / name, images) for name in ("original.onnx", "model.onnx"))
        truth, stated = loss_of(before, after, images.labels.numpy()), release["verification"]["loss"]
        agreement, points = stated["agreement_percent"], stated["points"]
        second |= {
            "sentence": release["verdict"]["sentence"], "speedup": release["speedup"], "stated": stated, "true": asdict(truth),
            "agreement_holds": agreement["low"] <= truth.agreement_percent.estimate <= agreement["high"],
            "loss_holds": points["low"] <= truth.points.estimate <= points["high"],
        }  # fmt: skip
        return found | {"instead": second}


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for each in running:
        each.start()
    try:
        yield
    finally:
        for each in running:
            each.terminate()


def main() -> None:
    """Make the builds that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(ASKED))
    parser.add_argument("--busy", type=int, default=0, help="processes that compute without end beside it")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    data = folder_of(options.data)
    for network in options.networks:
        file = RESULTS / f"{network}-busy{options.busy}.json"
        if file.exists():
            continue
        found = checked(network, data, options.busy)
        found |= {"schema": 1, "busy": options.busy, "load": os.getloadavg()[2], "commit": commit()}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(found, indent=1) + "\n")
        print(network, options.busy, found["refused"]["said"], found.get("instead", {}).get("sentence"), flush=True)


if __name__ == "__main__":
    main()
