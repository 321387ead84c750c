"""How much the features depend on each position of earlier values: a random probe of the Jacobian."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from practise_deploy.network.graph.activations import compute, node_by_name, nodes_to_compute
from practise_deploy.network.graph.execution import Env


def sensitivities(
    teacher: fx.GraphModule, feature: str, values: Mapping[fx.Node, int], prefix: Env, seed: int
) -> tuple[Env, Env]:
    """The values, and their positions' weights: the squared norm over channels of v'J for one random v, mean 1 each.

    values: with the axis of the channels of each. prefix: values to compute them from. J: Jacobian of the features with
    respect to the value (Hutchinson's probe). Shapes: weights as the value, of one channel.
    """
    end = node_by_name(teacher, feature)
    keep = frozenset([end.name, *(node.name for node in values)])
    with torch.enable_grad():
        starts = {name: _differentiable(value) for name, value in prefix.items()}
        env = compute(teacher, nodes_to_compute([end, *values], starts), starts, keep)
        generator = torch.Generator().manual_seed(seed)
        probe = torch.randn(env[end.name].shape, generator=generator, dtype=env[end.name].dtype)
        # v' J by one backward pass; over random v the square of an entry is the squared length of J's column
        ends, begins = env[end.name], [env[node.name] for node in values]
        slopes = torch.autograd.grad(ends, begins, probe.to(ends.device), allow_unused=True)
    weights: Env = {}
    for (node, axis), slope in zip(values.items(), slopes, strict=True):
        value = env[node.name]
        alike = torch.ones_like(value.narrow(axis, 0, 1))
        squared = alike if slope is None else slope.square().sum(axis, keepdim=True)
        weights[node.name] = squared / squared.mean().clamp_min(1e-30)
    return {node.name: env[node.name].detach() for node in values}, weights


def _differentiable(value: Tensor) -> Tensor:
    """The same with a gradient, so that all that is computed of it has one, whatever the weights say."""
    counts = isinstance(value, Tensor) and value.is_floating_point()  # a batch size is none
    return value.detach().requires_grad_(True) if counts else value
