"""Small networks that run in milliseconds.

They come seeded, in eval mode, with BatchNorm statistics measured on noise, so that folding and
refitting have something to do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock

CLASSES = 10
SEED = 2021


class TinyResNet(nn.Module):
    """Named as torchvision names its ResNets. Shapes: float[n, 3, 16, 16] in, float[n, 10] logits out."""

    def __init__(self, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(_projected_block, 8, 8, 1, blocks_per_stage)
        self.layer2 = _stage(_projected_block, 8, 16, 2, blocks_per_stage)
        self.layer3 = _stage(_projected_block, 16, 32, 2, blocks_per_stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class TinyMobileNet(nn.Module):
    """Inverted residuals on a linear stream. Shapes: float[n, 3, 32, 32] in, float[n, 10] logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(3, 16, 3, 2, nn.ReLU6),
            InvertedResidual(16, 16, stride=1, expand_ratio=1),
            InvertedResidual(16, 24, stride=2, expand_ratio=4),
            InvertedResidual(24, 24, stride=1, expand_ratio=4),
            InvertedResidual(24, 24, stride=1, expand_ratio=4),
            InvertedResidual(24, 32, stride=2, expand_ratio=4),
            InvertedResidual(32, 32, stride=1, expand_ratio=4),
            InvertedResidual(32, 32, stride=1, expand_ratio=4),
            _convolution(32, 64, 1, 1, nn.ReLU6),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Attention(nn.Module):
    """Two heads; its last layer is a linear one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(heads[0], heads[1], heads[2]).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Two residual units, attention and perceptron, the latter with a scale of its own for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.empty(width).uniform_(0.5, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.gamma * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TinyTransformer(nn.Module):
    """A class token and 16 patches. Shapes: float[n, 3, 16, 16] in, float[n, 10] logits out."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width) / 4)
        self.blocks = nn.Sequential(*(TransformerBlock(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowBlock(nn.Module):
    """Attention within windows of 4x4 positions, shifted perhaps, and a perceptron on all of them as tokens, as in Swin."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.shift = nn.LayerNorm(width), Attention(width), shift
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        x = x + self._attended(self.norm1(x))
        x = x.reshape(n, -1, channels)
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x.reshape(n, height, width, channels)

    def _attended(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = self.attn(x.reshape(-1, 16, channels))
        x = x.view(-1, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, height, width, channels)[:, :height, :width].contiguous()
        return torch.roll(x, (self.shift, self.shift), (1, 2))


class TinySwin(nn.Module):
    """Two blocks on 8x8 positions. Shapes: float[n, 3, 16, 16] in, float[n, 10] logits out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, 2)
        self.blocks = nn.Sequential(WindowBlock(width, 0), WindowBlock(width, 2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x).permute(0, 2, 3, 1))).mean((1, 2)))


def plain_network() -> nn.Module:
    """No residual anywhere. Shapes: float[n, 3, 16, 16] in, float[n, 10] logits out."""
    return _seeded(_make_plain, (3, 16, 16))


def tiny_resnet() -> nn.Module:
    """Three stages of three basic blocks; a projection begins the second and the third."""
    return _seeded(lambda: TinyResNet(blocks_per_stage=3), (3, 16, 16))


def tiny_mobilenet() -> nn.Module:
    """Seven inverted residuals; `features.1`, `.3`, `.4`, `.6` and `.7` have an identity shortcut."""
    return _seeded(TinyMobileNet, (3, 32, 32))


def tiny_convnext() -> nn.Module:
    """torchvision's ConvNeXt of four blocks, each ending in a linear layer, a permutation and a scale. For 32x32 images."""
    stages = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)]
    network = _seeded(lambda: ConvNeXt(stages, num_classes=CLASSES), (3, 32, 32))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        for name, weight in network.named_parameters():
            if name.endswith("layer_scale"):
                nn.init.uniform_(weight, 0.5, 1.5)
            elif weight.ndim > 1:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return network


def tiny_transformer() -> nn.Module:
    """Three blocks of two residual units each."""
    return _seeded(lambda: TinyTransformer(width=12, depth=3), (3, 16, 16))


def tiny_swin() -> nn.Module:
    """Two blocks of two residual units each, whose positions are put into windows and out again."""
    return _seeded(lambda: TinySwin(width=12), (3, 16, 16))


def _make_plain() -> nn.Module:
    return nn.Sequential(
        _convolution(3, 8, 3, 1, nn.ReLU),
        _convolution(8, 16, 3, 2, nn.ReLU),
        _convolution(16, 32, 3, 2, nn.ReLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def _seeded(make: Callable[[], nn.Module], shape: tuple[int, int, int]) -> nn.Module:
    """Make it the same each time, without touching torch's generator; noise fills the running statistics."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        network = make().train()
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
        for _ in range(20):
            network(torch.randn(32, *shape))
    return network.eval()


def _stage(
    block: Callable[[int, int, int], nn.Module], in_width: int, width: int, stride: int, blocks: int
) -> nn.Sequential:
    return nn.Sequential(block(in_width, width, stride), *(block(width, width, 1) for _ in range(blocks - 1)))


def _projected_block(in_width: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and in_width == width:
        return BasicBlock(in_width, width)
    projection = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return BasicBlock(in_width, width, stride, projection)


def _convolution(in_width: int, width: int, kernel: int, stride: int, activation: type[nn.Module]) -> nn.Sequential:
    convolution = nn.Conv2d(in_width, width, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), activation())
