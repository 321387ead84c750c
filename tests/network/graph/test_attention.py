"""torch's own attention and transformer encoders: traced into where it can be, the same to the last digit or nearly so."""

import warnings

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.points import cuts_without_point, points_of
from samples.lessons import Silent, images, opened, recover

TOKENS, IMAGE = (2, 6, 8), (1, 3, 16, 16)


class Attends(nn.Module):
    """Attention of a stream to itself; `call` says how it is asked, `how` how it was made."""

    def __init__(self, call=lambda attention, x: attention(x, x, x, need_weights=False)[0], **how) -> None:
        super().__init__()
        self.call = call
        self.attention = nn.MultiheadAttention(8, 2, **{"batch_first": True, **how})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.call(self.attention, x)


class Encoder(nn.Module):
    """Patches, torch's encoder of pre-norm or post-norm layers, and a head."""

    def __init__(self, **how) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, **{"batch_first": True, **how})
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.encoder = nn.TransformerEncoder(layer, 3, nn.LayerNorm(8), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def vision_transformer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(VisionTransformer(16, 4, 3, 2, 8, 16, num_classes=5))


def shaken(network: nn.Module) -> nn.Module:
    """Weights as of a trained network: no bias is zero, no norm the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.double().eval()


def same(network: nn.Module, shape: tuple[int, ...]):
    """The traced network, which computes the same under the same names, and what stayed whole."""
    traced, whole = trace(shaken(network), shape)
    x = torch.randn((3, *shape[1:]), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(traced(x), network(x), rtol=1e-10, atol=1e-10)
    assert {name for name in traced.state_dict() if "constant" not in name} == network.state_dict().keys()
    return traced, whole


def weights_of_it(attention: nn.Module, x: Tensor, **asked) -> Tensor:
    found, weights = attention(x, x, x, **asked)
    return found * weights.flatten(1, -2).sum(1)[..., None]


CAUSAL = torch.ones(6, 6, dtype=torch.bool).triu(1)


def masked_by(**masks):
    """A call of attention with masks, of one image or made of the images."""

    def call(attention: nn.Module, x: Tensor) -> Tensor:
        made = {name: mask(x) if callable(mask) else mask for name, mask in masks.items()}
        return attention(x, x, x, need_weights=False, **made)[0]

    return call


def dark(x: Tensor) -> Tensor:
    return x.mean(2) > x.mean((1, 2))[:, None] + 0.1


@pytest.mark.parametrize(
    "network",
    [
        Attends(),
        Attends(lambda attention, x: attention(query=x, key=x, value=x)[0]),
        Attends(bias=False, dropout=0.5, kdim=8, vdim=8),
        Attends(weights_of_it),
        Attends(lambda attention, x: weights_of_it(attention, x, average_attn_weights=False)),
        Attends(lambda attention, x: weights_of_it(attention, x, attn_mask=CAUSAL)),
        Attends(masked_by(attn_mask=CAUSAL)),
        Attends(masked_by(attn_mask=torch.rand(6, 6).double())),
        Attends(masked_by(attn_mask=CAUSAL, is_causal=True)),
        Attends(masked_by(key_padding_mask=dark)),
        Attends(masked_by(key_padding_mask=lambda x: x.mean(2), attn_mask=torch.rand(6, 6).double())),
        Attends(masked_by(attn_mask=lambda x: (x @ x.transpose(1, 2)).repeat_interleave(2, 0))),
    ],
    ids=[
        "plain", "by name, weights thrown away", "no bias", "its weights are used", "weights by head are used",
        "masked, its weights are used", "mask", "mask of numbers", "causal mask", "padding", "both masks", "mask by head",
    ],
)  # fmt: skip
def test_attention_of_a_stream_to_itself_is_traced_into(network):
    traced, whole = same(network, TOKENS)
    assert whole == ()
    assert "attention.out_proj" in {node.target for node in traced.graph.nodes}


def test_attention_whose_weights_nobody_reads_does_not_compute_them():
    traced, _ = same(Attends(lambda attention, x: attention(x, x, x)[0]), TOKENS)
    assert not any("softmax" in node.name for node in traced.graph.nodes)


def hooked() -> nn.Module:
    network = Attends()
    network.attention.register_forward_hook(lambda module, given, found: (found[0] * 2, found[1]))
    return network


@pytest.mark.parametrize(
    "network",
    [
        Attends(lambda attention, x: attention(x, x * 2, x, need_weights=False)[0]),
        Attends(lambda attention, x: attention(x, x, x * 2, need_weights=False)[0]),
        Attends(batch_first=False),
        Attends(add_bias_kv=True),
        Attends(add_zero_attn=True),
        hooked(),
    ],
    ids=["other keys", "other values", "positions first", "bias of k and v", "zeros", "hook"],
)
def test_other_attention_stays_whole_and_is_named(network):
    _, whole = same(network, TOKENS)
    assert whole == ("attention",)


@pytest.mark.parametrize(
    "how",
    [
        {"norm_first": True},
        {"norm_first": True, "activation": "gelu", "bias": False},
        {"norm_first": False},
        {"norm_first": True, "activation": nn.SiLU()},
    ],
    ids=["pre-norm", "gelu without biases", "post-norm", "an activation that is a module"],
)
def test_encoder_of_torch_is_made_of_residual_units(how):
    _, whole = same(Encoder(**how), IMAGE)
    assert whole == ()
    _, _, blocks = opened(Encoder(**how).eval(), IMAGE)
    assert [name.rsplit(".", 1)[0] for name, block in blocks.items() if block.droppable] == [
        f"encoder.layers.{number}" for number in range(3) for _ in range(2)
    ]


class Masked(Encoder):
    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        mask, padding = torch.ones(16, 16, dtype=torch.bool).triu(1), dark(x) & (torch.arange(16) > 0)
        return self.head(self.encoder(x, mask, padding).mean(1))


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_with_masks_is_traced_into(norm_first):
    _, whole = same(Masked(norm_first=norm_first), IMAGE)
    assert whole == ()


def test_encoder_that_leaves_out_what_is_padded_stays_whole_and_is_named():
    network = Masked(norm_first=False)
    network.encoder.use_nested_tensor = True
    _, whole = same(network, IMAGE)
    assert whole == ("encoder",)


def test_encoder_with_positions_first_has_its_units_and_names_its_attention():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own advice on speed
        network = Encoder(norm_first=True, batch_first=False)
    _, whole = same(network, IMAGE)
    assert whole == tuple(f"encoder.layers.{number}.self_attn" for number in range(3))


@pytest.mark.parametrize("make", [vision_transformer, lambda: Encoder(norm_first=True)])
def test_cuts_behind_attention_are_refitted_by_its_output_projection(make):
    teacher, feature, blocks = opened(make().eval(), IMAGE)
    gone = [block for block in blocks.values() if block.droppable][1:2]  # a perceptron, behind an attention
    student = drop_blocks(teacher, gone)
    assert cuts_without_point(student, teacher, gone) == []
    first = points_of(student, teacher, gone, feature)[0]
    assert str(first.writers[0].operator.target).endswith("out_proj")
    recovered = recover(teacher, feature, gone, images(20, IMAGE), 0, Silent())
    assert recovered.mse < 0.9 * recovered.mse_before


class Windows(nn.Module):
    """Attention within windows, which have an axis of their own."""

    def forward(self, x: Tensor) -> Tensor:
        windows = x.reshape(x.shape[0], 2, 1, -1, x.shape[-1])
        return nn.functional.scaled_dot_product_attention(windows, windows * 2, windows).mean((1, 2, 3))


def test_attention_of_more_axes_is_exported():
    shape = (1, 3, 8, 8)
    traced, _ = trace(Windows().eval(), shape)
    x = torch.randn(shape)
    session = onnxruntime.InferenceSession(
        to_onnx(traced, shape).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), traced(x), rtol=1e-4, atol=1e-5
    )
