"""The features of networks with several heads: what all heads read, as one value, so that a student is compared by all of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from practise_deploy.network.activations import find_feature, forward
from practise_deploy.network.operators import is_computed, module_of
from practise_deploy.network.outputs import outputs_of

_SCALES = "feature_scales"
_LEAST_VARIANCE = 1e-12


@torch.fx.has_side_effect
def joined_features(scales: Tensor, *features: Tensor) -> Tensor:
    """The features of all heads, scaled, one after another; no output depends on it, and it stays all the same.

    Shapes: scales [heads], features [n, ...] each -> [n, numbers].
    """
    return torch.cat([(each * scale).flatten(1) for each, scale in zip(features, scales, strict=True)], 1)


def feature_of(traced: fx.GraphModule) -> fx.Node:
    """The features that a student is compared by, once `join_heads` has seen to it that they are one value."""
    joined = next((node for node in traced.graph.nodes if node.target is joined_features), None)
    return joined or _head_inputs(traced)[0]


def join_heads(traced: fx.GraphModule) -> None:
    """Where a network has several heads, add their inputs to its graph as one value."""
    heads = _head_inputs(traced)
    if len(heads) == 1:
        return
    traced.register_buffer(_SCALES, torch.ones(len(heads)))
    last = max(heads, key=list(traced.graph.nodes).index)
    with traced.graph.inserting_after(last):
        scales = traced.graph.get_attr(_SCALES)
    with traced.graph.inserting_after(scales):
        traced.graph.call_function(joined_features, (scales, *heads))
    traced.recompile()


def has_heads(traced: fx.GraphModule) -> bool:
    """Whether the inputs of several heads are joined in a graph."""
    return any(node.target is joined_features for node in traced.graph.nodes)


def ends_of(traced: fx.GraphModule) -> set[fx.Node]:
    """What a network is computed for: its outputs, and the joined inputs of its heads."""
    joined = (node for node in traced.graph.nodes if node.target is joined_features)
    return {*outputs_of(traced), *joined}


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
    """What the last layers with weights before the outputs read; the one feature map before pooling where a network has that."""
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
        else:
            stack += sources
    heads = [node for node in traced.graph.nodes if node in found]
    return heads or [feature]


def _is_head(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is what a layer that mixes channels gives."""
    module = module_of(traced, node)
    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and getattr(module, "groups", 1) == 1
