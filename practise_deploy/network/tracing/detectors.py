"""Detectors: what they return, and which part of them can be pruned instead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError
from practise_deploy.network.tracing.inputs import wrapper

_BACKBONES = ("backbone.body", "backbone")
"""Where detectors have the network that computes features of the images: below a pyramid of them, which has no residual units, or alone."""
_LAST_MAP = "list(self.network(images).values())[-1]"


def check_no_detector(run: Callable[[Any], Any], sample: Tensor, output: Any) -> None:
    """Refuse a network whose output, for this sample, is of a detector.

    Raises: InputError.
    """
    listed = type(output) in (tuple, list)
    while type(output) in (tuple, list) and output:
        output = output[-1]  # of TorchScript's (losses, detections) the latter
    if listed and isinstance(output, Mapping) and "boxes" in output:
        raise InputError(
            f"the network is a detector: it returns {', '.join(map(str, output))} as a dictionary for each image, "
            "and not a tensor of all images for each of them",
            remedy="prune its backbone alone, in a module that returns one tensor, and give FILE.py:wrapped; or export the detector, and give FILE.onnx",
            snippet=_backbone_wrapper(run, sample),
        )


def check_takes_no_list(run: Callable[[Any], Any], sample: Tensor) -> None:
    """The same for a network that does not run on one tensor, but may on a list of images.

    Raises: InputError.
    """
    output = None
    with contextlib.suppress(Exception, SystemExit), torch.no_grad():
        output = run(list(sample))
    check_no_detector(run, sample, output)


def _backbone_wrapper(run: Callable[[Any], Any], sample: Tensor) -> str:
    """A wrapper around a detector's backbone that returns one tensor, as Python."""
    parts = dict(run.named_modules()) if isinstance(run, nn.Module) else {}
    for path in _BACKBONES:
        with contextlib.suppress(Exception), torch.no_grad():
            features = parts[path](sample)
            call = "self.network(images)" if isinstance(features, Tensor) else _LAST_MAP
            return wrapper(call, f"FUNCTION().{path}")
    return wrapper(_LAST_MAP, "FUNCTION().backbone")
