"""What planning costs: ours in closed form against the paper's scoring by SGD, in images, seconds and memory.

    python benchmarks/speed/planning.py [resnet56] [efficientnet-lite0] [resnet34] [--data ../shared/data]

Ours is recoverability, the choice of blocks with its verifying refits, and the refit of the chosen network. The
paper's scoring trains adaptors for 1000 steps of 64 images for every block; here STEPS steps of every block are timed
and counted right before ours and again right after it, and their mean is multiplied out; both are kept, so that a machine
that drifted meanwhile shows. Images are counted in forwards of the whole network: an operation counts by its share of the
multiply-accumulates, a gradient as two forwards of what it goes through (of ours; the paper's gradients are left out of its
count, to its favour). Sums and solves of normal equations are no forwards: they are in the seconds alone. They are never below
fp32; all else is, on both sides, in the precision that the product picks (bf16 for inputs above 64 pixels where it is native).
ResNet-34 has random weights, which cost the same. Savings of all blocks are taken as equal and no latency is measured: the
figures are of planning whose first measured set meets the target. Every further round verifies up to two more sets, and
"verified" in the JSON says what one costs.
Each part is a process of its own, so that its peak memory is its own. Writes benchmarks/results/planning.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))

from tiny.provenance import commit
from tiny.subjects import folder_of

from practise_backends.terms import Interval, LatencyTable, Saving
from practise_deploy.compute import exact, pick_device, pick_precision
from practise_deploy.deployment.latency_table import read_table
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages, image_size_of, load_images
from practise_deploy.network.graph import activations as values
from practise_deploy.network.graph.activations import macs_by_node, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.planning.sets import Verified, choose_set
from practise_deploy.refit.recover import recover, verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.run import Silent, write_atomically
from practise_deploy.settings import Settings
from practise_deploy.terms import Block, Budget
from practise_deploy.training import adaptor_scores as by_sgd
from practise_deploy.training import mimic as mimicking
from practise_deploy.training.adaptors import insert_adaptors
from practise_deploy.training.checkpoint import TrainingLog, TrainingState
from practise_deploy.training.distillation import Distillation, distillation_of
from practise_deploy.training.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
STEPS, OFFICIAL = 2, 1000
BATCH = 64
REDUCTION = 25.0
CASES: dict[str, list[tuple[int, int | None, bool]]] = {
    "resnet56": [(500, None, True), (50, None, False), (1000, None, False), (500, 6, False), (500, 12, False)],
    "efficientnet-lite0": [(500, None, True), (50, None, False), (900, None, False)],
    "resnet34": [(500, None, True)],
}
"""By network: images, number of candidate blocks (None: all), whether the paper's scoring is measured beside."""


class Counter:
    """Counts forwards of the whole network while it is open, by multiply-accumulates."""

    def __init__(self, macs: dict[str, int]) -> None:
        self.macs, self.whole, self.images = macs, sum(macs.values()), 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count every operation that the traced networks execute; in a graph of gradients it counts three times."""
        plain = values.execute_group

        def counted(traced: fx.GraphModule, run: tuple[fx.Node, ...], env: values.Env) -> torch.Tensor:
            value, macs = plain(traced, run, env), sum(self.macs.get(node.name, 0) for node in run)
            if isinstance(value, torch.Tensor) and macs:
                times = 3 if self.gradients and value.requires_grad else 1
                self.images += times * len(value) * macs / self.whole
            return value

        values.execute_group = counted
        try:
            yield
        finally:
            values.execute_group = plain

    gradients = True


def settings_of(name: str, data: Path) -> Settings:
    """The network and its images."""
    if name == "resnet56":
        network = f"{ROOT / 'benchmarks' / 'cifar_resnets.py'}:make_resnet56"
        return Settings(
            network=network, weights=data / "cifar10/resnet56.pt", data=data / "cifar10/train.npz",
            eval=data / "cifar10/test.npz",
        )  # fmt: skip
    known = "torchvision:resnet34" if name == "resnet34" else name
    return Settings(network=known, data=data / "imagenette/train", eval=data / "imagenette/val")


def lesson_of(name: str, images: int, data: Path) -> tuple[CalibrationProblem, tuple[Block, ...], dict[str, int]]:
    """The calibration of so many images, the blocks that can go, and the network's multiply-accumulates by value."""
    settings = settings_of(name, data)
    torch.manual_seed(0)
    network = load_network(settings, structure_only=name == "resnet34", image_size=image_size_of(settings))
    fit = load_images(settings, network.summary).fit.subsample(images, 0)
    dtype = pick_precision(None, network.input_shape[-1], pick_device("cpu"))
    calibration = CalibrationProblem(
        teacher=network.traced, feature=network.summary.feature, images=fit, comparison_dtype=dtype
    )
    macs = macs_by_node(network.traced, torch.zeros(network.input_shape))
    return calibration, droppable(find_blocks(network.traced, network.input_shape)), macs


