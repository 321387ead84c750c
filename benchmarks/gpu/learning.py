"""Planning, refit and finetuning on a GPU beside the CPU: the same results, and in how much time.

    python benchmarks/gpu/learning.py [--networks efficientnet-lite0 resnet50 tiny] [--device cuda] [--images 224]
        [--steps 100] [--paper-steps 10] [--data ../shared/data] [--resnet50 FILE] [--seconds 400]

Sides, each with the same images: "there", the device in fp32; "as_built", the device in the precision that the product picks
there, where that is another; "here", the CPU in fp32. Every side scores all blocks and chooses a set by equal savings for a
reduction of 22%; all refit and finetune the set of the first side that chose one, so that their students can be compared. Of
the paper's scoring and finetuning --paper-steps steps are timed on the device, and multiplied out to its 1000 and 2000. What a
device loads at its first use is in none of the times.

Without images synthetic ones are used, and ResNet-50 has random weights unless a file is given (or named by RESNET50): times
and differences between devices mean the same, accuracies are not told. Writes benchmarks/results/gpu_learning.json after
every stage. Stages that are done are kept in runs/gpu-session; what --seconds left no time for is made when it is run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))

from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, Subject

from planning import BATCH, OFFICIAL, _judge_nothing, equal_savings
from practise_backends.errors import Refusal
from practise_backends.machine.device import describe_cpu
from practise_backends.results.documents import numbers
from practise_deploy.compute import exact, pick_precision
from practise_deploy.errors import first_line
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages, HeldOutImages, load_images
from practise_deploy.network.graph.activations import batches, forward, logits_of, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.planning.sets import Verified, choose_set
from practise_deploy.refit.recover import recover, verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.refit.whole_recovery import rescored
from practise_deploy.run import Run, Workspace, write_atomically
from practise_deploy.settings import Settings
from practise_deploy.terms import Budget, Plan, Preprocessing, Recoverabilities, Student
from practise_deploy.training import mimic as mimicking
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.finetune import PAPER, TINY, drop_only, finetune
from practise_deploy.training.schedule import Schedule

NETWORKS = {
    "efficientnet-lite0": "efficientnet-lite0",
    "resnet50": "torchvision:resnet50",
    "tiny": f"{ROOT / 'tests' / 'networks.py'}:tiny_resnet",
}
PLANNING = ("recoverability", "whole_recovery", "choice")
STAGES = (*PLANNING, "refit", "finetuning")
IMAGES, REDUCTION, HELD_OUT = 224, 22.0, 500
"""Of fewer images those of 224 pixels are judged in turns to compare sets, which takes five times as long."""
_CPU = torch.device("cpu")

TIMED_OUT = 124
"""How `timeout` ends too."""
failures: list[str] = []
unfinished: list[str] = []

Record = TypeVar("Record")
Found = dict[str, Any]
Blocks = tuple[str, ...]


class OutOfTime(Exception):
    """What was begun cannot be ended in the time given."""


class Clock:
    """Progress that nobody sees, and that ends what takes longer than all may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Raises: OutOfTime."""
        if time.monotonic() > self._end:
            raise OutOfTime("no time was left")


class Stopwatch:
    """Progress that takes the time of whole steps on a device; the first one is not counted."""

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock, self._device = clock, device
        self._times: list[tuple[float, float]] = []

    def advance(self, done: float, total: float, note: str = "") -> None:
        """Raises: OutOfTime."""
        self._clock.advance(done, total)
        synchronise(self._device)
        self._times.append((done / total, time.monotonic()))

    def seconds_a_step(self, steps: int) -> float:
        """The mean over all steps but the first. steps: in all."""
        (first, began), (last, ended) = next(each for each in self._times if each[0] >= 1 / steps), self._times[-1]
        return (ended - began) / ((last - first) * steps)


def subject_of(name: str, asked: argparse.Namespace) -> tuple[Subject, Found]:
    """A network with real images where there are any, and where its weights and images are from."""
    weights = asked.resnet50 if name == "resnet50" else None
    size = 16 if name == "tiny" else None
    settings = Settings(network=NETWORKS[name], weights=weights, input_size=size, fit_images=asked.images)
    torch.manual_seed(0)
    network = load_network(settings, structure_only=name == "resnet50" and weights is None)
    trained = name == "efficientnet-lite0" or weights is not None
    prepared, place = network.summary.preprocessing, asked.data / "imagenette"
    if real := name != "tiny" and place.is_dir():
        settings = settings.model_copy(update={"data": place / "train", "eval": place / "val"})
        images = load_images(settings, network.summary)
        fit, held_out = images.fit, images.held_out.subsample(HELD_OUT, 0)
    else:
        fit = FitImages(synthetic(asked.images, prepared, 0), None, prepared)
        held_out = HeldOutImages(synthetic(min(HELD_OUT, 2 * asked.images), prepared, 1), None, prepared)
        said(f"images of {name}: --data has no folder imagenette for it, synthetic ones are used; no accuracies")
    if not trained:
        said(f"weights of {name}: no file of them is known, random ones are used; no accuracies")
    blocks = find_blocks(network.traced, network.input_shape)
    facts = {"weights": "trained" if trained else "random", "image_source": "Imagenette" if real else "synthetic"}
    return Subject(name, settings, network, blocks, fit, held_out), {**facts, "held_out": len(held_out)}


def synthetic(count: int, prepared: Preprocessing, seed: int) -> Tensor:
    """Seeded images of a few large shades with some noise. Shapes: uint8[count, channels, height, width]."""
    draw = torch.Generator().manual_seed(seed)
    shades = torch.rand((count, prepared.channels, 5, 5), generator=draw)
    noise = torch.rand((count, prepared.channels, *prepared.size), generator=draw)
    shaded = interpolate(shades, size=prepared.size, mode="bicubic", align_corners=False).clamp(0, 1)
    return (255 * (0.8 * shaded + 0.2 * noise)).to(torch.uint8)


def student_of(subject: Subject, state: Student) -> fx.GraphModule:
    """The pruned network with these weights."""
    student = drop_blocks(subject.teacher, subject.named(state.dropped))
    load_weights(student, state.weights)
    return student.eval()


def said(what: str) -> None:
    """A line that the session looks for."""
    print(f"skipped: {what}", flush=True)


def tried(what: str, work: Callable[[], Record]) -> tuple[Record | None, Found]:
    """What it gives, or why it gives nothing; that is said."""
    try:
        return work(), {}
    except OutOfTime as error:
        why = {"left_out": str(error)}
        unfinished.append(what)
    except Exception as error:  # the rest goes on
        traceback.print_exc()
        failures.append(what)
        why = {"failed": first_line(error)}
    said(f"{what}: {next(iter(why.values()))}")
    return None, why


@dataclass
class Side:
    """One device in one precision: its stages, each kept once it is done."""

    subject: Subject
    device: torch.device
    dtype: torch.dtype
    run: Run
    clock: Clock
    stages: Found = field(default_factory=dict)
    found: Recoverabilities | None = None
    plan: Plan | None = None
    students: dict[str, Student] = field(default_factory=dict)

    @property
    def calibration(self) -> CalibrationProblem:
        """What is learned from, on the device."""
        return replace(self.subject.calibration(self.subject.pool, 0), comparison_dtype=self.dtype).to(self.device)

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def learn(self, chosen: Blocks | None, steps: int, tell: Callable[[], None]) -> None:
        """All stages. chosen: the set to refit, where another side chose it. tell: is called after each."""
        calibration, blocks = self.calibration, self.subject.candidates
        with contextlib.suppress(RuntimeError, Refusal, OutOfTime):  # the first stage will say the same
            measure_recoverability(
                replace(calibration, images=calibration.images.subsample(16, 0)), blocks[:1], self.clock
            )

        def stage(name: str, kind: type[Record], work: Callable[[], Record], **key: Any) -> Record | None:
            given = self._stage(name, kind, key, work)
            tell()
            return given

        one_site = stage(
            "recoverability", Recoverabilities, lambda: measure_recoverability(calibration, blocks, self.clock)
        )
        if one_site is not None:
            self.found = stage(
                "whole_recovery", Recoverabilities, lambda: rescored(calibration, blocks, one_site, self.clock)
            )
        if (found := self.found) is not None:
            self.plan = stage("choice", Plan, lambda: self._choose(calibration, found), asked=REDUCTION)
        if not (names := chosen or (self.plan.dropped if self.plan else ())):
            return
        gone = self.subject.named(names)
        start = stage("refit", Student, lambda: recover(calibration, gone, self.clock), gone=names)
        if start is not None:
            self.students["refit"] = start
            ended = stage("finetuning", Student, lambda: self._finetune(start, steps), gone=names, steps=steps)
            self.students |= {"finetuning": ended} if ended else {}

    def facts(self) -> Found:
        """For the JSON."""
        return {"device": str(self.device), "precision": self.precision, "stages": self.stages}

    def seconds(self, *names: str) -> float | None:
        """Of these stages together; None where one is missing."""
        took = [self.stages.get(name, {}).get("seconds") for name in names]
        return None if None in took else sum(took)

    def _choose(self, calibration: CalibrationProblem, found: Recoverabilities) -> Plan:
        def verify(names: Blocks) -> Verified:
            return verified_without(calibration, self.subject.named(names), self.clock)

        table = equal_savings(self.subject.candidates)
        return choose_set(table, found, Budget(reduce_percent=REDUCTION), None, verify)

    def _finetune(self, start: Student, steps: int) -> Student:
        schedule = replace(TINY, steps=steps, batch_size=BATCH, dtype=self.dtype)
        pair = self.subject.pair(student_of(self.subject, start), start, self.device)
        return finetune(pair, start, self.subject.pool, schedule, self.clock)

    def _stage(self, name: str, kind: type[Record], key: Found, work: Callable[[], Record]) -> Record | None:
        """What it gives, kept from an earlier time or made now; None where it cannot be made."""
        weights, images = self.subject.network.summary.sha256, self.subject.pool.digest()
        key = {**key, "weights": weights, "images": images, "code": code(), "torch": torch.__version__}
        key |= {"device": name_of(self.device), "threads": torch.get_num_threads()}

        def compute(_: Workspace) -> Record:
            self.clock.advance(0, 1)
            given = work()
            synchronise(self.device)
            return given

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        what = f"{self.subject.name}, {self.device} {self.precision}, {name}"
        given, entry = tried(what, lambda: self.run.step(name, kind, key, compute))
        if given is not None:
            entry["seconds"] = self.run.seconds[name]
            peak = self.run.folder / f"{name}.peak"
            if self.device.type == "cuda" and self.run.decisions[name] != "kept":
                peak.write_text(str(torch.cuda.max_memory_allocated() / 1e9))
            if peak.is_file():
                entry["peak_gpu_memory_gb"] = float(peak.read_text())
            print(f"{what}: {entry['seconds']:.2f} s", flush=True)
        self.stages[name] = entry
        return given


def paper(ours: Side, few: int, chosen: Blocks) -> Found:
    """The paper's scoring of all blocks and its finetuning on the device of a side, multiplied out from a few steps."""
    subject, device, steps = ours.subject, ours.device, 1 + few

    def score(watch: Stopwatch) -> None:
        schedule = Schedule(steps=steps, batch_size=BATCH, dtype=ours.dtype)
        measure_by_adaptors(ours.calibration, subject.candidates, schedule, watch)

    def descend(watch: Stopwatch) -> None:
        start = drop_only(subject.calibration(subject.pool, 0), subject.named(chosen))
        pair = subject.pair(student_of(subject, start), start, device)
        judge, mimicking._validate = mimicking._validate, _judge_nothing  # so few steps would be mostly that
        try:
            schedule = replace(PAPER, steps=steps, batch_size=BATCH, dtype=ours.dtype)
            finetune(pair, start, subject.pool, schedule, watch)
        finally:
            mimicking._validate = judge

    found: Found = {"precision": ours.precision, "steps_measured": few}
    of_ours = {"scoring": ours.seconds(*PLANNING), "finetuning": ours.seconds("finetuning")}
    for name, work, whole in (("scoring", score, OFFICIAL), ("finetuning", descend, PAPER.steps)):
        watch = Stopwatch(ours.clock, device)
        work(watch)
        seconds, took = whole * watch.seconds_a_step(steps), of_ours[name]
        found[name] = {"steps": whole, "seconds": seconds, "over_ours": seconds / took if took else None}
        print(f"{subject.name}, {device} {ours.precision}, the paper's {name}: {seconds:.0f} s", flush=True)
    return found


