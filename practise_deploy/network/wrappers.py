"""What training puts around a network, and what is inside."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from practise_deploy.errors import InputError

_AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def without_wrappers(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network without DataParallel, torch.compile and the like, around it or within it, and what was taken off.

    Raises: InputError for TorchScript, which has no Python left to trace.
    """
    found = dict[nn.Module, str]()
    whole = nn.ModuleList([module])  # so that the network itself is a part like any other
    for parent in [*whole.modules()]:
        for name, child in parent._modules.items():
            while child is not None and (inner := _inside(child)) is not None:
                found[child] = type(child).__name__.replace("OptimizedModule", "torch.compile")
                parent._modules[name] = child = inner
    found |= {each: "torch.compile" for each in whole.modules() if _forget_compiling(each)}
    if isinstance(whole[0], torch.jit.ScriptModule):
        raise InputError(
            f"the network is TorchScript ({type(whole[0]).__name__}), whose Python is gone: nothing can be traced or removed",
            remedy="return the Python module that was scripted or traced; its weights can come from --weights",
        )
    off = " and ".join(f"{name} ({count}x)" for name, count in sorted(Counter(found.values()).items()))
    return whole[0], (f"taken off, as it changes no result: {off}",) if off else ()


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper is around; None where a module is none."""
    if isinstance(module, _AROUND):
        return module.module
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _forget_compiling(module: nn.Module) -> bool:
    """Let a module that is compiled in place, or whose forward is, run as it was written."""
    plain: Any = getattr(getattr(module, "forward", None), "_torchdynamo_orig_callable", None)
    if hasattr(plain, "__self__"):
        module.forward = plain
    elif plain is not None:  # by its class, which is where tracing looks, and which others may use
        kind = type(module)
        own = {"forward": plain, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        module.__class__ = type(kind.__name__, (kind,), own)
    compiled = module._compiled_call_impl is not None
    module._compiled_call_impl = None
    return compiled or plain is not None
