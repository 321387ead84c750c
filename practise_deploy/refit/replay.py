"""Replaying only the part of a network behind a change, from values that are known."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from practise_deploy.compute import autocast
from practise_deploy.images.calibration import End
from practise_deploy.network.graph.activations import downstream, node_by_name
from practise_deploy.network.graph.execution import Env
from practise_deploy.refit.affine import applied
from practise_deploy.refit.criterion import Ends, end_of
from practise_deploy.refit.writers import ReconstructionPoint


def changed(point: ReconstructionPoint, change: Tensor, env: Env, dtype: torch.dtype) -> Tensor:
    """A point's value after a change of its writers' folded weights. Shapes: change [d + 1, outputs]."""
    value = env[point.value.name]
    total, begin = change[-1].view([-1 if axis == point.axis else 1 for axis in range(value.ndim)]), 0
    with autocast(change.device, dtype):
        # the operators are linear: what a change of weights adds to the sum is what the change alone would give
        for writer in point.writers:
            rows = change[begin : (begin := begin + writer.fan_in)]
            output = applied(writer.layer, rows.T.reshape(writer.layer.weight.shape), env[writer.source.name])
            total = total + writer.from_operator.moved(output)
    return value + total


def read_by_replay(network: fx.GraphModule, name: str) -> set[str]:
    """The values beside the changed one that a replay from it reads."""
    affected = downstream(node_by_name(network, name))
    behind = (node for node in network.graph.nodes if node.name in affected and node.name != name)
    return {source.name for node in behind for source in node.all_input_nodes} - affected


def replay(network: fx.GraphModule, env: Env, name: str, value: Tensor, end: End) -> Ends:
    """The network's ends when one value is another. env: known values, also of the part that changes.

    Shapes: value like the value that it takes the place of.
    """
    alive = {node.name for node in network.graph.nodes}
    affected = downstream(node_by_name(network, name))
    values: Env = {
        node_name: node_value
        for node_name, node_value in env.items()
        if node_name in alive and node_name not in affected
    }
    values[name] = value
    return end_of(network, values, end)
