"""Making weights ordinary fp32 parameters on the CPU, on which everything that writes weights relies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def materialise_weights(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The module itself, in eval mode, with notes on what changed.

    Weights that are computed from others (`torch.nn.utils.parametrizations`, and the older weight_norm and spectral_norm)
    become parameters; weights that several layers share are copied into each.
    """
    module.eval()
    notes = []
    computed = sum(_materialise(submodule) for submodule in module.modules())
    if computed:
        notes.append(f"{computed} weights that were computed from others (weight_norm and the like) are plain now")
    if shared := _untie(module):
        notes.append(f"{shared} weights that were another layer's too are a layer's own now")
    values = [*module.parameters(), *module.buffers()]
    other_dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in values if _is_other_float(value))
    if other_dtypes:
        notes.append(f"weights of type {' and '.join(sorted(other_dtypes))} are computed as float32")
    return module.float().cpu(), tuple(notes)


def _is_other_float(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.dtype != torch.float32


def _materialise(module: nn.Module) -> int:
    """Make this module's computed weights parameters; returns how many there were."""
    names = list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]
    for name in names:
        parametrize.remove_parametrizations(module, str(name), leave_parametrized=True)
        if not isinstance(value := getattr(module, str(name)), nn.Parameter):  # what it was computed from is frozen
            delattr(module, str(name))
            module.register_parameter(str(name), nn.Parameter(value.detach(), requires_grad=False))
    hooks: list[Any] = [
        hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))
    ]
    for hook in hooks:
        remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
        remove(module, hook.name)
    return len(names) + len(hooks)


def _untie(module: nn.Module) -> int:
    """Copy shared weights into every layer but the first; returns how many there were."""
    seen, count = set[int](), 0
    for submodule in module.modules():
        for name, weight in submodule._parameters.items():
            if weight is not None and id(weight) in seen:
                submodule._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
                count += 1
            seen.add(id(weight))
    return count
