"""The shipped default: a ResNet-20 that reads handwritten digits, and the tiny set that goes with it.

`benchmarks/reproduce/embedded_digits.py` made both files; `NOTICE` says where their content comes from.

Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section 4.2, with projection
shortcuts (option B) where a stage begins.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

WEIGHTS: Path = Path(__file__).with_name("digits.safetensors")
"""The state dict of `make_digits_network()`, fp32."""

IMAGES: Path = Path(__file__).with_name("digits.npz")
"""`fit_images` uint8[100, 28, 28], `held_out_images` uint8[500, 28, 28]; `*_labels` int64."""

CLASSES = 10
WIDTHS = (16, 32, 64)
BLOCKS_PER_STAGE = 3

PRETRAINED_CFG: dict[str, Any] = {
    "input_size": (1, 28, 28),
    "mean": (0.1307,),
    "std": (0.3081,),
    "interpolation": "bilinear",
    "augment": "crop",
}
"""How images were prepared in training, in timm's keys; mean and std are of pixels in [0, 1]."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, added and rectified."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_width, width, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        skip = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu2(branch + skip)
        return out


class DigitsNetwork(nn.Module):
    """Shapes: float[n, 1, 28, 28] in, float[n, 10] logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[2], CLASSES)
        self.pretrained_cfg = dict(PRETRAINED_CFG)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # [n, 16, 28, 28]
        x = self.layer1(x)
        x = self.layer2(x)  # [n, 32, 14, 14]
        x = self.layer3(x)  # [n, 64, 7, 7]
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def make_digits_network() -> nn.Module:
    """Build the network with fresh weights; the trained ones are in `WEIGHTS`."""
    return DigitsNetwork()


def _stage(in_width: int, width: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_width, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(BLOCKS_PER_STAGE - 1)))


def _shortcut(in_width: int, width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_width == width:
        return None
    return nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))