class Judge:
    """What networks answer on the held-out images, in fp32 on a device, beside the teacher."""

    def __init__(self, subject: Subject, device: torch.device, *, accuracies: bool) -> None:
        self.subject, self.device = subject, device
        self.labels = subject.test.labels if accuracies else None
        self.goal, self.features = self._look(subject.teacher, subject.feature)

    def told(self, first: Student, second: Student) -> Found:
        """Two students of one set: how alike they answer, and how far each is from the network."""
        gone = self.subject.named(first.dropped)
        feature = feature_in(drop_blocks(self.subject.teacher, gone), self.subject.feature, gone)
        looks = [self._look(student_of(self.subject, one), feature) for one in (first, second)]
        (one, _), (other, _) = looks
        found: Found = {
            "same_answers_percent": percent(one == other),
            "answers_of_the_network_percent": [percent(classes == self.goal) for classes, _ in looks],
            "held_out_mse": [float((features - self.features).square().mean()) for _, features in looks],
            "mse": [first.mse, second.mse],
        }
        if first.relative is not None and second.relative is not None:
            found["relative"] = [first.relative, second.relative]
        if self.labels is not None:
            found["top1_percent"] = [percent(classes == self.labels) for classes in (one, other, self.goal)]
        return found

    @torch.no_grad()
    def _look(self, network: fx.GraphModule, feature: str) -> tuple[Tensor, Tensor]:
        network, images, found = network.to(self.device).eval(), self.subject.test, []
        wanted = [logits_of(network), node_by_name(network, feature)]
        for part in batches(len(images), BATCH):
            logits, features = forward(network, images.batch(part).to(self.device), wanted)
            found.append((logits.cpu().argmax(1), features.cpu()))
        network.cpu()
        return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])


