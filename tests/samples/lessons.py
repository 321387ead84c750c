"""What the tests of refitting share: random images, traced networks, and students solved without a ridge."""

import torch
from torch import Tensor, nn

from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import find_feature, forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks, feature_in, load_weights
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit import recover as sequence
from practise_deploy.refit import recoverability
from practise_deploy.refit.partial_student import PartialStudent
from practise_deploy.refit.solvers import Solver, SolverKind
from practise_deploy.terms import Preprocessing
from practise_deploy.training.distillation import Distillation

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


class Silent:
    def advance(self, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total


def images(
    count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 3, few: int = 8
) -> FitImages:
    """Noise. few: fewer images are cross-validated; one split is enough, unless a test is about folds."""
    pixels = torch.randn((count, *shape[1:]), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    side = shape[-1]
    prepared = Preprocessing(
        channels=shape[1], size=(side, side), resize=side, mean=(0.0,) * shape[1], std=(1.0,) * shape[1],
        interpolation="bilinear", augment="none",
    )  # fmt: skip
    return FitImages(pixels, None, prepared, cross_validate_below=few)


def photos(count: int, augment: str = "crop-flip") -> FitImages:
    """Bytes of noise, as files would give them, and the same augmentation as the product's."""
    pixels = torch.randint(0, 256, (count, *RESNET[1:]), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    prepared = Preprocessing(
        channels=3,
        size=(16, 16),
        resize=16,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        interpolation="bilinear",
        augment=augment,
    )
    return FitImages(pixels, None, prepared)


def opened(network: nn.Module, shape: tuple[int, ...]):
    traced, _ = trace(network, shape)
    return traced, find_feature(traced).name, {block.name: block for block in find_blocks(traced, shape)}


def in_double(network: nn.Module, shape: tuple[int, ...]):
    """In fp64: every difference that a test sees is a difference of method."""
    teacher, feature, blocks = opened(network, shape)
    return teacher.double(), feature, blocks


def measure_recoverability(teacher, feature, blocks, data, seed, progress):
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=data, seed=seed)
    return recoverability.measure_recoverability(calibration, blocks, progress).of


def recover(teacher, feature, dropped, data, seed, progress):
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=data, seed=seed)
    return sequence.recover(calibration, dropped, progress)


def refitted(teacher, feature, dropped, data, count: int | None = None):
    """A student whose first sites are solved without a ridge, one after another, and all its sites."""
    refit = Solver(SolverKind.RIDGE, lambda sums, start: sums.solve(0.0, start))
    with torch.no_grad():
        chain = PartialStudent(CalibrationProblem(teacher=teacher, feature=feature, images=data), dropped, data, None)
        for _ in range(len(chain.points) if count is None else count):
            chain.fit([refit])
            chain.solve({"refit": refit})
            chain.take("refit")
    return chain.student, chain.points


class LinearBlock(nn.Module):
    """x + W x: a linear map of the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Branched(nn.Module):
    """x + f(x) on a linear stream; what f makes has few channels, so it can hardly undo what x brings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Mixed(nn.Module):
    """A linear stream with a block that is but a linear map of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.first, self.mixing, self.second = Branched(6), LinearBlock(6), Branched(6)
        self.head, self.pool, self.fc = nn.Conv2d(6, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.mixing(self.first(self.stem(x))))
        return self.fc(self.pool(self.head(x).relu()).flatten(1))


class LinearStream(nn.Module):
    """A writer (with its norm), a block that it can absorb, and something behind both."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.writer = nn.Conv2d(5, 6, 3, padding=1, bias=not normed)
        self.norm: nn.Module = nn.BatchNorm2d(6) if normed else nn.Identity()
        self.block = LinearBlock(6)
        self.behind = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.behind(self.block(self.norm(self.writer(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


def held_out_error(teacher, feature, blocks, student, x: FitImages) -> tuple[float, float]:
    """Of the plain drop and of the recovered student, on images that `recover` did not have."""
    plain, recovered = drop_blocks(teacher, blocks), drop_blocks(teacher, blocks)
    load_weights(recovered, student.weights)
    name = feature_in(plain, feature, blocks)
    return tuple(Distillation(each, teacher, name, feature).error(x, 64) for each in (plain, recovered))


def features_of(pair: Distillation, x: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's feature maps."""
    with torch.no_grad():
        (wanted,) = forward(pair.teacher, x, [node_by_name(pair.teacher, pair.teacher_feature)])
        (found,) = forward(pair.student, x, [node_by_name(pair.student, pair.student_feature)])
    return wanted, found