def equal_savings(blocks: Sequence[Block]) -> LatencyTable:
    """A table in which every block saves the same, and all together 60%."""

    def exactly(value: float) -> Interval:
        return Interval(estimate=value, low=value, high=value, confidence=0.95)

    share = 100.0 * 0.6 / len(blocks)
    savings = tuple(
        Saving(
            block=block.name, latency_class=block.latency_class, saving_ms=exactly(share / 10),
            reduction_percent=exactly(share), pooled_with=(), distinguishable=True,
        )
        for block in blocks
    )  # fmt: skip
    measured = read_table(RESULTS / "tiny_sets" / "latency_resnet20.json")  # all but the savings is of no matter
    return replace(measured, baseline_ms=exactly(10.0), savings=savings, additivity=None)


def timed(work: Callable[[], Any], counter: Counter) -> tuple[Any, dict[str, float]]:
    """What the work gives, its seconds, and its images."""
    counter.images, began = 0.0, time.monotonic()
    with counter.open():
        given = work()
    return given, {"seconds": time.monotonic() - began, "image_forwards": counter.images}


def ours(calibration: CalibrationProblem, blocks: Sequence[Block], counter: Counter) -> dict[str, Any]:
    """Planning and recovery, part by part."""
    found, scoring = timed(lambda: measure_recoverability(calibration, blocks, Silent()), counter)
    by_name = {block.name: block for block in blocks}
    verifying_s: list[float] = []

    def verify(names: tuple[str, ...]) -> Verified:
        began = time.monotonic()
        found = verified_without(calibration, [by_name[name] for name in names], Silent())
        verifying_s.append(time.monotonic() - began)
        return found

    table = equal_savings(blocks)
    plan, choosing = timed(lambda: choose_set(table, found, Budget(reduce_percent=REDUCTION), None, verify), counter)
    peak_of_planning = peak_memory_gb()
    _, recovering = timed(lambda: recover(calibration, [by_name[name] for name in plan.dropped], Silent()), counter)
    parts = {"recoverability": scoring, "choice": choosing, "refit": recovering}
    planning = {key: scoring[key] + choosing[key] for key in scoring}
    return {
        "dropped": list(plan.dropped), "planning": planning, "parts": parts,
        "verified": {"sets": len(verifying_s), "seconds_a_set": statistics.fmean(verifying_s) if verifying_s else None},
        "peak_memory_of_planning_gb": peak_of_planning, "peak_memory_gb": peak_memory_gb(),
    }  # fmt: skip


def peak_memory_gb() -> float:
    """The most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _judge_nothing(
    pair: Distillation, descent: TrainingState, images: FitImages, schedule: Schedule, course: TrainingLog
) -> None:
    """In the place of the judging that a real descent does ten times: so few steps would be mostly that."""
    course.history.append((course.step, 1.0))


def paper(calibration: CalibrationProblem, blocks: Sequence[Block], counter: Counter) -> dict[str, float]:
    """One step of the paper's scoring of all blocks as published, block after block; what is judged besides is left out."""
    counter.gradients = False
    judge, mimicking._validate = mimicking._validate, _judge_nothing
    each = [a_step(lambda steps, block=block: _descend(calibration, block, steps), counter) for block in blocks]
    mimicking._validate = judge
    return {key: sum(one[key] for one in each) for key in ("seconds", "image_forwards")}


