"""Residual units in the many forms that they are written in, and networks of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth, stochastic_depth

from practise_deploy.terms import Block

SHAPE = (1, 3, 8, 8)
Meeting = Callable[["Residual", Tensor], Tensor]


class Residual(nn.Module):
    """A unit of two branches at most, with what the forms multiply them by."""

    def __init__(self, meeting: Meeting, width: int = 6) -> None:
        super().__init__()
        self.meeting = meeting
        self.f, self.g = _branch(width), _branch(width)
        self.norm, self.drop, self.depth = nn.GroupNorm(2, width), nn.Dropout(0.3), StochasticDepth(0.2, "row")
        self.skipped, self.times, self.project = Skipped(), Times(0.6), nn.Conv2d(3 * width, width, 1)
        self.gain, self.weight = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor([0.4, 0.9]))
        self.gamma = nn.Parameter(torch.empty(width, 1, 1).uniform_(0.5, 1.5))
        self.register_buffer("constant", torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.meeting(self, x)


class Skipped(nn.Module):
    """Stochastic depth, written by hand and named at will."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x / 0.8 * (torch.rand(x.shape[0], 1, 1, 1) < 0.8)


class Times(nn.Module):
    """A product in a module."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _branch(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, width, 1))


def _in_place(u: Residual, x: Tensor) -> Tensor:
    x += u.f(x)
    return x


def _scaled_in_place(u: Residual, x: Tensor) -> Tensor:
    y = u.f(x)
    y *= 0.5
    y /= 0.8
    y += x
    return y


def _out(u: Residual, x: Tensor) -> Tensor:
    total = torch.empty_like(x)
    torch.add(x, u.f(x), out=total)
    return total


def _normaliser_free(u: Residual, x: Tensor) -> Tensor:
    """As NFNets have it: beta on the branch's input, alpha and a learned gain on its output."""
    return u.f(F.relu(x) * 0.8).mul_(u.gain) * 0.2 + x


def _side_by_side(u: Residual, x: Tensor) -> Tensor:
    n = u.norm(x)
    return x + u.f(n) + u.g(n)


def _side_by_side_first(u: Residual, x: Tensor) -> Tensor:
    n = u.norm(x)
    return u.f(n) + u.g(n) + x


def _c2f(u: Residual, x: Tensor) -> Tensor:
    """As YOLOv8 has it: every unit's result is read by the next one and by what joins all of them."""
    y = x + u.f(x)
    return u.project(torch.cat([x, y, y + u.g(y)], 1))


def _c3(u: Residual, x: Tensor) -> Tensor:
    """As YOLOv5 has it: units one after another beside a path that goes around them."""
    y = x + u.f(x)
    return u.project(torch.cat([y + u.g(y), x.relu(), x], 1))


