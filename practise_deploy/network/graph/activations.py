"""Computing a traced network's activations, all or some of them, from any that are available."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from practise_deploy.network.graph.execution import Env, execute, execute_group, fusion_groups
from practise_deploy.network.graph.operators import is_computed, is_sum, module_of, shape_of
from practise_deploy.network.graph.outputs import outputs_of

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d)
_POOLINGS = {F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.avg_pool2d, torch.mean, torch.amax, "mean", "amax"}


def compute(traced: fx.GraphModule, nodes: Sequence[fx.Node], env: Env, keep: frozenset[str]) -> Env:
    """Compute `nodes` in order from the values in `env`; returns `keep` and frees the rest after their last use."""
    env = dict(env)
    groups = list(fusion_groups(traced, nodes, keep))
    last_use = {used.name: group for group in groups for used in group[0].all_input_nodes}
    for group in groups:
        env[group[-1].name] = execute_group(traced, group, env)
        for used in group[0].all_input_nodes:
            if last_use[used.name] is group and used.name not in keep:
                env.pop(used.name, None)
    return {name: value for name, value in env.items() if name in keep}


def nodes_to_compute(targets: Iterable[fx.Node], available: Iterable[str]) -> list[fx.Node]:
    """The nodes to compute, in order, to get from the available values to the targets."""
    available = set(available)
    needed: set[fx.Node] = set()
    stack = [node for node in targets if node.name not in available]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        stack.extend(n for n in node.all_input_nodes if n.name not in available)
    graph = next(iter(needed)).graph if needed else None
    return [node for node in graph.nodes if node in needed] if graph else []


def input_of(traced: fx.GraphModule) -> fx.Node:
    """The network's input."""
    return next(node for node in traced.graph.nodes if node.op == "placeholder")


def logits_of(traced: fx.GraphModule) -> fx.Node:
    """The network's first output."""
    return outputs_of(traced)[0]


def node_by_name(traced: fx.GraphModule, name: str) -> fx.Node:
    """The node of this name."""
    return next(node for node in traced.graph.nodes if node.name == name)


def downstream(node: fx.Node) -> set[str]:
    """The names of a node and of all that depend on it."""
    seen, stack = {node.name}, [node]
    while stack:
        for user in stack.pop().users:
            if user.name not in seen:
                seen.add(user.name)
                stack.append(user)
    return seen


def forward(traced: fx.GraphModule, images: Tensor, targets: Sequence[fx.Node]) -> tuple[Tensor, ...]:
    """The targets' values for a batch of images; nothing is computed that they do not need.

    Shapes: images [n, channels, height, width].
    """
    return values_of(traced, {input_of(traced).name: images}, targets)


def values_of(traced: fx.GraphModule, known: Env, targets: Sequence[fx.Node]) -> tuple[Tensor, ...]:
    """The targets' values from any that are known."""
    keep = frozenset(node.name for node in targets)
    values = compute(traced, nodes_to_compute(targets, known), known, keep | known.keys())
    return tuple(values[node.name] for node in targets)


def find_feature(traced: fx.GraphModule) -> fx.Node:
    """The feature map before global average pooling, f in the paper (section 3.1).

    Where nothing pools, the input of the last linear layer; where there is none behind the last sum, the states that are pooled to one
    for each sample, else the output itself.
    """
    logits = logits_of(traced)
    for node in _upstream(logits):
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if source is not None and _pools_everything(traced, node, source):
            return source
        if _is_map(node):  # a map of several positions, and nothing pooled it
            break
    pooled: fx.Node | None = None
    for node in _upstream(logits):
        if isinstance(module_of(traced, node), nn.Linear):
            return node.all_input_nodes[0]
        if is_sum(node):  # nothing but norms and pooling behind the last sum: there is no head
            break
        pooled = pooled or _pooled_positions(node)
    return pooled or logits


def _pooled_positions(node: fx.Node) -> fx.Node | None:
    """The states of all positions, where a value is their sum or mean. Shapes: [n, positions, channels] -> [n, channels]."""
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    before, after = shape_of(source) if source is not None else None, shape_of(node)
    if before is None or after is None or len(before) != 3 or len(after) != 2 or before[::2] != after:
        return None
    return source


def _upstream(node: fx.Node) -> Iterator[fx.Node]:
    """From a node back to the input along the first tensor argument."""
    while True:
        yield node
        sources = [n for n in node.all_input_nodes if is_computed(n)]
        if not sources:
            return
        node = sources[0]


def _is_map(node: fx.Node) -> bool:
    shape = shape_of(node)
    return shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1


def _pools_everything(traced: fx.GraphModule, node: fx.Node, source: fx.Node) -> bool:
    """Whether a value holds one number per channel of its source, computed without weights.

    Where the source has a single position, only a pooling operation counts.
    """
    module, before, after = module_of(traced, node), shape_of(source), shape_of(node)
    if isinstance(module, _POOLS):
        return after is None or not _is_map(node)
    if before is None or after is None or len(before) != 4 or before[1:2] != after[1:2] or _is_map(node):
        return False
    if before[2] * before[3] == 1:
        return node.target in _POOLINGS
    return not _has_weights(module, node) and len(after) in (2, 4)


def _has_weights(module: nn.Module | None, node: fx.Node) -> bool:
    of_module = module is not None and next(module.parameters(), None) is not None
    return of_module or any(source.op == "get_attr" for source in node.all_input_nodes[1:])


def batches(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def macs_by_node(traced: fx.GraphModule, images: Tensor) -> dict[str, int]:
    """Multiply-accumulates of every value (half of torch's floating-point operation count). Shapes: images [n, c, h, w]."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    macs: dict[str, int] = {}
    env: Env = {input_of(traced).name: images}
    nodes = nodes_to_compute(outputs_of(traced), env)
    last_use = {used: node for node in nodes for used in node.all_input_nodes}
    trainable = [parameter for parameter in traced.parameters() if parameter.requires_grad]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into the fused attention
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)  # the counter fails on modules whose input is a view of a trainable one
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # some versions do not count the other kernels either
            for node in nodes:
                with FlopCounterMode(display=False) as counter:
                    env[node.name] = execute(traced, node, env)
                macs[node.name] = counter.get_total_flops() // 2
                for used in node.all_input_nodes:
                    if last_use[used] is node:
                        del env[used.name]
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for parameter in trainable:
            parameter.requires_grad_()
    return macs