def together(calibration: CalibrationProblem, blocks: Sequence[Block], counter: Counter) -> dict[str, float]:
    """One step of `--recipe paper`, which gives the same scores; the judging, which a difference of steps leaves out, is kept short."""
    counter.gradients, by_sgd._MAX_VALIDATION_IMAGES = False, BATCH
    return a_step(
        lambda n: by_sgd.measure_by_adaptors(calibration, blocks, steps_of(calibration, n), Silent()), counter
    )


def steps_of(calibration: CalibrationProblem, steps: int) -> Schedule:
    """So many steps of the paper's scoring, in the precision in which ours judges."""
    return Schedule(steps=steps, batch_size=BATCH, dtype=calibration.comparison_dtype)


def a_step(work: Callable[[int], Any], counter: Counter) -> dict[str, float]:
    """What one more step costs: the difference of a few and one more than a few, over a few."""
    few, many = (timed(lambda steps=steps: work(steps), counter)[1] for steps in (1, 1 + STEPS))
    return {key: (many[key] - few[key]) / STEPS for key in few}


def _descend(calibration: CalibrationProblem, block: Block, steps: int) -> None:
    """Adaptors of one block as the published code trains them: the whole student beside the whole teacher."""
    student = drop_blocks(calibration.teacher, [block]).requires_grad_(False)
    trained = [
        student.get_parameter(f"{node_by_name(student, adaptor.node).target}.weight")
        for adaptor in insert_adaptors(student, block.entry)
    ]
    pair = distillation_of(student, calibration.teacher, calibration.feature, [block])
    mimicking.mimic(pair, trained, (calibration.images, calibration.images), steps_of(calibration, steps), Silent())


PARTS = {"ours": ours, "paper": paper, "together": together}


def part(name: str, images: int, count: int | None, which: str, data: Path) -> dict[str, Any]:
    """One measurement, in this process."""
    calibration, candidates, macs = lesson_of(name, images, data)
    blocks = candidates if count is None else candidates[:: max(1, len(candidates) // count)][:count]
    with exact(0):
        found = PARTS[which](calibration, blocks, Counter(macs))
    precision = str(calibration.comparison_dtype).removeprefix("torch.")
    if which != "ours":
        return found | {"precision_of_scoring": precision}
    facts = {
        "network": name, "images": len(calibration.images), "blocks": len(blocks), "threads": torch.get_num_threads(),
        "precision_of_judging": precision, "commit": commit(),
    }  # fmt: skip
    return facts | found


def case(name: str, images: int, count: int | None, beside: bool, data: Path) -> dict[str, Any]:
    """Ours, and where asked the paper's before and after it, every part in a process of its own."""

    def apart(which: str) -> dict[str, Any]:
        given = json.dumps([name, images, count, which])
        command = [sys.executable, __file__, "--part", given, "--data", str(data)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        if ran.returncode:
            sys.exit(f"{name}, {images} images: the part {which!r} failed")
        return json.loads(ran.stdout.splitlines()[-1])

    if not beside:
        return apart("ours")
    before, found, after, at_once = (apart(which) for which in ("paper", "ours", "paper", "together"))
    precision = before.pop("precision_of_scoring")
    whole = {key: OFFICIAL * (before[key] + after[key]) / 2 for key in before}
    turns = [each["seconds"] for each in (before, after)]
    found["paper"] = {
        **whole, "precision_of_scoring": precision, "steps_measured": 2 * STEPS, "steps": OFFICIAL,
        "seconds_per_step_before_and_after": turns, "together": {key: OFFICIAL * at_once[key] for key in whole},
    }  # fmt: skip
    return found


def main() -> None:
    """Measure the named networks' cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(part(*json.loads(options.part), options.data)))
        return
    if unknown := set(options.names) - set(CASES):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    data, path = folder_of(options.data), RESULTS / "planning.json"
    kept = json.loads(path.read_text())["cases"] if path.is_file() else []
    for name in options.names or CASES:
        made = []
        for images, count, beside in CASES[name]:
            made.append(case(name, images, count, beside, data))
            print(name, images, count, made[-1]["planning"], made[-1].get("paper"), flush=True)
        kept = sorted([each for each in kept if each["network"] != name] + made, key=_place)
        write_atomically(path, json.dumps({"schema": 1, "cases": kept}, indent=1) + "\n")


def _place(found: dict[str, Any]) -> int:
    return list(CASES).index(found["network"])


if __name__ == "__main__":
    main()
