"""What a value of a traced network is: a sum, a rectifier's output."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from practise_deploy.model.trace import module_of, shape_of

_ADDITIONS = {operator.add, torch.add, torch.ops.aten.add.Tensor}
_RELUS = {torch.relu, nn.functional.relu, nn.functional.relu6, torch.ops.aten.relu.default}


def is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is the ReLU or ReLU6 of another."""
    if isinstance(module_of(traced, node), (nn.ReLU, nn.ReLU6)):
        return True
    return node.target in _RELUS or (node.op == "call_method" and node.target == "relu")


def is_relu6(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is the ReLU6 of another."""
    return isinstance(module_of(traced, node), nn.ReLU6) or node.target is nn.functional.relu6


def is_addition(node: fx.Node) -> bool:
    """Whether a value is the sum of two computed values of one shape."""
    if node.target not in _ADDITIONS and not (node.op == "call_method" and node.target == "add"):
        return False
    sources = [n for n in node.args if isinstance(n, fx.Node) and n.op != "get_attr"]
    shapes = {shape_of(n) for n in sources}
    return len(sources) == 2 and len(shapes) == 1 and None not in shapes and len(shapes.pop() or ()) >= 3
