"""How much the features depend on each position of earlier values: a random probe of the Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from practise_deploy.model.values import Env, compute, input_of, named, order_of


def sensitivities(
    teacher: fx.GraphModule, feature: str, values: Sequence[fx.Node], x: Tensor, seed: int
) -> tuple[Env, Env]:
    """The values, and their positions' weights: the squared norm over channels of v'J for one random v, mean 1 each.

    J: Jacobian of the features with respect to the value. Shapes: weights [n, 1, height, width] (Hutchinson's probe).
    """
    end = named(teacher, feature)
    start = input_of(teacher).name
    keep = frozenset([end.name, *(node.name for node in values)])
    with torch.enable_grad():
        image = x.detach().requires_grad_(True)  # so that every value has a gradient, whatever the weights say
        env = compute(teacher, order_of([end, *values], {start}), {start: image}, keep)
        generator = torch.Generator().manual_seed(seed)
        probe = torch.randn(env[end.name].shape, generator=generator, dtype=env[end.name].dtype)
        nodes = list(dict.fromkeys(values))
        ends, begins = env[end.name], [env[node.name] for node in nodes]
        slopes = torch.autograd.grad(ends, begins, probe.to(ends.device), allow_unused=True)
    weights: Env = {}
    for node, slope in zip(nodes, slopes, strict=True):
        value = env[node.name]
        squared = torch.ones_like(value[:, :1]) if slope is None else slope.square().sum(1, keepdim=True)
        weights[node.name] = squared / squared.mean().clamp_min(1e-30)
    return {node.name: env[node.name].detach() for node in nodes}, weights
