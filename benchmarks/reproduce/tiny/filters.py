"""Filter pruning: the inner widths of residual units, made narrower. Which widths: `narrowing`.

What goes is chosen by torch-pruning's group magnitude (L2, from the weights alone). Only widths within a unit are pruned
(a basic block's first convolution, an inverted residual's expansion), never the residual stream, as is usual in
few-shot filter pruning (FSKD, CD, MiR).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
import torch_pruning as tp
from torch import fx, nn

from practise_deploy.network.tracing.trace import annotate_shapes


def inner_convolutions(network: fx.GraphModule, pattern: str) -> list[str]:
    """The convolutions whose number of outputs may change, in order."""
    targets = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    return [name for name in targets if re.search(pattern, name) and _is_convolution(network, name)]


def _is_convolution(network: fx.GraphModule, name: str) -> bool:
    return isinstance(network.get_submodule(name), nn.Conv2d)


def prune_filters(
    network: fx.GraphModule, inner: Sequence[str], widths: Sequence[int], input_shape: Sequence[int]
) -> fx.GraphModule:
    """A copy with these inner widths; filters of least group magnitude go."""
    pruned = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(pruned, torch.randn(tuple(input_shape)))
    magnitude = tp.importance.GroupMagnitudeImportance(p=2)
    for name, width in zip(inner, widths, strict=True):
        convolution = pruned.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        count = convolution.out_channels
        whole = graph.get_pruning_group(convolution, tp.prune_conv_out_channels, list(range(count)))
        gone = magnitude(whole).argsort()[: count - width].sort().values.tolist()
        if gone:
            graph.get_pruning_group(convolution, tp.prune_conv_out_channels, gone).prune()
    for weight in pruned.parameters():
        weight.grad = None
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    annotate_shapes(pruned, tuple(input_shape))
    return pruned
