"""Feature mimicking: SGD on the squared difference to the teacher's pre-pooling features. No labels (paper, section 3.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from practise_backends.terms import Arrays, Progress
from practise_deploy.errors import InputError
from practise_deploy.model.compute import autocast
from practise_deploy.model.images import FitImages, augmenter, normalise
from practise_deploy.model.surgery import load_weights, weights_of
from practise_deploy.model.values import batches, forward, named
from practise_deploy.store import read_arrays, write_arrays

_SAVE_EVERY_S = 20.0
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How to descend. The defaults are the paper's (section 4): lr x0.1 at 40% of the steps."""

    steps: int
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    decay_at: float = 0.4
    cosine: bool = False
    train_norms: bool = False
    keep_best: bool = False
    seed: int = 0
    dtype: torch.dtype = torch.float32

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.cosine:
            warm = min(1.0, (step + 1) / max(1, self.steps // 20))
            return self.learning_rate * warm * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * step / self.steps))))
        return self.learning_rate * (1.0 if step < self.decay_at * self.steps else 0.1)


@dataclass(slots=True)
class Course:
    """Where a descent stands: enough to go on exactly as if it had not been interrupted."""

    step: int = 0
    best_step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    best: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """A student, its teacher, the values of theirs that should agree, and where they are computed."""

    student: fx.GraphModule
    teacher: fx.GraphModule
    student_feature: str
    teacher_feature: str
    device: torch.device = _CPU
    known: dict[tuple[int, int], tuple[FitImages, list[Tensor]]] = field(default_factory=dict, repr=False)

    def error(self, images: FitImages, size: int) -> float:
        """Mean squared error of the student's features, without augmentation, in eval mode and full precision."""
        self.student.eval()
        student_value, total = named(self.student, self.student_feature), 0.0
        with torch.no_grad():
            for part, wanted in zip(batches(len(images), size), self._wanted(images, size), strict=True):
                (found,) = forward(self.student, images.batch(part).to(self.device), [student_value])
                total += float((wanted - found).float().square().mean()) * len(found)
        return total / len(images)

    def _wanted(self, images: FitImages, size: int) -> list[Tensor]:
        """The teacher's features of these images by batch, computed once."""
        if (id(images), size) not in self.known:
            value = named(self.teacher, self.teacher_feature)
            parts = batches(len(images), size)
            found = [forward(self.teacher, images.batch(part).to(self.device), [value])[0] for part in parts]
            self.known[id(images), size] = (images, found)  # holding the images keeps their id theirs
        return self.known[id(images), size][1]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's and the student's feature maps."""
        with torch.no_grad():
            (wanted,) = forward(self.teacher, x, [named(self.teacher, self.teacher_feature)])
        (found,) = forward(self.student, x, [named(self.student, self.student_feature)])
        return wanted, found


def mimic(
    pair: Pair,
    parameters: Sequence[nn.Parameter],
    images: tuple[FitImages, FitImages],
    schedule: Schedule,
    progress: Progress,
    partial: Path | None = None,
) -> Course:
    """Descend; leaves the student with its last weights, or with `keep_best` with those of least error.

    images: those to learn from, and those to judge with. partial: a file from which an interrupted descent goes on, and into which this one is saved.
    """
    learn, judge = images
    optimiser = torch.optim.SGD(
        parameters, lr=schedule.learning_rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
    )
    course = _resume(pair.student, parameters, optimiser, partial) or _begin(pair, judge, schedule)
    draw = _Draw(learn, schedule)
    every = max(1, schedule.steps // 10)
    saved = time.monotonic()
    while course.step < schedule.steps:
        _descend(pair, optimiser, draw(course.step).to(pair.device), schedule, course.step)
        course.step += 1
        if course.step % every == 0 or course.step == schedule.steps:
            _judge(pair, judge, schedule, course)
        progress.advance(
            course.step, schedule.steps, f"error {course.history[-1][1]:.4g} at step {course.history[-1][0]}"
        )
        if partial is not None and time.monotonic() - saved > _SAVE_EVERY_S:
            _save(pair.student, parameters, optimiser, course, partial)
            saved = time.monotonic()
    if schedule.keep_best and course.best:
        load_weights(pair.student, course.best)
    pair.student.eval()
    return course


class _Draw:
    """The augmented batch of any step, the same whenever it is drawn."""

    def __init__(self, images: FitImages, schedule: Schedule) -> None:
        self.images = images
        self.schedule = schedule
        self.augment = augmenter(images.preprocessing)

    def __call__(self, step: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            pixels = self.images.pixels[self._which(step)]
            torch.manual_seed(self.schedule.seed * 1_000_003 + step + 1)
            varied = torch.stack([self.augment(image) for image in pixels])
        return normalise(varied, self.images.preprocessing).contiguous(memory_format=torch.channels_last)

    def _which(self, step: int) -> Tensor:
        """Whole passes in fresh orders, cut into batches; a batch may span passes."""
        size, count = self.schedule.batch_size, len(self.images)
        first = step * size
        passes = range(first // count, (first + size - 1) // count + 1)
        orders = [
            torch.randperm(count, generator=torch.Generator().manual_seed(self.schedule.seed * 7919 + n))
            for n in passes
        ]
        return torch.cat(orders)[first % count : first % count + size]


def _descend(pair: Pair, optimiser: torch.optim.Optimizer, x: Tensor, schedule: Schedule, step: int) -> None:
    pair.student.train(schedule.train_norms)
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate(step)
    with autocast(pair.device, schedule.dtype):
        wanted, found = pair.features(x)
    loss = nn.functional.mse_loss(found.float(), wanted.float())
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _begin(pair: Pair, judge: FitImages, schedule: Schedule) -> Course:
    course = Course()
    _judge(pair, judge, schedule, course)
    return course


def _judge(pair: Pair, judge: FitImages, schedule: Schedule, course: Course) -> None:
    error = pair.error(judge, schedule.batch_size)
    if not math.isfinite(error) and not schedule.keep_best:
        raise InputError(
            f"the descent diverged: after {course.step} steps the student's features are no numbers",
            remedy=f"try a rate below {schedule.learning_rate:g} with --learning-rate",
        )
    if not course.history or error < min(e for _, e in course.history):
        course.best_step = course.step
        course.best = weights_of(pair.student) if schedule.keep_best else {}
    course.history.append((course.step, error))


def _save(
    student: fx.GraphModule,
    parameters: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    course: Course,
    path: Path,
) -> None:
    arrays: Arrays = {f"now/{name}": value for name, value in weights_of(student).items()}
    arrays |= {f"best/{name}": value for name, value in course.best.items()}
    for number, parameter in enumerate(parameters):
        buffer = optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            arrays[f"momentum/{number}"] = buffer.detach().cpu().numpy()
    arrays["steps"] = torch.tensor([course.step, course.best_step]).numpy()
    arrays["history"] = torch.tensor(course.history, dtype=torch.float64).numpy()
    write_arrays(path, arrays)


def _resume(
    student: fx.GraphModule,
    parameters: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    path: Path | None,
) -> Course | None:
    if path is None or not path.is_file():
        return None
    arrays = read_arrays(path)

    def group(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    load_weights(student, group("now/"))
    for number, parameter in enumerate(parameters):
        if f"momentum/{number}" in arrays:
            buffer = torch.from_numpy(arrays[f"momentum/{number}"]).to(parameter)
            optimiser.state[parameter]["momentum_buffer"] = buffer.contiguous(memory_format=torch.preserve_format)
    history = [(int(step), float(error)) for step, error in arrays["history"]]
    return Course(int(arrays["steps"][0]), int(arrays["steps"][1]), history, group("best/"))


def feature_in(student: fx.GraphModule, feature: str, cuts: dict[str, str]) -> str:
    """The student's name for the teacher's feature map: a dropped last block's entry stands for its exit."""
    if any(node.name == feature for node in student.graph.nodes):
        return feature
    return next(entry for entry, exit_ in cuts.items() if exit_ == feature)
