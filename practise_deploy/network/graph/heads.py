"""The features that a student is compared by: what all heads read, as one value, and nothing of what is padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from practise_deploy.network.graph.activations import find_feature, forward, nodes_to_compute
from practise_deploy.network.graph.operators import is_computed, is_sum, module_of, shape_of
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.network.graph.packing import mask_place, unpack
from practise_deploy.terms import InputSpec

_SCALES = "feature_scales"
_LEAST_VARIANCE = 1e-12


@torch.fx.has_side_effect
def joined_features(scales: Tensor, *features: Tensor) -> Tensor:
    """The features of all heads, scaled, one after another; no output depends on it, and it stays all the same.

    Shapes: scales [heads], features [n, ...] each -> [n, numbers].
    """
    return torch.cat([(each * scale).flatten(1) for each, scale in zip(features, scales, strict=True)], 1)


@torch.fx.has_side_effect
def counted_features(features: Tensor, mask: Tensor) -> Tensor:
    """The features of the positions that count, zero where there is padding; no output depends on it, as above.

    Shapes: features [n, positions, channels], mask [n, positions].
    """
    return features * (mask > 0).to(features.dtype).unsqueeze(-1)


def feature_of(traced: fx.GraphModule) -> fx.Node:
    """The features that a student is compared by, once `join_heads` has seen to it that they are one value."""
    added = [node for node in traced.graph.nodes if node.target in (joined_features, counted_features)]
    return added[-1] if added else _head_inputs(traced)[0]


def mask_of(traced: fx.GraphModule) -> fx.Node | None:
    """The value that says which positions count; None where all do. Shapes: [n, positions]."""
    counted = next((node for node in traced.graph.nodes if node.target is counted_features), None)
    return counted.all_input_nodes[1] if counted is not None else None


def join_heads(traced: fx.GraphModule, inputs: Sequence[InputSpec] = ()) -> None:
    """Leave padding out of what the heads read, and where there are several heads, add their inputs to the graph as one value.

    inputs: of a network that takes no images.
    """
    heads = [_without_padding(traced, head, inputs) for head in _head_inputs(traced)]
    traced.recompile()
    if len(heads) == 1:
        return
    traced.register_buffer(_SCALES, torch.ones(len(heads)))
    last = max(heads, key=list(traced.graph.nodes).index)
    with traced.graph.inserting_after(last):
        scales = traced.graph.get_attr(_SCALES)
    with traced.graph.inserting_after(scales):
        traced.graph.call_function(joined_features, (scales, *heads))
    traced.recompile()


def _without_padding(traced: fx.GraphModule, head: fx.Node, inputs: Sequence[InputSpec]) -> fx.Node:
    """A head's input without padding, where it has the positions of the mask; itself else."""
    place, shape = mask_place(inputs), shape_of(head)
    masks = [node for node in traced.graph.nodes if node.target is unpack and slice(*node.args[1:3]) == place]
    if place is None or not masks or shape is None or len(shape) != 3 or shape[1] != place.stop - place.start:
        return head
    nodes = list(traced.graph.nodes)
    with traced.graph.inserting_after(max(head, masks[0], key=nodes.index)):
        return traced.graph.call_function(counted_features, (head, masks[0]))


def has_heads(traced: fx.GraphModule) -> bool:
    """Whether the inputs of several heads are joined in a graph."""
    return any(node.target is joined_features for node in traced.graph.nodes)


def ends_of(traced: fx.GraphModule) -> set[fx.Node]:
    """What a network is computed for: its outputs, and what was added of the inputs of its heads."""
    added = (node for node in traced.graph.nodes if node.target in (joined_features, counted_features))
    return {*outputs_of(traced), *added}


def scale_heads(traced: fx.GraphModule, images: Tensor) -> None:
    """Set the scales so that every head's error counts relative to the variance of its features, and all heads alike.

    Shapes: images [n, channels, height, width].
    """
    joined = next((node for node in traced.graph.nodes if node.target is joined_features), None)
    if joined is None:
        return
    heads = joined.all_input_nodes[1:]
    with torch.no_grad():
        features = forward(traced, images, heads)
    sizes = [math.prod(each.shape[1:]) for each in features]
    # with d_k numbers of variance v_k in head k of K, and D in all, s_k^2 = D / (K d_k v_k) makes the mean squared
    # difference of what is joined the mean over heads of their relative errors
    scales = [
        math.sqrt(sum(sizes) / (len(sizes) * size * max(float(each.float().var()), _LEAST_VARIANCE)))
        for size, each in zip(sizes, features, strict=True)
    ]
    traced.get_buffer(_SCALES).copy_(torch.tensor(scales))


def _head_inputs(traced: fx.GraphModule) -> list[fx.Node]:
    """What the last layers with weights before the outputs read, or the last residual sum where none is behind it.

    The one feature map before pooling where a network has that.
    """
    outputs = outputs_of(traced)
    feature = find_feature(traced)
    if len(outputs) == 1 and feature is not outputs[0]:
        return [feature]
    found, seen, stack = set[fx.Node](), set[fx.Node](), list(outputs)
    while stack:
        node = stack.pop()
        if node in seen or node.op == "placeholder":
            continue
        seen.add(node)
        sources = [source for source in node.all_input_nodes if is_computed(source) and source.op != "get_attr"]
        if _is_head(traced, node):
            found.update(sources[:1])
        elif _is_residual(node):
            found.add(node)
        else:
            stack += sources
    heads = [node for node in traced.graph.nodes if node in found]
    return heads or [feature]


def _is_head(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is what a layer that mixes channels gives."""
    module = module_of(traced, node)
    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and getattr(module, "groups", 1) == 1


def _is_residual(node: fx.Node) -> bool:
    """Whether a value is x + f(x)."""
    sources = [source for source in node.all_input_nodes if is_computed(source)]
    if not is_sum(node) or len(sources) != 2:
        return False
    first, second = sources
    return first in nodes_to_compute([second], ()) or second in nodes_to_compute([first], ())
