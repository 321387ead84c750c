"""A build in seconds: a tiny network of the user's, noise for images, and a device whose times are scripted.

The scripted device computes what ONNX Runtime computes; only its times come from a script, by the number of
convolutions, so that no test depends on how busy the machine is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from practise_backends.fake import FakeBackend, FakeEngine, steady
from practise_backends.interfaces import Engine
from practise_backends.rounds import estimates
from practise_backends.runtimes.onnx_file import content_of
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.runtimes.tensorrt import TensorRtBackend
from practise_backends.runtimes.tensorrt.engine_file import EngineArtifact, read_engine, write_engine
from practise_backends.terms import Artifact, Conditions, Tensors
from practise_deploy.deployment import target as deployment
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph import onnx_graph
from practise_deploy.pipeline import stages
from practise_deploy.pipeline.auto import AutoBuild
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run, Screen, arrays_digest, digest, nobody_looks
from practise_deploy.settings import read_settings

NETWORKS = """
from torch import nn

from networks import plain_network, tiny_mobilenet, tiny_resnet


def one_number():
    network = tiny_resnet()
    network.fc = nn.Linear(network.fc.in_features, 1)
    return network


def broken():
    raise RuntimeError("no such layer")


number = 3
"""

FAST = {"iterations": 10, "batch_size": 16, "measure_budget_s": 0.3}


class ScriptedOrt(FakeBackend):
    """Outputs and precision from ONNX Runtime, times from a script."""

    capabilities = replace(OrtBackend.capabilities, cold_start=False)

    def compile(self, model: bytes | Path, conditions: Conditions, **how: Any) -> Artifact:
        if conditions.precision == "fp32":
            return super().compile(model, conditions, **how)
        found = OrtBackend().compile(model, conditions)
        return replace(found, device_fingerprint=self.device().fingerprint)

    def __init__(self, ms_of: Callable[[Artifact], float] | None = None) -> None:
        ms_of = ms_of or ms_by_convolutions
        super().__init__(script=lambda artifact: steady(ms_of(artifact)))

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        engine, opened = super().open(artifact, conditions), list[Engine]()

        def run(tensors: Tensors) -> dict[str, Any]:
            if not opened:  # most engines are only timed
                plain = OrtBackend()
                opened.append(plain.open(plain.compile(artifact.content, conditions), conditions))
            return opened[0].run(tensors)

        engine.run = run  # type: ignore[method-assign]
        return engine


class ScriptedTrt(ScriptedOrt):
    """Artefacts that are files, several builds of each, a GPU's clock: what TensorRT's backend has and ONNX Runtime's has not."""

    name = "trt"
    capabilities = TensorRtBackend.capabilities

    def compile(self, model: bytes | Path, conditions: Conditions, **how: Any) -> EngineArtifact:
        found = FakeBackend.compile(self, model, Conditions())
        told = {field.name: getattr(found, field.name) for field in fields(found)}
        told |= {"precision": conditions.precision, "precision_share": 1.0, "provider": "scripted 1.0"}
        return EngineArtifact(**told, gpu="a scripted GPU")

    def load(self, file: Path, conditions: Conditions) -> EngineArtifact:
        return read_engine(file)

    def save(self, artifact: EngineArtifact, path: Path) -> tuple[Path, ...]:
        return write_engine(artifact, path)

    def open(self, artifact: Artifact, conditions: Conditions) -> FakeEngine:
        shipped = isinstance(artifact.content, Path) and artifact.content.suffix == ".engine"
        content = content_of(artifact.content) if shipped else artifact.content
        return super().open(replace(artifact, content=content), Conditions())


def ms_by_convolutions(artifact: Artifact) -> float:
    """Every convolution takes 0.1 ms (0.05 ms in int8), and the network 0.5 ms besides."""
    each = 0.05 if artifact.precision == "int8" else 0.1
    return 0.5 + each * count_of("Conv", onnx.load_from_string(_content(artifact)))


def _content(artifact: Artifact) -> bytes:
    return artifact.content if isinstance(artifact.content, bytes) else artifact.content.read_bytes()


def count_of(kind: str, model: onnx.ModelProto | Path) -> int:
    """How many nodes of that kind a network has."""
    model = onnx.load(model) if isinstance(model, Path) else model
    return sum(node.op_type == kind for node in model.graph.node)


def ms_by_products(artifact: Artifact) -> float:
    """A tenth of a millisecond for every product of matrices."""
    network = onnx.load_from_string(_content(artifact))
    return 0.1 * (count_of("MatMul", network) + count_of("Gemm", network))


def write_inputs(
    folder: Path, *, count: int = 40, side: int = 16, seed: int = 0, labelled: bool = False
) -> tuple[Path, Path]:
    """A Python file of networks and an .npz of images, by default without labels."""
    networks, data = folder / "nets.py", folder / f"tiny{seed}.npz"
    networks.write_text(NETWORKS)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = {"labels": np.arange(count) % 10} if labelled else {}
    np.savez(data, images=pixels, **labels)
    return networks, data


@contextmanager
def device(backend: FakeBackend | None = None) -> Iterator[None]:
    """Every backend that is asked for is this one; nothing is warmed up, and equal networks are exported once."""
    with pytest.MonkeyPatch.context() as patch, exported_once():
        patch.setattr(deployment, "load_backend", lambda name, options: backend or ScriptedOrt())
        patch.setattr(stages, "THROUGHPUT_RULE", replace(stages.THROUGHPUT_RULE, warmup_s=0.0))
        yield


_EXPORTS: dict[str, onnx.ModelProto] = {}


@contextmanager
def exported_once() -> Iterator[None]:
    """The exporter, which takes seconds for the smallest network, is asked once for each that the tests have."""
    export = onnx_graph._export

    def remembered(traced: torch.fx.GraphModule, *how: Any) -> onnx.ModelProto:
        weights = arrays_digest({name: value.numpy() for name, value in traced.state_dict().items()})
        key = digest(str(traced), str(traced.graph), weights, repr(how))
        if key not in _EXPORTS:
            _EXPORTS[key] = export(traced, *how)
        return copy.deepcopy(_EXPORTS[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "_export", remembered)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one core: tiny tensors on a busy machine lose more by waiting for a second one."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda process: {0})
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


@contextmanager
def few_replicates() -> Iterator[None]:
    """Intervals from a hundred resamples: a scripted device has no noise for more, and they take half of a build's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "_MIN_REPLICATES", 100)
        patch.setattr(estimates, "_WORK", 0)
        yield


@contextmanager
def one_split() -> Iterator[None]:
    """Builds keep some images aside instead of cross-validating, which takes six students for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("practise_deploy.images.tiny_set.FitImages", partial(FitImages, cross_validate_below=8))
        yield


def make_build(
    out: Path, *, screen: Screen = nobody_looks, tell: Callable[[str], None] = lambda _: None, **given: Any
) -> AutoBuild:
    """A build of the tiny network; `given` are settings."""
    run = Run(out, tell=tell, screen=screen)
    return AutoBuild(BuildContext(settings=read_settings({**FAST, **given, "out": out}), run=run, command="a test"))
