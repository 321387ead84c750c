"""Affine operators, whose weights alone say what they compute of each patch of their input: convolutions and linear layers."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, fx, nn

from practise_deploy.network.operators import is_unmodified, module_of

Affine = nn.Conv2d | nn.Linear
Places = tuple[Tensor, ...]
"""Some positions of a value: their indices along every axis but those of images and channels."""


def is_affine(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is a convolution of all channels or a linear layer that its weights alone describe, called nowhere else."""
    module = module_of(traced, node)
    if not isinstance(module, nn.Linear):
        return is_dense_unshared(traced, node)
    return type(module).forward is nn.Linear.forward and is_unmodified(module) and _is_alone(traced, module)


def is_dense_unshared(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is a convolution of all channels that its weights alone describe, called nowhere else."""
    module = module_of(traced, node)
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward or module.groups != 1:
        return False
    if not is_unmodified(module):
        return False
    padded = isinstance(module.padding, str) or (module.padding_mode != "zeros" and any(module.padding))
    return not padded and _is_alone(traced, module)


def _is_alone(traced: fx.GraphModule, module: Affine) -> bool:
    """Whether a module is called once, and nothing else uses its weights."""
    weights = [module._parameters.get("weight"), *([] if module.bias is None else [module._parameters.get("bias")])]
    return all(weight is not None and has_one_use(traced, weight) for weight in weights)


def has_one_use(traced: fx.GraphModule, parameter: nn.Parameter) -> bool:
    """Whether one module called once, or one value, is all that a network does with a parameter."""
    owners = [
        f"{path}.{name}".lstrip(".")
        for path, module in traced.named_modules(remove_duplicate=False)
        for name, weight in module._parameters.items()
        if weight is parameter
    ]
    if len(owners) != 1:
        return False
    read = len(traced.graph.find_nodes(op="get_attr", target=owners[0], sort=False))
    called = len(traced.graph.find_nodes(op="call_module", target=owners[0].rpartition(".")[0], sort=False))
    return read + called == 1


def called_once(node: fx.Node) -> bool:
    """Whether a module is called nowhere else."""
    return len(node.graph.find_nodes(op="call_module", target=node.target, sort=False)) == 1


def operator_at(traced: fx.GraphModule, node: fx.Node) -> Affine:
    """The affine operator that a node calls."""
    module = traced.get_submodule(str(node.target))
    assert isinstance(module, Affine)
    return module


def channel_axis(operator: Affine, rank: int) -> int:
    """The axis of the channels, in what the operator takes and gives. rank: of its input."""
    return 1 if isinstance(operator, nn.Conv2d) else rank - 1


def patches_of(operator: Affine, x: Tensor, places: Places) -> Tensor:
    """What some output positions are computed of: im2col, or the vectors there.

    Shapes: x [n, c, h, w] -> [n * positions, c * kernel]; of a linear layer [n, ..., d] -> [n * positions, d].
    """
    if isinstance(operator, nn.Linear):
        return vectors_at(x, x.ndim - 1, places).flatten(0, 1)
    (kh, kw), (sh, sw), (dh, dw) = operator.kernel_size, operator.stride, operator.dilation
    ph, pw = (int(side) for side in operator.padding)
    padded = nn.functional.pad(x, (pw, pw, ph, ph)) if ph or pw else x
    rows, columns = places
    taps = [
        vectors_at(padded, 1, (rows * sh + i * dh, columns * sw + j * dw)) for i, j in product(range(kh), range(kw))
    ]
    return torch.stack(taps, 3).flatten(0, 1).flatten(1)


def vectors_at(value: Tensor, axis: int, places: Places) -> Tensor:
    """The channels at some positions. axis: that of the channels. Shapes: [n, positions, channels]."""
    index: tuple[slice | Tensor, ...] = (slice(None), *places)
    return value.movedim(axis, -1)[index]  # convolutions' values are channels last: whole vectors are read


def applied(operator: Affine, weight: Tensor, x: Tensor) -> Tensor:
    """What the operator would give with another weight and no bias."""
    if isinstance(operator, nn.Linear):
        return nn.functional.linear(x, weight)
    return nn.functional.conv2d(x, weight, None, operator.stride, operator.padding, operator.dilation)
