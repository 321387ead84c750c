"""Where a descent stands, kept in a file so that an interrupted one goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from practise_backends.terms import Arrays
from practise_deploy.network.surgery import load_weights, weights_of
from practise_deploy.run import read_arrays, write_arrays


@dataclass(slots=True)
class Course:
    """Steps done, the judged errors by step, the weights of least error, where kept, how often the rate was lowered, and what
    the user should know.
    """

    step: int = 0
    best_step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    best: Arrays = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    retreats: int = 0


@dataclass(frozen=True, slots=True)
class Descent:
    """What a step changes: the student, the parameters that learn, the optimiser's memory, the average of the weights."""

    student: fx.GraphModule
    parameters: Sequence[nn.Parameter]
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None = None

    @property
    def judged(self) -> fx.GraphModule:
        """The network that is judged and kept: the average of the weights, once there is one."""
        if self.average is None or not int(self.average.n_averaged):
            return self.student
        assert isinstance(self.average.module, fx.GraphModule)
        return self.average.module

    def save(self, course: Course, path: Path) -> None:
        """Everything that `resume` needs, written atomically."""
        arrays: Arrays = {f"now/{name}": value for name, value in weights_of(self.student).items()}
        arrays |= {f"best/{name}": value for name, value in course.best.items()}
        if self.average is not None:
            arrays |= {f"average/{name}": value for name, value in weights_of(self.average).items()}
        for number, parameter in enumerate(self.parameters):
            for key, value in self.optimiser.state[parameter].items():
                if isinstance(value, Tensor):
                    arrays[f"memory/{number}/{key}"] = value.detach().cpu().numpy()
        arrays["steps"] = torch.tensor([course.step, course.best_step, course.retreats]).numpy()
        arrays["notes"] = np.array(course.notes, dtype=np.str_)
        arrays["history"] = torch.tensor(course.history, dtype=torch.float64).numpy()
        write_arrays(path, arrays)

    def resume(self, path: Path) -> Course:
        """Back to where `save` was called; nothing is changed where the file cannot be read (`UNREADABLE`)."""
        arrays = read_arrays(path)
        steps, history = arrays["steps"], [(int(step), float(error)) for step, error in arrays["history"]]

        def group(prefix: str) -> Arrays:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        load_weights(self.student, group("now/"))
        if self.average is not None:
            load_weights(self.average, group("average/"))
        for number, parameter in enumerate(self.parameters):
            for key, value in group(f"memory/{number}/").items():
                self.optimiser.state[parameter][key] = _like(torch.from_numpy(value.copy()), parameter)
        notes = tuple(str(note) for note in arrays["notes"])
        return Course(int(steps[0]), int(steps[1]), history, group("best/"), notes, int(steps[2]))


def moving_average(student: fx.GraphModule, decay: float) -> AveragedModel:
    """The exponential moving average of a student's weights; its first steps count little.

    Its decay is (1 + t) / (10 + t) at step t, until that exceeds `decay`.
    """

    def follow(averages: Sequence[Tensor], now: Sequence[Tensor], steps: Tensor | int) -> None:
        share = 1 - min(decay, (2 + int(steps)) / (11 + int(steps)))  # `steps` were averaged before this one
        with torch.no_grad():
            for average, value in zip(averages, now, strict=True):
                if average.is_floating_point():
                    average.lerp_(value, share)
                else:
                    average.copy_(value)

    return AveragedModel(student, multi_avg_fn=follow, use_buffers=True)


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A remembered array as the optimiser holds it; its count of steps stays on the CPU."""
    if value.shape != parameter.shape:
        return value
    laid_out = torch.empty_like(parameter, memory_format=torch.preserve_format)
    return laid_out.copy_(value).detach()
