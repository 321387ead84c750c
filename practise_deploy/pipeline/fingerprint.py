"""What decides the result of a step, as JSON: the one place that knows what two inputs must share to be the same.

A step's key is made of the fingerprints of its inputs, and of the code that computes it, so that no list of what a step depends on
can be forgotten. A type that is not known here is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache, singledispatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx

import practise_backends
import practise_deploy
from practise_backends.interfaces import MeasurementSetup
from practise_deploy.images.tiny_set import FitImages, HeldOutImages
from practise_deploy.network.graph.structure import fingerprint as sha256_of
from practise_deploy.network.graph.structure import structure_of
from practise_deploy.network.loading.loaded import Network
from practise_deploy.pipeline.context import CuttableModel, Deployment
from practise_deploy.run import arrays_digest, digest
from practise_deploy.terms import Student

_LIBRARIES = ("onnx", "onnxruntime")
_NETWORKS: WeakKeyDictionary[fx.GraphModule, str] = WeakKeyDictionary()


@singledispatch
def fingerprint(value: object) -> Any:
    """An input of a step as JSON: a record by its fields, so that it can be said which of them changed; a document by its hash.

    A type that is neither needs a function of its own here.
    """
    assert is_dataclass(value), f"nobody has said what decides for a {type(value).__name__}: register it"
    parts = {field.name.replace("_", " "): fingerprint(getattr(value, field.name)) for field in fields(value)}
    return digest(parts) if "schema" in parts else parts


@fingerprint.register(str)
@fingerprint.register(int)
@fingerprint.register(float)
@fingerprint.register(type(None))
def _of_scalar(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


@fingerprint.register(tuple)
@fingerprint.register(list)
def _of_sequence(values: tuple[object, ...] | list[object]) -> Any:
    return digest(*map(fingerprint, values)) if any(map(is_dataclass, values)) else [*map(fingerprint, values)]


@fingerprint.register
def _of_mapping(values: Mapping) -> Any:  # type: ignore[type-arg]
    if values and all(isinstance(value, np.ndarray) for value in values.values()):
        return arrays_digest(dict(values))
    return {str(name): fingerprint(value) for name, value in values.items()}


@fingerprint.register(torch.dtype)
@fingerprint.register(torch.device)
@fingerprint.register(Path)
def _of_name(value: object) -> str:
    return str(value)


@fingerprint.register
def _of_array(array: np.ndarray) -> str:
    return arrays_digest({"": array})


@fingerprint.register
def _of_tensor(tensor: torch.Tensor) -> str:
    return arrays_digest({"": tensor.numpy()})


@fingerprint.register
def _of_graph(network: fx.GraphModule) -> str:
    """Hashed once: what is an input is not changed any more."""
    if network not in _NETWORKS:
        _NETWORKS[network] = sha256_of(network, structure_of(network))
    return _NETWORKS[network]


@fingerprint.register
def _of_network(network: Network) -> str:
    return digest(network.summary.sha256, fingerprint(network.summary.preprocessing))


@fingerprint.register
def _of_cuttable(model: CuttableModel) -> Any:
    """Without the weights, on which no latency depends."""
    return {"network": model.network.structure, "blocks": fingerprint(model.blocks), "form": fingerprint(model.form)}


@fingerprint.register
def _of_deployment(deployment: Deployment) -> Any:
    """Without the backend itself, which its name, options and device stand for."""
    names = ("name", "options", "conditions", "device", "target_archs", "shapes")
    return {name: fingerprint(getattr(deployment, name)) for name in names}


@fingerprint.register
def _of_setup(setup: MeasurementSetup) -> Any:
    """Without the backend, whose device and options a `Deployment` names."""
    return {name: fingerprint(getattr(setup, name)) for name in ("conditions", "stopping_rule", "shapes")}


@fingerprint.register(FitImages)
@fingerprint.register(HeldOutImages)
def _of_images(images: FitImages | HeldOutImages) -> str:
    labels = None if images.labels is None else images.labels.numpy()
    pixels = replace(images, pixels=images.pixels.cpu()).digest()
    return digest(pixels, fingerprint(labels), fingerprint(images.preprocessing))


@fingerprint.register
def _of_student(student: Student) -> str:
    """By what it computes, not by how long it took."""
    return digest(student.dropped, arrays_digest(student.weights))


@cache
def code() -> dict[str, str]:
    """What computes: the libraries' versions, and the source of both packages, so that no result of older code is taken for one of this."""
    sources = hashlib.sha256()
    for package in (practise_deploy, practise_backends):
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            sources.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return {
        "practise-deploy": sources.hexdigest(),
        "torch": torch.__version__,
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
