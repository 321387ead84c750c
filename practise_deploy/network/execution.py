"""Executing a traced network's operations: one by one, or fused where nobody asks for the values between them.

On a CPU a normalisation with fixed statistics and a rectifier cost nearly as much as a small convolution, as each reads
and writes the whole value. So the normalisation goes into the convolution's weights, with its gradients, and the
rectifier writes over its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import hardtanh, relu

from practise_deploy.network.operators import is_addition, is_as_its_class, is_relu, is_relu6, module_of

Env = dict[str, Tensor]
Run = tuple[fx.Node, ...]


def execute(traced: nn.Module, node: fx.Node, env: Env) -> Tensor:
    """One value from those it is computed of."""
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
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def runs_of(traced: fx.GraphModule, nodes: Sequence[fx.Node], keep: frozenset[str]) -> Iterator[Run]:
    """The nodes in an order that gives the same values, each with those that can be fused onto it.

    A run stands where its last node stood. keep: values that are asked for.
    """
    computed, begun = set(nodes), dict[fx.Node, Run]()
    for node in nodes:
        run = (*begun.pop(node, ()), node)
        users = [user for user in node.users if user in computed]
        if node.name not in keep and len(users) == 1 and _fuses(traced, run, users[0]):
            begun[users[0]] = run
        else:
            yield run


def execute_run(traced: fx.GraphModule, run: Run, env: Env) -> Tensor:
    """The value of the last node of a run."""
    if len(run) == 1:
        return execute(traced, run[0], env)
    convolution, norm = (module_of(traced, node) for node in run[:2])
    if isinstance(norm, nn.BatchNorm2d):
        assert isinstance(convolution, nn.Conv2d)
        value = _normalised(convolution, norm, env[run[0].all_input_nodes[0].name])
    else:
        value = execute(traced, run[0], env)
    if not is_relu(traced, run[-1]):
        return value
    return hardtanh(value, 0.0, 6.0, inplace=True) if is_relu6(traced, run[-1]) else relu(value, inplace=True)


def _fuses(traced: fx.GraphModule, run: Run, after: fx.Node) -> bool:
    """Whether the node can be computed together with the run whose last value it alone reads."""
    last, then = module_of(traced, run[-1]), module_of(traced, after)
    if _is_plain(last, nn.Conv2d) and isinstance(then, nn.BatchNorm2d) and not then.training:
        return _is_plain(then, nn.BatchNorm2d) and then.running_var is not None
    fresh = _is_plain(last, nn.Conv2d, nn.BatchNorm2d) or is_addition(run[-1])  # no gradient needs their results
    return fresh and is_relu(traced, after) and (then is None or _is_plain(then, nn.ReLU, nn.ReLU6))


def _is_plain(module: nn.Module | None, *kinds: type[nn.Module]) -> bool:
    """Whether a module is just this layer: no subclass of it, and it computes as its class does."""
    return module is not None and type(module) in kinds and is_as_its_class(module)


def _normalised(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The convolution followed by the normalisation, as one convolution."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    shift = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
    return convolution._conv_forward(x, convolution.weight * scale.view(-1, 1, 1, 1), shift)
