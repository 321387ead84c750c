"""What training puts around a network, and what is inside."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from practise_deploy.errors import InputError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def without_wrappers(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network without DataParallel, torch.compile and the like, around it or within it, and a note on what was removed.

    Raises: InputError for TorchScript, which has no Python left to trace.
    """
    removed = dict[nn.Module, str]()
    root = nn.ModuleList([module])  # so that the network itself is a part like any other
    for parent in [*root.modules()]:
        for name, child in parent._modules.items():
            while child is not None and (inner := _wrapped_module(child)) is not None:
                removed[child] = type(child).__name__.replace("OptimizedModule", "torch.compile")
                parent._modules[name] = child = inner
    removed |= {compiled: "torch.compile" for compiled in root.modules() if _undo_compile(compiled)}
    if isinstance(root[0], torch.jit.ScriptModule):
        raise InputError(
            f"the network is TorchScript ({type(root[0]).__name__}), whose Python is gone: nothing can be traced or removed",
            remedy="return the Python module that was scripted or traced; its weights can come from --weights",
        )
    removals = " and ".join(f"{name} ({count}x)" for name, count in sorted(Counter(removed.values()).items()))
    return root[0], (f"taken off, as it changes no result: {removals}",) if removals else ()


def name_of(module: nn.Module) -> str:
    """A network's name where it is an object: its class's, or that of what its wrappers hold."""
    while (inner := _wrapped_module(module)) is not None:
        module = inner
    return type(module).__name__


def _wrapped_module(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper holds; None where it is no wrapper."""
    if isinstance(module, _WRAPPERS):
        return module.module
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _undo_compile(module: nn.Module) -> bool:
    """Undo the compilation of a module, or of its forward, in place; returns whether there was one."""
    original: Any = getattr(getattr(module, "forward", None), "_torchdynamo_orig_callable", None)
    if hasattr(original, "__self__"):
        module.forward = original
    elif original is not None:  # by its class, which is where tracing looks, and which others may use
        cls = type(module)
        namespace = {"forward": original, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        module.__class__ = type(cls.__name__, (cls,), namespace)
    compiled = module._compiled_call_impl is not None
    module._compiled_call_impl = None
    return compiled or original is not None