def percent(right: Tensor) -> float:
    """The share of what is true."""
    return 100 * float(right.double().mean())


def compared(one: Side, other: Side, judge: Judge) -> Found:
    """How far apart two sides' results are, stage by stage; figures are in the sides' order, then the network's own."""
    found: Found = {}
    if one.found and other.found:
        pairs = [(a.mse.estimate, b.mse.estimate) for a, b in zip(one.found.of, other.found.of, strict=True)]
        found["recoverability"] = {"of": {a.block: pair for a, pair in zip(one.found.of, pairs, strict=True)}}
        ranks = np.array(pairs).argsort(0).argsort(0)
        found["recoverability"]["rank_correlation"] = float(np.corrcoef(ranks.T)[0, 1]) if len(pairs) > 1 else None
        found["recoverability"]["largest_relative_difference"] = max(abs(a - b) / max(a, b, 1e-30) for a, b in pairs)
    if one.plan and other.plan:
        sets = [one.plan.dropped, other.plan.dropped]
        found["choice"] = {"same": set(sets[0]) == set(sets[1]), "sets": sets}
    for name in one.students.keys() & other.students.keys():
        first, second = one.students[name], other.students[name]
        if first.dropped == second.dropped:
            found[name] = judge.told(first, second)
    return found


def measured(name: str, asked: argparse.Namespace, device: torch.device, write: Callable[[Found], None]) -> None:
    """One network; what is found so far is written after every stage."""
    clock = Clock(asked.seconds)
    subject, origin = subject_of(name, asked)
    entry: Found = {
        "commit": code(), "torch": torch.__version__, "device": name_of(device), "cpu": name_of(_CPU),
        "threads": torch.get_num_threads(), "images": len(subject.pool), **origin,
        "blocks": len(subject.candidates), "reduction_percent": REDUCTION, "steps": asked.steps,
    }  # fmt: skip
    sides: dict[str, Side] = {}

    def chosen() -> Blocks | None:
        return next((side.plan.dropped for side in sides.values() if side.plan and side.plan.dropped), None)

    def learn(key: str, where: torch.device, dtype: torch.dtype) -> Side:
        side = Side(subject, where, dtype, Run(asked.kept / name / f"{key}-{where.type}"), clock)
        entry[key] = side.facts()
        with side.run.locked():
            _, why = tried(f"{name}, {key}", lambda: side.learn(chosen(), asked.steps, lambda: write(entry)))
        entry[key] |= why
        sides[key] = side
        return side

    built = learn("there", device, torch.float32)
    if (dtype := pick_precision(None, subject.network.input_shape[-1], device)) != torch.float32:
        built = learn("as_built", device, dtype)
    if (names := chosen()) is not None:
        timed, why = tried(f"{name}, the paper's recipe", lambda: paper(built, asked.paper_steps, names))
        entry["paper"] = timed or why
    here = learn("here", _CPU, torch.float32)
    took = {each: (sides["there"].seconds(each), here.seconds(each)) for each in STAGES}
    entry["seconds_over_the_cpu"] = {each: a / b for each, (a, b) in took.items() if a and b}

    def beside() -> Found:
        judge = Judge(subject, device, accuracies=origin["weights"] == "trained")
        return {key: compared(side, here, judge) for key, side in sides.items() if side is not here}

    found, why = tried(f"{name}, the comparison with the CPU", beside)
    entry["beside_the_cpu"] = found or why
    write(entry)


