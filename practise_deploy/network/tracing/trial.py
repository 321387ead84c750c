"""A trial of a network and of its graph on random pixels: do they run, and compute the same?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.outputs import flattened, outputs_of
from practise_deploy.network.tracing.detectors import check_no_detector, check_takes_no_list
from practise_deploy.network.tracing.inputs import TAKE_IMAGES, check_kind, wrapper

RETURN_TENSORS = "wrap it in a module that returns the tensors it is to be judged by: FILE.py:FUNCTION"
_INPUT_TYPE_ERRORS = (AttributeError, KeyError, IndexError, NotImplementedError, TypeError)
"""Errors of a network that expects an input of another type."""


def noise(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Random pixels, always the same, of the module's type and on its device. Shapes: those asked for."""
    parameter = next(module.parameters(), torch.empty(0))
    dtype = parameter.dtype if parameter.numel() else torch.float32
    return torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, dtype)


def result_of(run: Callable[[Tensor], Any], sample: Tensor) -> tuple[Tensor, ...]:
    """The tensors that a network returns, whatever holds them.

    Raises: InputError where it does not run, returns no tensor, or puts out what is no number.
    """
    output = _run(run, sample)
    check_no_detector(run, sample, output)
    tensors = tuple(flattened(output).values())
    if not tensors:
        raise InputError(f"the network returns {_type_with_fields(output)}, and no tensor in it", remedy=RETURN_TENSORS)
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise InputError(
            f"the network puts out NaN or infinity for random pixels of shape {tuple(sample.shape)}",
            remedy="give whole, trained weights with --weights",
        )
    return tensors


def _run(run: Callable[[Tensor], Any], sample: Tensor) -> Any:
    try:
        with torch.no_grad():
            return run(sample.clone())
    except InputError:
        raise
    except SystemExit as error:
        raise InputError(
            f"the network's forward ended with exit({error.code!r})", remedy="let it raise an error, or return"
        ) from None
    except Exception as error:
        if lacks_memory(error):
            raise
        check_takes_no_list(run, sample)
        check_kind(run, sample)
        raise _run_error(error, sample) from None


def _run_error(error: Exception, sample: Tensor) -> InputError:
    if isinstance(error, _INPUT_TYPE_ERRORS) or "unpack" in str(error):
        message = f"the network does not run on one tensor of images, of shape {tuple(sample.shape)}"
        message += f": {type(error).__name__}: {first_line(error)}"
        return InputError(message, remedy=TAKE_IMAGES, snippet=wrapper("self.network(images)"))
    return InputError(
        f"the network does not run on an input of shape {tuple(sample.shape)}: {first_line(error)}",
        remedy="give its input size with --input-size, and --mean and --std as many numbers as it takes channels",
    )


def _type_with_fields(output: Any) -> str:
    """An output's type, with the names of its fields."""
    names = output if isinstance(output, Mapping) else getattr(output, "_fields", ())
    if is_dataclass(output) and not names:
        names = [field.name for field in fields(output)]
    kind = type(output).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}" + (f" of {', '.join(map(str, names))}" if names else "")


def check_batches(traced: fx.GraphModule) -> None:
    """Refuse a traced network that does not give one output for each of several images: planning runs it on batches.

    Raises: InputError.
    """
    outputs = outputs_of(traced)
    if any(output.meta.get("for_two") is None for output in outputs):
        pixels = next(node for node in traced.graph.nodes if node.op == "placeholder").meta["shape"]
        raise InputError(
            f"the network runs on one image, but not on two: {_failure(traced, noise(traced, (2, *pixels[1:])))}",
            remedy="let its forward take any number of images: x.flatten(1), for example, instead of x.view(1, -1)",
        )
    for output in outputs:
        one, two = output.meta["shape"], output.meta["for_two"]
        if not one or not isinstance(two, tuple) or two[:1] != (2,) or one[1:] != two[1:]:
            raise InputError(
                f"the network gives an output of shape {one} for one image and {two} for two: not one for each",
                remedy="let its forward return what it says of every image along the first axis: (images, classes), for example",
            )


def _failure(run: Callable[[Tensor], Any], sample: Tensor) -> str:
    try:
        with torch.no_grad():
            run(sample)
    except Exception as error:
        return first_line(error)
    return "it computes something else"


def check_same(traced: fx.GraphModule, sample: Tensor, expected: tuple[Tensor, ...]) -> None:
    """Refuse a graph that computes something else than the network, which happens where values are written in place.

    Raises: InputError, also for a module that writes into its input: others read that too.
    """
    found = result_of(_InputWriteCheck(traced).run, sample)
    if len(found) != len(expected) or not all(map(_alike, found, expected)):
        raise InputError(
            f"the traced network does not compute what the network computes on an input of shape {tuple(sample.shape)}",
            remedy="let its forward write into no value that has two names, draw no random numbers and not depend on values",
        )


def _alike(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


class _InputWriteCheck(fx.Interpreter):
    """Runs a graph and refuses leaf modules that write into their inputs."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensors = [tensor for tensor in (*args, *kwargs.values()) if isinstance(tensor, Tensor)]
        versions = [tensor._version for tensor in tensors]
        output = super().call_module(target, args, kwargs)
        if [tensor._version for tensor in tensors] != versions:
            raise InputError(
                f"the module {target} writes into its input, which others read too",
                remedy="let its forward give a new value",
            )
        return output
