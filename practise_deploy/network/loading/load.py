"""Loading a network: by library name, from a user's Python file, as a module, or from a file."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from practise_backends.errors import about, lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.structure import structure_of
from practise_deploy.network.loading.hugging_face import PREFIX as HUGGING_FACE
from practise_deploy.network.loading.load_files import load_by_name, load_encoder_folder, load_exported, load_onnx
from practise_deploy.network.loading.loaded import Network, Origin, prepared_task, summary_of
from practise_deploy.network.loading.materialise_weights import materialise_weights
from practise_deploy.network.loading.named_inputs import named_inputs
from practise_deploy.network.loading.preprocessing import preprocessing_of
from practise_deploy.network.loading.samples import Samples
from practise_deploy.network.loading.sources import config_of, construct
from practise_deploy.network.loading.weights import load_state_dict
from practise_deploy.network.loading.wrappers import name_of, without_wrappers
from practise_deploy.network.onnx_import.file import read_onnx
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.tracing.trial import check_batches
from practise_deploy.settings import NetworkSource


def load_network(
    source: NetworkSource,
    *,
    structure_only: bool = False,
    image_size: tuple[int, int] | None = None,
    samples: Samples | None = None,
) -> Network:
    """The network that the settings name, with its weights.

    structure_only: pretrained weights are not fetched; enough to inspect blocks or to measure latency.
    image_size: (height, width) of the given images, used where neither network nor settings state a size. samples: what is given to a
    network that takes no images.
    Raises: InputError, EnvironmentProblem.
    """
    if source.network.endswith(".pt2"):
        return load_exported(Path(source.network), source)
    if source.network.endswith(".onnx"):
        read = read_onnx(Path(source.network), source.layout)
        return load_onnx(read, source, image_size, samples or Samples())
    if source.network.startswith(HUGGING_FACE):
        return load_encoder_folder(Path(source.network.removeprefix(HUGGING_FACE)), source, samples or Samples())
    module, config, weights = construct(source, structure_only)
    file = Path(source.network.rpartition(":")[0])
    code = file.read_bytes() if file.suffix == ".py" else b""
    return _network_of(module, Origin(source.network, weights, config, code), source, image_size, samples or Samples())


def network_of(
    module: nn.Module,
    source: NetworkSource,
    image_size: tuple[int, int] | None = None,
    samples: Samples | None = None,
) -> Network:
    """The network that a module in this process is, of a copy: the module itself stays as it is.

    image_size, samples: as in `load_network`. Raises: InputError.
    """
    name = name_of(module)
    with about(name):
        copied = _copy_of(module)
    notes = _without_hooks(copied)
    origin = Origin(name, "as the module has them", config_of(copied, name), notes=notes)
    return _network_of(copied, origin, source, image_size, samples or Samples())


def _copy_of(module: nn.Module) -> nn.Module:
    """A copy that shares nothing. Tensors that were computed from others, which nothing else copies, are copied by their values."""
    computed = [v for part in module.modules() for v in vars(part).values() if isinstance(v, Tensor) and not v.is_leaf]
    try:
        return copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{type(module).__name__} cannot be copied: {first_line(error)}",
            remedy="give a module that copy.deepcopy copies: without handles, locks or process groups among its attributes",
        ) from None


def _without_hooks(module: nn.Module) -> tuple[str, ...]:
    """Take a copy's forward hooks off, which would tell their owner of every run of ours; returns a note where there are some."""
    parts = [part for part in module.modules() if part._forward_hooks]
    for part in parts:
        part._forward_hooks = OrderedDict()
    names = ", ".join(type(part).__name__ for part in parts[:3])
    return (
        (f"forward hooks are left out of the copy (of {names}), with all that they change in outputs",) if parts else ()
    )


def _check_weights(module: nn.Module) -> None:
    """Refuse weights that have no values."""
    name = next((name for name, weight in module.named_parameters() if weight.is_meta), None)
    if name is not None:
        raise InputError(
            f"the weight {name} is on the device meta, and has no values",
            remedy="give it values: network.to_empty(device='cpu'), and then load its weights",
        )


def _network_of(
    module: nn.Module, origin: Origin, source: NetworkSource, image_size: tuple[int, int] | None, samples: Samples
) -> Network:
    """The module traced, which is changed on the way."""
    weight_notes: tuple[str, ...] = ()
    with about(origin.name):
        module, wrapper_notes = without_wrappers(module)
    if source.weights is not None:
        weight_notes = load_state_dict(module, source.weights)
        origin = replace(origin, weights=str(source.weights))
    with about(origin.name):
        _check_weights(module)
        if (inputs := named_inputs(module, samples)) is not None:
            module, materialise_notes = materialise_weights(module)
            notes = (*origin.notes, *wrapper_notes, *weight_notes, *materialise_notes)
            return load_by_name(module, inputs, replace(origin, notes=notes), source, samples)
        preprocessing = preprocessing_of(origin.config, source, image_size)
        module, materialise_notes = materialise_weights(module)
        shape = (1, preprocessing.channels, *preprocessing.size)
        traced, leaves = trace(module, shape)
        check_batches(traced)
        task = prepared_task(traced, source, {}, shape)
    leaf_notes = tuple(f"{name} could not be traced into and counts as one operation" for name in leaves)
    notes = (*origin.notes, *wrapper_notes, *weight_notes, *materialise_notes, *leaf_notes)
    structure = structure_of(traced, origin.code)
    summary = summary_of(traced, structure, replace(origin, notes=notes), preprocessing, task)
    for weight in traced.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
    return Network(traced, summary, True, structure)
