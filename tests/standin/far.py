"""A device beside the CPU for torch, where there is no GPU: what forgets to bring a tensor along fails here as on CUDA.

`pytest -p standin.far -m gpu tests/unit` runs the tests that are marked `gpu` on it. Its memory is the CPU's, so what it
computes is what the CPU computes; nothing is shown about CUDA's arithmetic, streams or speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_MODULE = SimpleNamespace(
    is_initialized=lambda: True,
    is_available=lambda: True,
    current_device=lambda: 0,
    device_count=lambda: 1,
    _is_in_bad_fork=lambda: False,
    manual_seed_all=lambda seed: None,
)
_setup_privateuseone_for_python_backend("far", backend_module=_MODULE)
FAR = torch.device("far:0")

_COPIES = ("_to_copy", "copy_")
_INDEXES = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")


class FarTensor(Tensor):
    """A tensor that says it lies on the device; near: where it does."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        found: FarTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=FAR,
        )
        found.near = near
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(
            tuple(torch.tensor(part) if isinstance(part, list | range) else part for part in parts)
        )


class _Creating(TorchDispatchMode):
    """Sends there what is made there (`torch.eye(3, device="far")`) or moved there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _goes_there(kwargs.get("device")) or any(
            isinstance(leaf, FarTensor) for leaf in tree_leaves((args, kwargs))
        ):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def there() -> Iterator[torch.device]:
    """The device; modules can be moved to it meanwhile."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter becomes one of another class
    try:
        with _Creating():
            yield FAR
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU; the results lie where CUDA would leave them."""
    name = func._schema.name.split("::")[1]
    if name == "copy_":
        _near(args[0]).copy_(_near(args[1]))
        return args[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if name not in _COPIES:
        _refuse_mixed(func, name, tensors)
    wanted = kwargs.get("device")
    given = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    if wanted is not None and torch.device(wanted).type != "meta":
        given["device"] = torch.device("cpu")
    found = func(*tree_map(_near, args), **tree_map(_near, given))
    stays = any(isinstance(tensor, FarTensor) for tensor in tensors) if wanted is None else _goes_there(wanted)
    if not stays or name == "_local_scalar_dense":
        return found
    if func._schema.is_mutable and isinstance(found, Tensor):
        return _written(func, args, kwargs)
    return tree_map(lambda each: FarTensor(each) if isinstance(each, Tensor) else each, found)


def _refuse_mixed(func: Any, name: str, tensors: list[Tensor]) -> None:
    """As CUDA: only a number, or an index, may come from the CPU."""
    near = [
        each for each in tensors if not isinstance(each, FarTensor) and each.device.type == "cpu" and each.dim() > 0
    ]
    if name in _INDEXES:
        near = [each for each in near if each.is_floating_point()]
    if near and len(near) < len(tensors):
        shapes = [(tuple(each.shape), each.device.type) for each in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}, {shapes}")


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The argument that an operator writes to, which is also what it gives."""
    named = [*zip(func._schema.arguments, args, strict=False)]
    named += [(each, kwargs[each.name]) for each in func._schema.arguments if each.name in kwargs]
    return next(value for each, value in named if each.alias_info is not None and each.alias_info.is_write)


def _empty(size: Any, *words: Any, dtype: Any = None, **more: Any) -> FarTensor:
    return FarTensor(torch.empty(size, dtype=dtype))


def _copy_from(of: Tensor, to: Tensor, non_blocking: bool = False) -> Tensor:
    _near(to).copy_(_near(of))
    return to


# What `torch.tensor(..., device="far")` asks for below the reach of modes. Strides are left out.
_KERNELS = torch.library.Library("aten", "IMPL")
for _name, _kernel in (("empty.memory_format", _empty), ("empty_strided", _empty), ("_copy_from", _copy_from)):
    _KERNELS.impl(_name, _kernel, "PrivateUse1")


def _near(value: Any) -> Any:
    return value.near if isinstance(value, FarTensor) else value


def _goes_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == FAR.type
