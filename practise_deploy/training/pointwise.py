"""1x1 convolutions without bias in a network's graph: put in, multiplied into their neighbours, taken out again.

Next to a convolution it is linear after linear: W' = A W behind it, W' = W A in front of it, whatever its kernel,
stride and zero padding. Products are in fp64.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn


class Pointwise(nn.Conv2d):
    """x -> A x at every position. Shapes: matrix [outputs, inputs]."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix.shape[1], matrix.shape[0], 1, bias=False, device="meta")
        self.weight = nn.Parameter(matrix[:, :, None, None].clone())

    @property
    def matrix(self) -> Tensor:
        """A in fp64. Shapes: [outputs, inputs]."""
        return self.weight.detach().double()[:, :, 0, 0]


def put_behind(
    network: fx.GraphModule, name: str, module: Pointwise, value: fx.Node, reader: fx.Node | None = None
) -> fx.Node:
    """Put a 1x1 convolution behind a value, for all that use it or for one reader alone."""
    network.add_submodule(name, module)
    with network.graph.inserting_after(value):
        node = network.graph.call_module(name, (value,))
    node.meta = dict(value.meta)
    value.replace_all_uses_with(node, lambda user: user is not node and reader in (None, user))
    network.recompile()
    return node


def take_out(network: fx.GraphModule, node: fx.Node) -> None:
    """Take a 1x1 convolution out; what used it uses its input."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    network.graph.erase_node(node)
    network.delete_submodule(str(node.target))
    network.recompile()


def multiply_behind(operator: nn.Conv2d | nn.Linear, matrix: Tensor) -> None:
    """W' = A W, b' = A b. Shapes: matrix [outputs, outputs]."""
    with torch.no_grad():
        operator.weight.copy_(torch.einsum("ab,b...->a...", matrix, operator.weight.double()))
        if operator.bias is not None:
            operator.bias.copy_(matrix @ operator.bias.double())


def multiply_before(convolution: nn.Conv2d, matrix: Tensor) -> None:
    """W' = W A. Shapes: matrix [inputs, inputs]."""
    with torch.no_grad():
        convolution.weight.copy_(torch.einsum("abij,bc->acij", convolution.weight.double(), matrix))
