"""Attention and perceptron are units of their own in every form of a transformer, masked or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from practise_deploy.network.graph.onnx_graph import with_splices, without_blocks
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit.points import points_of
from samples.lessons import Silent, images, opened, recover
from samples.residuals import droppable_of, onnx_output, outputs, without_branches
from samples.transformers import SHAPE, TRANSFORMERS, transformer

torch.set_num_threads(1)  # networks this small run slower on two


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_layer_has_two_units_and_dropping_one_is_zero_for_its_branch(name: str) -> None:
    module = transformer(name)
    traced, leaves = trace(module, SHAPE)
    blocks = find_blocks(traced, SHAPE)
    assert leaves == () and sum(block.droppable for block in blocks) == 4
    for block in droppable_of(blocks):
        student = drop_blocks(traced, [block])
        torch.testing.assert_close(
            outputs(student, SHAPE), outputs(without_branches(module, traced, student), SHAPE), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_dropping_in_onnx_equals_dropping_in_torch(name: str) -> None:
    traced, _ = trace(transformer(name), SHAPE)
    blocks = droppable_of(find_blocks(traced, SHAPE))
    model = with_splices(traced, blocks, SHAPE)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    for dropped in ([], blocks[:1], blocks[1:2], blocks[1:3], blocks):
        with torch.no_grad():
            expected = drop_blocks(traced, dropped)(x).numpy()
        np.testing.assert_allclose(
            onnx_output(without_blocks(model, dropped), x.numpy()), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_a_unit_did_is_learned_by_the_layers_that_are_left(name: str) -> None:
    teacher, feature, blocks = opened(transformer(name), SHAPE)
    block = droppable_of(list(blocks.values()))[1]
    points = points_of(drop_blocks(teacher, [block]), teacher, [block], feature)
    assert points and all(writer.layer.weight.ndim == 2 for point in points for writer in point.writers)
    student = recover(teacher, feature, [block], images(20, SHAPE), 0, Silent())
    assert student.mse < student.mse_before


def test_norm_behind_the_sum_stays_when_its_unit_goes() -> None:
    teacher, _, blocks = opened(transformer("post-norm"), SHAPE)
    student = drop_blocks(teacher, droppable_of(list(blocks.values())))
    norms = [str(node.target) for node in student.graph.nodes if "norm" in str(node.target)]
    assert norms == [f"layers.{layer}.norm{norm}" for layer in (0, 1) for norm in (1, 2)]


def test_mask_stays_with_the_layers_that_are_left() -> None:
    teacher, _, blocks = opened(transformer("torch, pre-norm, padding"), SHAPE)
    first = droppable_of(list(blocks.values()))[0]
    assert "gt" in {node.name for node in drop_blocks(teacher, [first]).graph.nodes}