ONE: dict[str, Meeting] = {
    "sum": lambda u, x: x + u.f(x),
    "factor": lambda u, x: x + 0.1 * u.f(x),
    "alpha": lambda u, x: torch.add(x, u.f(x), alpha=0.2),
    "by name": lambda u, x: torch.add(input=x, other=u.f(x), alpha=2),
    "difference": lambda u, x: x - u.f(x),
    "difference behind a rectifier": lambda u, x: x - u.f(x).relu(),
    "difference with alpha": lambda u, x: torch.sub(x, u.f(x), alpha=0.5),
    "reversed difference": lambda u, x: torch.rsub(u.f(x), x),
    "reversed difference with alpha": lambda u, x: torch.rsub(u.f(x), x, alpha=0.5),
    "quotient": lambda u, x: x + u.f(x) / 2,
    "methods": lambda u, x: u.f(x).mul(0.3).add(x),
    "negative": lambda u, x: x + (-u.f(x)),
    "in place": _in_place,
    "scaled in place": _scaled_in_place,
    "add_": lambda u, x: x.add_(u.f(x), alpha=0.5),
    "sub_": lambda u, x: x.sub_(u.f(x)),
    "out": _out,
    "Python's sum": lambda u, x: sum([x, u.f(x)]),
    "buffer": lambda u, x: x + u.constant * u.f(x),
    "buffer divides": lambda u, x: u.f(x) / u.constant.view(1, 1, 1, 1) + x,
    "learned gain": lambda u, x: x + u.gain * u.f(x),
    "learned gain of one element": lambda u, x: x + u.f(x) * u.gain.view(1, 1, 1, 1),
    "LayerScale": lambda u, x: x + u.gamma * u.f(x),
    "LayerScale and a factor": lambda u, x: x + 0.5 * (u.gamma * u.f(x)),
    "normaliser-free": _normaliser_free,
    "dropout": lambda u, x: x + u.drop(u.f(x)),
    "functional dropout": lambda u, x: x + F.dropout(u.f(x), 0.3, u.training),
    "stochastic depth": lambda u, x: x + u.depth(u.f(x)),
    "functional stochastic depth": lambda u, x: x + stochastic_depth(u.f(x), 0.3, "row", u.training),
    "stochastic depth by hand": lambda u, x: x + u.skipped(u.f(x)),
    "scaled skip": lambda u, x: 0.5 * x + u.f(x),
    "factors in modules": lambda u, x: u.times(u.f(x)) + u.times(x),
    "scaled skip behind": lambda u, x: u.f(x) + x / 2,
    "scaled skip with alpha": lambda u, x: torch.add(u.f(x), x, alpha=0.5),
    "negative skip": lambda u, x: u.f(x) + -x,
    "learned skip": lambda u, x: u.gain * x + u.f(x),
    "learned skip of every channel": lambda u, x: u.gamma * x + u.f(x),
    "scaled sum": lambda u, x: (x + u.f(x)) / math.sqrt(2),
    "sum scaled by a tensor": lambda u, x: (x + u.f(x)) / torch.sqrt(torch.tensor(2.0)),
    "sum scaled by a buffer": lambda u, x: (x - u.f(x)) * u.constant,
    "convex": lambda u, x: 0.7 * x + 0.3 * u.f(x),
    "rectified": lambda u, x: (x.relu() + u.f(x.relu())).relu(),
}
"""Forms with one branch, and so one unit."""
TWO: dict[str, Meeting] = {
    "three terms": lambda u, x: x + u.f(x) + u.g(x),
    "three terms, one subtracted": lambda u, x: x - u.f(x) + 0.5 * u.g(x),
    "three terms of Python's sum": lambda u, x: sum((x, u.f(x), u.g(x))),
    "skip last": lambda u, x: u.f(x) + u.g(x) + x,
    "skip first": lambda u, x: x + (u.f(x) + u.g(x)),
    "scaled skip": lambda u, x: 0.5 * x + u.f(x) + u.g(x),
    "scaled partial sum": lambda u, x: 0.5 * (x + u.f(x)) + u.g(x),
    "shared norm": _side_by_side,
    "shared norm, skip last": _side_by_side_first,
    "C2f": _c2f,
    "C3": _c3,
    "one after another": lambda u, x: (y := x + u.f(x)) + u.g(y),
}
"""Forms with two branches, and so two units."""
FORMS = {**ONE, **{f"two: {name}": form for name, form in TWO.items()}}


class Units(nn.Module):
    """A stem, units in these forms and a head. Shapes: float[n, 3, 8, 8] in, float[n, 4] out."""

    def __init__(self, *forms: str | Meeting) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(FORMS[form] if isinstance(form, str) else form) for form in forms))
        self.head, self.fc = nn.Conv2d(6, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.blocks(self.stem(x))).relu().mean((2, 3)))


def units(*forms: str | Meeting) -> Units:
    """Such a network, always the same, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Units(*forms).eval()


def without_branches(module: nn.Module, traced: fx.GraphModule, student: fx.GraphModule) -> nn.Module:
    """The network that was traced, with zeros for all weights that are gone from the student: its branches give nothing."""
    zeroed, gone = (
        copy.deepcopy(module),
        dict(traced.named_parameters()).keys() - dict(student.named_parameters()).keys(),
    )
    with torch.no_grad():
        for name in gone:
            zeroed.get_parameter(name).zero_()
    return zeroed


def outputs(network: nn.Module, shape: Sequence[int] = SHAPE) -> Tensor:
    """What a network makes of two images of noise."""
    x = torch.randn((2, *shape[1:]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(x)


def droppable_of(blocks: Sequence[Block]) -> list[Block]:
    """The blocks that can be dropped."""
    return [block for block in blocks if block.droppable]


def onnx_output(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of a network's input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": x})[0]
