"""What an int8 network keeps in float: by hand, and on networks that lose what they say without it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from networks import tiny_mobilenet, tiny_resnet
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment import precision
from practise_deploy.deployment.float_operators import kept_in_float
from practise_deploy.deployment.precision import to_int8
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.tracing.trace import trace
from samples.lessons import MOBILENET, RESNET, images

SHAPE = (1, 3, 8, 8)


def kept(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in kept_in_float(model.graph))


def exported(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    return to_onnx(trace(network.eval(), shape)[0], shape)


@pytest.mark.parametrize(("make", "shape"), [(tiny_resnet, RESNET), (tiny_mobilenet, MOBILENET)])
def test_classifier_that_ends_with_a_layer_keeps_nothing(make, shape):
    assert not kept(exported(make(), (1, *shape[1:])))


class Masked(nn.Module):
    """Attention with a mask of -1e38 and a norm behind its sum, as BERT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = (nn.Linear(3, 16) if n == 0 else nn.Linear(16, 16) for n in range(4))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2).transpose(1, 2))
        mask = torch.where(torch.arange(64) < 48, 0.0, -1e38)
        weights = (self.q(tokens) @ self.k(tokens).transpose(1, 2) / 4 + mask).softmax(-1)
        return self.head(self.norm(tokens + weights @ self.v(tokens)).mean(1))


class Boxes(nn.Module):
    """Boxes in pixels beside scores of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.boxes, self.scores = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x).relu()
        return torch.cat([self.boxes(features).exp() * 300, self.scores(features).sigmoid()], 1)


def test_softmax_with_its_mask_and_norms_with_their_sums_stay():
    found = kept(exported(Masked()))
    assert (found["Softmax"], found["LayerNormalization"], found["MatMul"]) == (1, 1, 0)
    assert found["Add"] == 6  # of the mask, of the stream, and the biases of four layers, whose products are in float


def test_everything_behind_the_last_layers_stays():
    found = kept(exported(Boxes()))
    assert found == {"Exp": 1, "Mul": 1, "Sigmoid": 1, "Concat": 1}


def test_walk_from_an_output_ends_at_a_sum_that_a_layer_writes_into():
    """The whole stream of a residual network leads to the outputs of one without a classifier."""

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = (nn.Conv2d(3 if n == 0 else 8, 8, 3, padding=1) for n in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = (x + self.one(x)).relu()
            return (x + self.two(x)).relu().mean((2, 3))

    found = kept(exported(Features()))
    assert (found["Add"], found["Relu"], found["ReduceMean"]) == (1, 1, 1)


def difference(network: nn.Module, monkeypatch: pytest.MonkeyPatch, *, keep: bool) -> float:
    """How far the int8 network is from the one in float, over the spread of each output's numbers by their kind."""
    if not keep:
        monkeypatch.setattr(precision, "kept_in_float", lambda graph: [])
    model, data = exported(network), images(16, SHAPE)
    x = data.batch(slice(None))
    backend, outputs = OrtBackend(), []
    for each in (model, to_int8(model, data, symmetric=False)):
        at = Conditions()
        engine = backend.open(backend.compile(each.SerializeToString(), at), at)
        outputs.append(np.concatenate([engine.run({"input": one[None].numpy()})["logits"] for one in x]))
    float_, int8 = (each.reshape(len(x), each.shape[1], -1) for each in outputs)
    axes = (0, 2)
    return float((np.square(float_ - int8).mean(axes) / float_.var(axes)).max())


@pytest.mark.parametrize("make", [Masked, Boxes])
def test_what_the_rule_keeps_is_what_int8_would_break(make, monkeypatch):
    torch.manual_seed(0)
    network = make().eval()
    assert difference(network, monkeypatch, keep=True) < 0.01
    assert difference(network, monkeypatch, keep=False) > 0.05


def test_operators_without_a_name_of_their_own_are_kept_too():
    model = exported(Boxes())
    for node in model.graph.node:
        node.name = ""
    quantised = to_int8(model, images(8, SHAPE), symmetric=False)
    read = {name for node in quantised.graph.node if node.op_type == "Concat" for name in node.input}
    assert not read & {
        name for node in quantised.graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