def synchronise(device: torch.device) -> None:
    """Wait for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def code() -> str | None:
    """The commit; COMMIT names it where there is no clone."""
    return commit() or os.environ.get("COMMIT") or None


def name_of(device: torch.device) -> str:
    """The device's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return describe_cpu({}).name if device.type == "cpu" else f"stand-in, {device.type}"


def parsed() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["efficientnet-lite0", "resnet50"], choices=list(NETWORKS))
    parser.add_argument("--device", default="cuda", help="cuda, cpu, or far (the stand-in of tests/standin)")
    parser.add_argument("--images", type=int, default=IMAGES, help="of the tiny set")
    parser.add_argument("--steps", type=int, default=100, help="of finetuning")
    parser.add_argument("--paper-steps", type=int, default=10, help="steps of the paper's recipe that are timed")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--resnet50", type=Path, default=os.environ.get("RESNET50") or None, help="a state dict")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="for each network; what is left then is skipped"
    )
    parser.add_argument("--kept", type=Path, default=ROOT / "runs" / "gpu-session" / "learning")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_learning.json")
    return parser.parse_args()


def main() -> None:
    """Measure the named networks, and keep the others of the file."""
    asked = parsed()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device; --device cpu measures the CPU against itself")
    lacking = 0
    with contextlib.ExitStack() as held:
        if asked.device == "far":
            sys.path.insert(0, str(ROOT / "tests"))
            from standin.far import there

            device = held.enter_context(there())
        else:
            device = torch.device(asked.device)
        held.enter_context(exact(0))
        kept: Found = json.loads(asked.out.read_text()) if asked.out.is_file() else {"schema": 1, "networks": {}}
        for name in asked.networks:

            def write(entry: Found, name: str = name) -> None:
                kept["networks"][name] = entry
                write_atomically(asked.out, json.dumps(numbers(kept), indent=1) + "\n")

            try:
                measured(name, asked, device, write)
            except Refusal as error:
                said(f"{name}: {error}")
                write({"commit": code(), "left_out": str(error), "remedy": error.remedy})
                lacking = error.exit_code
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")
    sys.exit(lacking or (TIMED_OUT if unfinished else 0))


if __name__ == "__main__":
    main()
