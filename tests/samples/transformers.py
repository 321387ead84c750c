"""Transformers in the forms that they are written in, on the patches of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

SHAPE = (1, 3, 8, 8)
WIDTH, HEADS, POSITIONS = 8, 2, 16


class SelfAttention(nn.Module):
    """As BERT has it: three layers, and what masks is added to the scores. memory: what is attended to, if not the input."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        n, positions, width = x.shape
        memory = x if memory is None else memory
        q, k, v = (
            layer(each).view(n, positions, HEADS, width // HEADS).permute(0, 2, 1, 3)
            for layer, each in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        scores = q @ k.transpose(-1, -2) / (width // HEADS) ** 0.5
        scores = scores if mask is None else scores + mask
        return self.output((scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(n, positions, width))


class Layer(nn.Module):
    """Attention and a perceptron, with a norm of each; `form` says how they meet."""

    def __init__(self, form: Callable[[Layer, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.form, self.attention = form, SelfAttention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.norm1, self.norm2, self.drop = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), StochasticDepth(0.2, "row")
        self.gamma = nn.Parameter(torch.empty(WIDTH).uniform_(0.5, 1.5))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.form(self, x, padding)


def _scores_mask(padding: Tensor) -> Tensor:
    return padding[:, None, None, :].float() * -1e4


def _pre_norm(layer: Layer, x: Tensor, padding: Tensor) -> Tensor:
    x = x + layer.drop(layer.attention(layer.norm1(x), _scores_mask(padding)))
    return x + layer.drop(layer.gamma * layer.mlp(layer.norm2(x)))


def _post_norm(layer: Layer, x: Tensor, padding: Tensor) -> Tensor:
    x = layer.norm1(F.dropout(layer.attention(x, _scores_mask(padding)), 0.1, layer.training) + x)
    return layer.norm2(F.dropout(layer.mlp(x), 0.1, layer.training) + x)


def _parallel(layer: Layer, x: Tensor, padding: Tensor) -> Tensor:
    n = layer.norm1(x)
    return x + layer.attention(n, _scores_mask(padding)) + layer.mlp(n)


def _parallel_branches_first(layer: Layer, x: Tensor, padding: Tensor) -> Tensor:
    n = layer.norm1(x)
    return layer.mlp(n) + layer.attention(n) + x


def _deep_norm(layer: Layer, x: Tensor, padding: Tensor) -> Tensor:
    """As DeepNet has it: the skip is scaled, and the norm is behind the sum."""
    x = layer.norm1(1.5 * x + layer.attention(x))
    return layer.norm2(torch.add(layer.mlp(x), x, alpha=1.5))


class Patches(nn.Module):
    """Patches, layers and a head; some patches are padding. Shapes: float[n, 3, 8, 8] in, float[n, 4] out."""

    def __init__(
        self, make_layer: Callable[[], nn.Module], call: Callable[[nn.Module, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.patches, self.head, self.call = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 4), call
        self.layers = nn.ModuleList(make_layer() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        brightness = images.mean(1, keepdim=True)
        brightness = F.avg_pool2d(brightness, 2).flatten(1)
        padding = brightness > brightness.mean(1, keepdim=True) + 0.1
        for layer in self.layers:
            x = self.call(layer, x, padding)
        return self.head(x.mean(1))


class Cross(nn.Module):
    """Attention to the first layer's input, which stays what it is, as that of a decoder to what was encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 4)
        self.layers = nn.ModuleList(Layer(_pre_norm) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        memory = self.patches(images).flatten(2).transpose(1, 2)
        x = memory.roll(1, 1).tanh()
        for layer in self.layers:
            x = x + layer.attention(layer.norm1(x), None, memory)
            x = x + layer.mlp(layer.norm2(x))
        return self.head(x.mean(1))


class PreNormOfTorch(nn.Module):
    """torch's attention within a layer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        n = self.norm(x)
        x = x + self.attention(n, n, n, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(x)


def _of_torch(**how: Any) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True, **how)


def _both_masks(layer: nn.Module, x: Tensor, padding: Tensor) -> Tensor:
    causal = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1)
    return layer(x, src_mask=causal, src_key_padding_mask=padding & (torch.arange(POSITIONS) > 0))


def _plainly(layer: nn.Module, x: Tensor, padding: Tensor) -> Tensor:
    return layer(x, padding)


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pre-norm": lambda: Patches(lambda: Layer(_pre_norm), _plainly),
    "post-norm": lambda: Patches(lambda: Layer(_post_norm), _plainly),
    "parallel": lambda: Patches(lambda: Layer(_parallel), _plainly),
    "parallel, branches first": lambda: Patches(lambda: Layer(_parallel_branches_first), _plainly),
    "DeepNorm": lambda: Patches(lambda: Layer(_deep_norm), _plainly),
    "cross-attention": Cross,
    "torch's attention": lambda: Patches(PreNormOfTorch, _plainly),
    "torch, pre-norm, padding": lambda: Patches(
        _of_torch(norm_first=True), lambda layer, x, padding: layer(x, src_key_padding_mask=padding)
    ),
    "torch, post-norm, padding": lambda: Patches(
        _of_torch(), lambda layer, x, padding: layer(x, src_key_padding_mask=padding)
    ),
    "torch, pre-norm, both masks": lambda: Patches(_of_torch(norm_first=True, activation="gelu"), _both_masks),
    "torch, post-norm, both masks": lambda: Patches(_of_torch(), _both_masks),
}
TRANSFORMERS = tuple(_NETWORKS)
"""Each of two layers, and so of four units."""


def transformer(name: str) -> nn.Module:
    """Such a network, always the same, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _NETWORKS[name]().eval()
