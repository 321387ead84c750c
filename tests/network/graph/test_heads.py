"""Networks with several heads: what all of them read is one value, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.activations import find_feature, forward
from practise_deploy.network.graph.heads import ends_of, feature_of, has_heads, join_heads, scale_heads
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks, feature_in, weights_of
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.onnx_import.replacement import replacement
from practise_deploy.network.tracing.trace import annotate_shapes, trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings

SHAPE = (1, 3, 16, 16)


class Heads(nn.Module):
    """Maps of two sizes, each with a head of its own, behind residual units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (
            nn.Conv2d(3, 8, 3, 1, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
        )
        self.down, self.fine, self.coarse = nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = x + self.first(x).relu()
        x = x + self.second(x).relu()
        return self.fine(x), 100 * self.coarse(self.down(x))


@pytest.fixture
def traced():
    torch.manual_seed(0)
    network, _ = trace(Heads().eval(), SHAPE)
    join_heads(network)
    annotate_shapes(network, SHAPE)
    return network


def test_heads_inputs_are_one_value_and_the_outputs_stay(traced):
    feature = feature_of(traced)
    assert has_heads(traced) and feature.meta["shape"] == (1, 8 * 16 * 16 + 12 * 8 * 8)
    assert len(ends_of(traced)) == 3
    torch.manual_seed(0)
    assert all(map(torch.equal, traced(torch.ones(SHAPE)), Heads().eval()(torch.ones(SHAPE))))


def test_every_head_counts_alike_however_large_and_strong_it_is(traced):
    images = torch.randn(64, *SHAPE[1:])
    scale_heads(traced, images)
    feature = feature_of(traced)
    (joined,) = forward(traced, images, [feature])
    size = 8 * 16 * 16
    for part, share in ((joined[:, :size], 0.5), (joined[:, size:], 0.5)):
        assert float(part.var()) * part.shape[1] / joined.shape[1] == pytest.approx(share, rel=1e-3)


def test_joined_features_survive_a_drop_and_are_no_output_of_the_export(traced):
    blocks = find_blocks(traced, SHAPE)
    assert [block.droppable for block in blocks] == [True, True]
    student = drop_blocks(traced, [blocks[1]])
    assert has_heads(student) and feature_in(student, feature_of(traced).name, [blocks[1]]) == feature_of(traced).name
    model = to_onnx(student, SHAPE)
    assert [output.name for output in model.graph.output] == ["0", "1"]
    x = torch.randn(SHAPE)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for found, wanted in zip(session.run(None, {"input": x.numpy()}), student(x), strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_network_of_one_head_keeps_its_feature_map():
    network, _ = trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval(), SHAPE
    )
    before = len(network.graph.nodes)
    join_heads(network)
    assert not has_heads(network) and len(network.graph.nodes) == before
    assert feature_of(network) is find_feature(network)


def test_file_of_a_network_with_several_heads_is_written_back_without_the_scales(tmp_path):
    torch.manual_seed(0)
    whole, _ = trace(Heads().eval(), SHAPE)
    path = tmp_path / "heads.onnx"
    path.write_bytes(to_onnx(whole, SHAPE).SerializeToString())
    network = load_network(Settings(network=str(path)))
    assert network.translation is not None and has_heads(network.traced)
    block = next(block for block in find_blocks(network.traced, SHAPE) if block.droppable)
    scale_heads(network.traced, torch.randn(8, *SHAPE[1:]))
    student = drop_blocks(network.traced, [block])
    weights = {**weights_of(student), "feature_scales": np.array([3.0, 4.0], np.float32)}
    model = replacement(network.translation, [block], weights)
    x = torch.randn(SHAPE)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for found, wanted in zip(session.run(None, {"input": x.numpy()}), student(x), strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-3, atol=1e-4)


class States(nn.Module):
    """Tokens' states behind residual units and a norm, as an output beside what a layer makes of the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.units = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))
        self.norm, self.pooler = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        states = self.stem(x).flatten(2).transpose(1, 2)
        for unit in self.units:
            states = states + unit(states)
        states = self.norm(states)
        return {"last_hidden_state": states, "pooler_output": torch.tanh(self.pooler(states[:, 0]))}


def test_output_without_a_head_is_mimicked_by_the_last_residual_sum_and_no_unit_is_lost_to_it():
    traced, _ = trace(States().eval(), SHAPE)
    join_heads(traced)
    annotate_shapes(traced, SHAPE)
    assert feature_of(traced).meta["shape"] == (1, 16 * 8 + 8)
    blocks = find_blocks(traced, SHAPE)
    assert [block.droppable for block in blocks] == [True] * 3
    student = drop_blocks(traced, [blocks[-1]])
    (features,) = forward(student, torch.randn(4, *SHAPE[1:]), [feature_of(student)])
    assert features.shape == (4, 16 * 8 + 8)
