"""ResNets for CIFAR-10: `cifar10/resnet20.pt` and `cifar10/resnet56.pt` are their weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


class LambdaLayer(nn.Module):
    """A module without parameters around a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class CifarBlock(nn.Module):
    """A basic block with an option-A shortcut: subsampled and zero-padded, without parameters.

    Source: He et al. (CVPR 2016), section 4.2.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_width != width:
            self.shortcut = LambdaLayer(_subsample_and_pad((width - in_width) // 2))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out = out + self.shortcut(x)
        return F.relu(out)


class CifarResNet(nn.Module):
    """Shapes: float[n, 3, 32, 32] in, float[n, 10] logits out."""

    def __init__(self, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(CifarBlock, 16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(CifarBlock, 16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(CifarBlock, 32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def cifar_resnet(depth: int) -> nn.Module:
    """A CIFAR ResNet of 6n + 2 layers with fresh weights; `cifar10/resnet20.pt` and `resnet56.pt` fit it."""
    blocks_per_stage, rest = divmod(depth - 2, 6)
    if rest or blocks_per_stage < 1:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, not {depth}")
    return CifarResNet(blocks_per_stage)


def make_resnet20() -> nn.Module:
    return cifar_resnet(20)


def make_resnet56() -> nn.Module:
    return cifar_resnet(56)


def _stage(
    block: Callable[[int, int, int], nn.Module], in_width: int, width: int, stride: int, blocks: int
) -> nn.Sequential:
    return nn.Sequential(block(in_width, width, stride), *(block(width, width, 1) for _ in range(blocks - 1)))


def _subsample_and_pad(channels_each_side: int) -> Callable[[Tensor], Tensor]:
    def shortcut(x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, channels_each_side, channels_each_side))

    return shortcut
