"""Executing a traced network's operations: one by one, or fused where the values between them are not needed.

On a CPU a normalisation with fixed statistics and a rectifier cost nearly as much as a small convolution, as each reads
and writes the whole value. So the normalisation goes into the convolution's weights, with its gradients, and the
rectifier writes over its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import hardtanh, relu

from practise_deploy.network.graph.operators import is_relu, is_relu6, is_sum, is_unmodified, module_of

Env = dict[str, Tensor]
FusionGroup = tuple[fx.Node, ...]


def execute(traced: nn.Module, node: fx.Node, env: Env) -> Tensor:
    """Compute one node's value from those of its inputs."""
    if node.op == "get_attr":
        value: object = traced
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value  # type: ignore[return-value]
    if node.op == "placeholder":  # an argument beside the input, with its default
        return node.args[0]  # type: ignore[return-value]
    args = fx.node.map_arg(node.args, lambda n: env[n.name])
    kwargs = fx.node.map_arg(node.kwargs, lambda n: env[n.name])
    module = module_of(traced, node)
    if module is not None:
        if _is_exactly(module, nn.Conv2d) and args:
            return _convolved(module, args[0], module.weight, module.bias)  # type: ignore[arg-type]
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def fusion_groups(traced: fx.GraphModule, nodes: Sequence[fx.Node], keep: frozenset[str]) -> Iterator[FusionGroup]:
    """The nodes in an equivalent order, each grouped with those that can be fused onto it.

    A group takes its last node's place. keep: values that are returned, and so never fused away.
    """
    computed, open_groups = set(nodes), dict[fx.Node, FusionGroup]()
    for node in nodes:
        group = (*open_groups.pop(node, ()), node)
        users = [user for user in node.users if user in computed]
        if node.name not in keep and len(users) == 1 and _fuses(traced, group, users[0]):
            open_groups[users[0]] = group
        else:
            yield group


def execute_group(traced: fx.GraphModule, group: FusionGroup, env: Env) -> Tensor:
    """The value of the last node of a group."""
    if len(group) == 1:
        return execute(traced, group[0], env)
    convolution, norm = (module_of(traced, node) for node in group[:2])
    if isinstance(norm, nn.BatchNorm2d):
        assert isinstance(convolution, nn.Conv2d)
        value = _conv_norm(convolution, norm, env[group[0].all_input_nodes[0].name])
    else:
        value = execute(traced, group[0], env)
    if not is_relu(traced, group[-1]):
        return value
    return hardtanh(value, 0.0, 6.0, inplace=True) if is_relu6(traced, group[-1]) else relu(value, inplace=True)


def _fuses(traced: fx.GraphModule, group: FusionGroup, reader: fx.Node) -> bool:
    """Whether the only reader of a group's value can be fused onto it."""
    last, module = module_of(traced, group[-1]), module_of(traced, reader)
    if _is_exactly(last, nn.Conv2d) and isinstance(module, nn.BatchNorm2d) and not module.training:
        return _is_exactly(module, nn.BatchNorm2d) and module.running_var is not None
    is_fresh = _is_exactly(last, nn.Conv2d, nn.BatchNorm2d) or is_sum(group[-1])  # no gradient needs their results
    return is_fresh and is_relu(traced, reader) and (module is None or _is_exactly(module, nn.ReLU, nn.ReLU6))


def _is_exactly(module: nn.Module | None, *kinds: type[nn.Module]) -> bool:
    """Whether a module is just this layer: no subclass of it, and it computes as its class does."""
    return module is not None and type(module) in kinds and is_unmodified(module)


def _conv_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The convolution followed by the normalisation, as one convolution.

    Shapes: x [n, in channels, height, width] -> [n, out channels, height, width].
    """
    assert norm.running_var is not None and norm.running_mean is not None
    # fold: with s = gamma / sqrt(var + eps), the weight is s W and the bias s (b - mean) + beta
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    shift = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
    return _convolved(convolution, x, convolution.weight * scale.view(-1, 1, 1, 1), shift)


def _convolved(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution with these weights; in fp32 where it is depthwise and differentiated on a CPU, as most gradients take far longer in bf16.

    Shapes: x [n, in channels, height, width] -> [n, out channels, height, width].
    """
    depthwise = 1 < convolution.groups == convolution.in_channels
    if not (depthwise and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return convolution._conv_forward(x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return convolution._conv_forward(x.float(), weight, bias)
