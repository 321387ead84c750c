"""A trial of a network and of its graph on random pixels: do they run, and compute the same?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from practise_deploy.errors import InputError, first_line


def noise(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Random pixels, always the same, of the module's type and on its device."""
    parameter = next(module.parameters(), torch.empty(0))
    dtype = parameter.dtype if parameter.numel() else torch.float32
    return torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, dtype)


def output_of(run: Callable[[Tensor], Any], sample: Tensor) -> Tensor | None:
    """A network's first output, None where it gives no tensor.

    Raises: InputError where it does not run, or puts out no numbers.
    """
    try:
        with torch.no_grad():
            found = run(sample.clone())
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the network does not run on an input of shape {tuple(sample.shape)}: {first_line(error)}",
            remedy="give its input size with --input-size; channels are as many as --mean has numbers",
        ) from None
    while isinstance(found, (tuple, list)) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        return None
    if not torch.isfinite(found).all():
        raise InputError(
            "the network puts out NaN or infinity for random pixels", remedy="are its weights whole, and trained?"
        )
    return found


def check_same(traced: fx.GraphModule, sample: Tensor, expected: Tensor | None) -> None:
    """Refuse a graph that computes something else than the network, as tracing allows where values are written in place.

    Raises: InputError, also for a module that writes into its input: others read that too.
    """
    found = output_of(_Watching(traced).run, sample)
    if expected is None or found is None:
        return
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise InputError(
            "the traced network does not compute what the network computes",
            remedy="does its forward write in place into a value under two names, draw random numbers or depend on values?",
        )


class _Watching(fx.Interpreter):
    """Runs a graph and looks whether modules, which it cannot look into, leave their inputs as they were."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        versions = [each._version for each in given]
        found = super().call_module(target, args, kwargs)
        if [each._version for each in given] != versions:
            raise InputError(
                f"the module {target} writes into its input, which others read too",
                remedy="let its forward give a new value",
            )
        return found
