"""Checkpoints of training, from which an interrupted run resumes with the same result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from practise_backends.terms import Arrays
from practise_deploy.network.graph.surgery import load_weights, weights_of
from practise_deploy.run import read_arrays, write_arrays


@dataclass(slots=True)
class TrainingLog:
    """Steps done, validation errors by step, notes for the user, and restarts at a lower rate."""

    step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a step changes: the student, its trainable parameters, the optimiser's state, the average of the weights."""

    student: fx.GraphModule
    parameters: Sequence[nn.Parameter]
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None = None

    @property
    def evaluated(self) -> fx.GraphModule:
        """The network that is validated and kept: the average of the weights, once there is one."""
        if self.average is None or not int(self.average.n_averaged):
            return self.student
        assert isinstance(self.average.module, fx.GraphModule)
        return self.average.module

    def save(self, log: TrainingLog, path: Path) -> None:
        """Write everything that `resume` needs, atomically."""
        arrays: Arrays = {f"now/{name}": value for name, value in weights_of(self.student).items()}
        if self.average is not None:
            arrays |= {f"average/{name}": value for name, value in weights_of(self.average).items()}
        for index, parameter in enumerate(self.parameters):
            for key, value in self.optimiser.state[parameter].items():
                if isinstance(value, Tensor):
                    arrays[f"memory/{index}/{key}"] = value.detach().cpu().numpy()
        arrays["steps"] = torch.tensor([log.step, log.restarts]).numpy()
        arrays["notes"] = np.array(log.notes, dtype=np.str_)
        arrays["history"] = torch.tensor(log.history, dtype=torch.float64).numpy()
        write_arrays(path, arrays)

    def resume(self, path: Path) -> TrainingLog:
        """Restore the state at `save`; nothing changes where the file cannot be read (`UNREADABLE`)."""
        arrays = read_arrays(path)
        steps, history = arrays["steps"], [(int(step), float(error)) for step, error in arrays["history"]]

        def group(prefix: str) -> Arrays:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        load_weights(self.student, group("now/"))
        if self.average is not None:
            load_weights(self.average, group("average/"))
        for index, parameter in enumerate(self.parameters):
            for key, value in group(f"memory/{index}/").items():
                self.optimiser.state[parameter][key] = _like(torch.from_numpy(value.copy()), parameter)
        notes = tuple(str(note) for note in arrays["notes"])
        return TrainingLog(int(steps[0]), history, notes, int(steps[1]))


def moving_average(student: fx.GraphModule, decay: float) -> AveragedModel:
    """The exponential moving average of a student's weights, with a warm-up of its decay.

    The decay is (1 + t) / (10 + t) at step t, until that exceeds `decay`.
    """

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        rate = 1 - min(decay, (2 + int(steps)) / (11 + int(steps)))  # `steps` were averaged before this one
        with torch.no_grad():
            for average, value in zip(averages, weights, strict=True):
                if average.is_floating_point():
                    average.lerp_(value, rate)
                else:
                    average.copy_(value)

    return AveragedModel(student, multi_avg_fn=update, use_buffers=True)


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A saved array in its parameter's device and memory format; a step counter, of another shape, stays on the CPU."""
    if value.shape != parameter.shape:
        return value
    like = torch.empty_like(parameter, memory_format=torch.preserve_format)
    return like.copy_(value).detach()
