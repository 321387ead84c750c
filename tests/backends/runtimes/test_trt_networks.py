"""Real networks, plain and pruned, in every precision, built by the real builder of tensorrt_rtx for three kinds of GPU."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import fx

from practise_backends.runtimes.tensorrt import TensorRtOptions, TensorRtRtxBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.precision import in_precision
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks

pytest.importorskip("tensorrt_rtx", reason="the extra trt-rtx is not installed")

INPUT = (1, 3, 224, 224)
TARGETS = ("sm86", "sm89", "sm120")
DROPPED = 3


def make(name: str) -> torch.nn.Module:
    """Random weights: which layers are built does not depend on them."""
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite0 is not installed")
        return package.EfficientNet.from_name("efficientnet-lite0").eval()
    import torchvision

    return getattr(torchvision.models, name)().eval()


@lru_cache(maxsize=1)
def networks(name: str) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    """The plain network, the pruned one, and how many convolutions went with the blocks."""
    traced, _ = trace(make(name), INPUT)
    blocks = droppable(find_blocks(traced, INPUT))[:DROPPED]
    pruned = drop_blocks(traced, blocks)
    gone = len(convolutions(traced)) - len(convolutions(pruned))
    assert gone >= len(blocks) > 1
    return traced, pruned, gone


@lru_cache(maxsize=4)
def exported(name: str, which: str, dynamic: bool) -> onnx.ModelProto:
    """The plain or the pruned network; all precisions begin with it."""
    plain, pruned, _ = networks(name)
    return to_onnx(plain if which == "plain" else pruned, INPUT, dynamic_batch=dynamic)


def convolutions(network: fx.GraphModule) -> list[str]:
    """The convolutions that are called."""
    modules = dict(network.named_modules())
    return [
        str(node.target)
        for node in network.graph.nodes
        if node.op == "call_module" and isinstance(modules[str(node.target)], torch.nn.Conv2d)
    ]


def convolved(nodes: Any) -> set[str]:
    return {name for name in nodes if "Conv" in name and "Linear" not in name}


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["static", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("mobilenet_v2", marks=pytest.mark.slow), "efficientnet-lite0"]
)
def test_dropped_blocks_are_gone_from_the_engine_and_nothing_was_added(
    name: str, precision: str, dynamic: bool, tmp_path: Path
) -> None:
    _, _, gone = networks(name)
    backend = TensorRtRtxBackend(TensorRtOptions(target_archs=TARGETS))
    counts = []
    for which in ("plain", "pruned"):
        path = tmp_path / f"{which}.onnx"
        onnx.save(in_precision(exported(name, which, dynamic), precision, None, symmetric=True), path)
        artifact = backend.compile(path, Conditions(clock="gpu_compute", precision=precision))
        assert artifact.precision_share == 1.0, artifact.others
        assert artifact.targets == TARGETS
        assert artifact.inputs[0].shape[0] == (-1 if dynamic else 1)
        fused = convolved(node for layer in artifact.layers for node in layer.nodes)
        assert fused == convolved(node.name for node in onnx.load(path).graph.node if node.op_type == "Conv")
        counts.append(len(fused))
    assert counts[0] - counts[1] == gone
