"""The networks of the grid with their images, loaded as the product loads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from practise_deploy.errors import InputError
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages, HeldOutImages, image_size_of, load_images
from practise_deploy.network.graph.activations import batches, forward, logits_of, node_by_name
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.settings import Settings
from practise_deploy.terms import Block, Student
from practise_deploy.training.distillation import Distillation, distillation_of, find_hints

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data"
INNER = {
    "resnet20": r"layer\d\.\d+\.conv1$",
    "resnet56": r"layer\d\.\d+\.conv1$",
    "efficientnet-lite0": r"_blocks\.\d+\._expand_conv$",
    "torchvision:resnet34": r"layer\d\.\d+\.conv1$",
    "torchvision:resnet50": r"layer\d\.\d+\.conv[12]$",
    "torchvision:mobilenet_v2": r"features\.\d+\.conv\.0\.0$",
    "mobilenetv2": r"units\.\d+\.body\.0$",
}
"""The convolutions whose outputs stay within a residual unit: the widths that filter pruning may change."""

_BATCH = 100


def folder_of(data: Path) -> Path:
    """The folder of networks and images, absolute; ends the script where there is none."""
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; --data names the one with the networks and images (docs/reproducing.md)")
    return data.resolve()


def settings_of(name: str, data: Path) -> Settings:
    """What the product is told about a network of the grid. data: the folder with the networks and images."""
    if name in ("resnet20", "resnet56"):
        cifar = data / "cifar10"
        network = f"{ROOT / 'benchmarks' / 'cifar_resnets.py'}:make_{name}"
        return Settings(
            network=network, weights=cifar / f"{name}.pt", data=cifar / "train.npz", eval=cifar / "test.npz"
        )
    if name == "mobilenetv2":
        here = data / "mobilenetv2"
        return Settings(
            network=f"{here / 'net.py'}:mobilenet", weights=here / "mobilenetv2.pth", mean=(0.5,) * 3, std=(0.5,) * 3,
            input_size=224, data=data / "imagenet-one-per-class", eval=data / "imagenette" / "val",
        )  # fmt: skip
    folder = "imagenet" if name.startswith("torchvision:") else "imagenette"
    return Settings(network=name, data=data / folder / "train", eval=data / folder / "val")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a network answers on the test images. feature_error: of its pre-pooling features against the teacher's."""

    correct: npt.NDArray[np.bool_]
    feature_error: float


@dataclass(slots=True)
class Subject:
    """A network, its residual units, the images that tiny sets are drawn from, and those that judge."""

    name: str
    settings: Settings
    network: Network
    blocks: tuple[Block, ...]
    pool: FitImages
    test: HeldOutImages
    _features: list[Tensor] = field(default_factory=list, repr=False)
    _correct: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def teacher(self) -> fx.GraphModule:
        """The network as it came."""
        return self.network.traced

    @property
    def feature(self) -> str:
        """The teacher's pre-pooling feature map."""
        return self.network.summary.feature

    @property
    def candidates(self) -> tuple[Block, ...]:
        """The units that can be dropped."""
        return droppable(self.blocks)

    def named(self, names: tuple[str, ...]) -> list[Block]:
        """Units by name, in the network's order."""
        return [block for block in self.blocks if block.name in names]

    def tiny_set(self, images: int, seed: int) -> FitImages:
        """So many images, drawn at random with the seed."""
        if images > len(self.pool):
            raise InputError(
                f"{self.name} has {len(self.pool)} images to draw from, not {images}", remedy="ask for fewer images"
            )
        return self.pool.subsample(images, seed)

    def calibration(self, images: FitImages | int, seed: int) -> CalibrationProblem:
        """What is learned from a tiny set, or from that of so many images, judged in fp32."""
        fit = self.tiny_set(images, seed) if isinstance(images, int) else images
        return CalibrationProblem(teacher=self.teacher.cpu(), feature=self.feature, images=fit, seed=seed)

    def pair(self, student: fx.GraphModule, start: Student, device: torch.device) -> Distillation:
        """A student of this start beside its teacher, as the product finetunes it."""
        gone = self.named(start.dropped)
        hints = find_hints(student, self.blocks, gone, self.feature)
        return distillation_of(student, self.teacher, self.feature, gone, hints=hints, device=device)

    def judge(self, student: fx.GraphModule, feature: str, device: torch.device) -> Judgement:
        """The student on the test images, in fp32 and eval mode."""
        wanted = self._wanted(device)
        correct, total = [], 0.0
        for number, (right, found) in enumerate(_answers(student, feature, self.test, device)):
            correct.append(right)
            total += float((wanted[number].to(device) - found).float().square().mean()) * len(found)
        return Judgement(np.concatenate(correct), total / len(self.test))

    def teacher_correct(self, device: torch.device) -> npt.NDArray[np.bool_]:
        """The teacher's answers, computed once a process."""
        self._wanted(device)
        assert self._correct is not None
        return self._correct

    def _wanted(self, device: torch.device) -> list[Tensor]:
        if self._correct is None:
            answers = [(right, f.half().cpu()) for right, f in _answers(self.teacher, self.feature, self.test, device)]
            self._features = [features for _, features in answers]  # in half precision: errors are far larger
            self._correct = np.concatenate([right for right, _ in answers])
        return self._features


def _answers(
    network: fx.GraphModule, feature: str, images: HeldOutImages, device: torch.device
) -> Iterator[tuple[npt.NDArray[np.bool_], Tensor]]:
    """Whether each image is told right, and the feature maps, batch by batch."""
    assert images.labels is not None
    network.to(device).eval()
    wanted = [logits_of(network), node_by_name(network, feature)]
    for part in batches(len(images), _BATCH):
        with torch.no_grad():
            logits, features = forward(network, images.batch(part).to(device), wanted)
        yield (logits.argmax(1).cpu() == images.labels[part]).numpy(), features


@lru_cache(maxsize=1)
def load_subject(name: str, data: Path) -> Subject:
    """A network of the grid; loaded once for as long as no other is asked for."""
    return subject_of(name, settings_of(name, data))


def subject_of(name: str, settings: Settings) -> Subject:
    """A network with its images, as the product is told of them."""
    network = load_network(settings, image_size=image_size_of(settings))
    images = load_images(settings, network.summary)
    blocks = find_blocks(network.traced, network.input_shape)
    return Subject(name, settings, network, blocks, images.fit, images.held_out)


Loader = Callable[[str], Subject]
