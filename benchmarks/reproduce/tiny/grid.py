"""The grid of independent units: network, reduction, images, method, seed. Pure; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

SCHEMA = 1
SCORES = "scores"
BLOCKS = ("ours", "paper", "labels", "kd", "random", "smallest-error")
FILTERS = ("filters-mir", "filters-kd", "filters-labels")
METHODS = (*BLOCKS, *FILTERS)
SCORED = ("paper", "labels", "kd")
STRONGEST = ("ours", "paper", "smallest-error", "filters-mir")
MET_AT = "estimate"  # so that 22% are two blocks of ResNet-20, as in the paper; a build asks for the low end
TORCHVISION = ("torchvision:resnet34", "torchvision:resnet50", "torchvision:mobilenet_v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One run: a network pruned, recovered and judged.

    reduction: asked, in percent of the latency; 0 for `scores`, which are shared by all reductions.
    steps: of finetuning; for `scores`, of SGD on each block's adaptors. score_steps: of the scores that the unit
    builds on, 0 where it builds on none.
    """

    network: str
    reduction: int
    images: int
    method: str
    seed: int
    steps: int
    score_steps: int = 0

    @property
    def name(self) -> str:
        """Its file under the results, without suffix; units of another `MET_AT` are other files."""
        target = SCORES if self.method == SCORES else f"{self.reduction}{MET_AT}-{self.method}"
        scored = f"-scored{self.score_steps}" if self.score_steps else ""
        folder = self.network.replace(":", "-")
        return f"{folder}/{self.images}-{target}-{self.steps}{scored}-seed{self.seed}"

    @property
    def scores(self) -> Unit | None:
        """The unit whose scores this one needs."""
        if not self.score_steps:
            return None
        return Unit(
            network=self.network, reduction=0, images=self.images, method=SCORES, seed=self.seed, steps=self.score_steps
        )

    def record(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The units of one network: everything combined with everything."""

    network: str
    reductions: tuple[int, ...]
    images: tuple[int, ...]
    seeds: int
    steps: int
    score_steps: int
    methods: tuple[str, ...] = METHODS

    def units(self) -> list[Unit]:
        """Seed by seed, so that a grid that is stopped early has whole seeds; scores come before what needs them."""
        found: dict[Unit, None] = {}
        for seed, images, reduction, method in product(range(self.seeds), self.images, self.reductions, self.methods):
            unit = Unit(
                network=self.network, reduction=reduction, images=images, method=method, seed=seed, steps=self.steps,
                score_steps=self.score_steps if method in SCORED else 0,
            )  # fmt: skip
            if unit.scores is not None:
                found[unit.scores] = None
            found[unit] = None
        return list(found)


_LARGE = dict(reductions=(15, 22, 30), images=(50, 100, 500, 1000), seeds=5, steps=2000, score_steps=1000)

GRIDS: dict[str, tuple[Part, ...]] = {
    "small": (
        Part(network="resnet20", reductions=(22,), images=(50, 500), seeds=5, steps=2000, score_steps=1000),
        Part(network="resnet56", reductions=(22, 30), images=(50, 500), seeds=3, steps=400, score_steps=150),
        Part(
            network="efficientnet-lite0", reductions=(22,), images=(50, 500), seeds=2, steps=200, score_steps=20,
            methods=STRONGEST,
        ),
        # trained without stochastic depth, so that no block is redundant: 3, 6, 11 and 15% are 1 to 4 blocks
        Part(
            network="mobilenetv2", reductions=(3, 6, 11, 15), images=(50, 100, 500), seeds=3, steps=60, score_steps=20,
            methods=("ours", "paper", "filters-mir"),
        ),
    ),
    "large": tuple(
        Part(network=network, **_LARGE) for network in ("resnet20", "resnet56", "efficientnet-lite0", *TORCHVISION)
    ),
}  # fmt: skip


def units_of(
    grid: str,
    *,
    networks: Sequence[str] = (),
    methods: Sequence[str] = (),
    images: Sequence[int] = (),
    seeds: Sequence[int] = (),
) -> list[Unit]:
    """The units of a grid that the filters let through, with the scores that those need; an empty filter lets all."""
    found: dict[Unit, None] = {}
    for unit in (unit for part in GRIDS[grid] for unit in part.units()):
        chosen = (
            (not networks or unit.network in networks)
            and (not methods or unit.method in methods)
            and (not images or unit.images in images)
            and (not seeds or unit.seed in seeds)
        )
        if chosen and unit.scores is not None:
            found[unit.scores] = None
        if chosen:
            found[unit] = None
    return list(found)


def without(methods: Iterable[str]) -> tuple[str, ...]:
    """All methods but these."""
    left_out = set(methods)
    return tuple(method for method in METHODS if method not in left_out)
