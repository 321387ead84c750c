"""Whole networks, as torch's exporters write them: the same outputs as ONNX Runtime's, and the blocks of the network itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from networks import tiny_convnext, tiny_mobilenet, tiny_resnet, tiny_swin, tiny_transformer
from practise_deploy.network.onnx_import.comparison import check_translation
from practise_deploy.network.tracing.trace import annotate_shapes, trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.terms import Block
from samples.exporting import Export
from samples.onnx_files import computed, in_torch, noise, translated

torch.set_num_threads(1)


def of_torchvision(name: str) -> Callable[[], nn.Module]:
    return partial(getattr(torchvision.models, name), weights=None, num_classes=10)


def of_timm(name: str, **how: int) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, pretrained=False, num_classes=10, **how)


TINY = {
    "resnet": (tiny_resnet, 16),
    "mobilenet": (tiny_mobilenet, 32),
    "convnext": (tiny_convnext, 32),
    "transformer": (tiny_transformer, 16),
    "swin": (tiny_swin, 16),
}
REAL = {
    "resnet18": (of_torchvision("resnet18"), 64),
    "mobilenet_v3_small": (of_torchvision("mobilenet_v3_small"), 64),
    "efficientnet_b0": (of_timm("efficientnet_b0"), 64),
    "convnext_atto": (of_timm("convnext_atto"), 64),
    "vit_tiny": (of_timm("vit_tiny_patch16_224", img_size=64), 64),
    "swin_t": (of_torchvision("swin_t"), 64),
    "regnet_y_400mf": (of_torchvision("regnet_y_400mf"), 64),
    "densenet121": (of_torchvision("densenet121"), 64),
}
OLD = [Export(False, 9), Export(False, 11, "sides"), Export(False, 13, "batch", folded=False)]
NEW = [Export(False, 17, folded=False), Export(False, 20, "batch"), Export(True, 18), Export(True, 20, "batch")]
FIRST_OPSET = {"transformer": 17, "swin": 17, "vit_tiny": 17, "swin_t": 17}
"""Of networks whose operators no older export has."""


def exports(networks: dict[str, tuple[Callable[[], nn.Module], int]], ways: list[Export]) -> list[object]:
    """Each of the networks in each of the ways that it can be exported in."""
    return [
        pytest.param(make, side, way, id=f"{name}, {way}")
        for name, (make, side) in networks.items()
        for way in ways
        if way.opset >= FIRST_OPSET.get(name, 0)
    ]


def same_as_in_the_network(make: Callable[[], nn.Module], side: int, way: Export, folder: Path) -> None:
    """Outputs for one, two and three images, and blocks that can be dropped."""
    shape = (1, 3, side, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().eval()
    model = way.of(network, shape)
    translation = translated(model, folder, (side, side))
    for count in (1, 2, 3):
        images = noise(count, *shape[1:], seed=count)
        expected = computed(model, images)[0]
        np.testing.assert_allclose(in_torch(translation, images), expected, atol=1e-4 * np.abs(expected).max())
    check_translation(translation, torch.from_numpy(images))
    annotate_shapes(translation.network, shape)
    found = find_blocks(translation.network, shape)
    assert droppable(found) == droppable(find_blocks(trace(network, shape)[0], shape))
    ends = {end for block in found if block.droppable for end in (block.entry, block.exit)}
    assert ends <= translation.values.keys()


def droppable(blocks: tuple[Block, ...]) -> list[tuple[int, ...]]:
    """Their shapes: how a normalisation is folded decides on parameters and names."""
    return [block.shape for block in blocks if block.droppable]


@pytest.mark.parametrize("make, side, way", exports(TINY, OLD + NEW))
def test_small_network_is_itself_again(make: Callable[[], nn.Module], side: int, way: Export, tmp_path: Path):
    same_as_in_the_network(make, side, way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make, side, way", exports(REAL, OLD + NEW))
def test_network_of_a_library_is_itself_again(make: Callable[[], nn.Module], side: int, way: Export, tmp_path: Path):
    same_as_in_the_network(make, side, way, tmp_path)
