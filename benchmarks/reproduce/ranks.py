"""How well a criterion ranks sets of blocks by their accuracy, among sets of one size: those of fewer blocks are better anyway.

What is found of each size is averaged, each with as much weight as it has sets; the bootstrap draws sets within their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from practise_backends.rounds.intervals import FEWEST_ROUNDS, interval_of

FEWEST = FEWEST_ROUNDS
"""Sets of a size that it takes."""
_RESAMPLES, _SEED = 2000, 0

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def correlation(criterion: Floats, accuracy: Floats, sizes: Sequence[int]) -> dict[str, Any]:
    """Spearman's rank correlation of a low criterion with a high accuracy, and its interval over sets."""
    return _over_sets(lambda drawn: spearman(criterion[drawn], accuracy[drawn]), sizes)


def advantage(criterion: Floats, basis: Floats, accuracy: Floats, sizes: Sequence[int]) -> dict[str, Any]:
    """By how much a criterion's rank correlation exceeds another's, both on the same drawn sets."""

    def of(drawn: Places) -> Floats:
        return spearman(criterion[drawn], accuracy[drawn]) - spearman(basis[drawn], accuracy[drawn])

    return _over_sets(of, sizes)


def best_mean(criterion: Floats, accuracy: Floats, sizes: Sequence[int], count: int) -> float:
    """The mean accuracy of the few sets of each size that a criterion ranks first."""
    groups = groups_of(sizes)
    best = [group[np.argsort(criterion[group], kind="stable")[:count]] for group in groups]
    return float(_averaged([np.asarray(accuracy[few].mean()) for few in best], groups))


def spearman(low: Floats, high: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, of what should be low with what should be high."""
    ranks = np.stack([rankdata(each, axis=-1) for each in (low, high)])
    centred = ranks - ranks.mean(-1, keepdims=True)
    return np.asarray(-(centred[0] * centred[1]).sum(-1) / np.sqrt((centred**2).sum(-1).prod(0)))


def groups_of(sizes: Sequence[int]) -> list[Places]:
    """The places of the sets of each size."""
    return [np.flatnonzero(np.asarray(sizes) == size) for size in dict.fromkeys(sizes)]


def _over_sets(statistic: Callable[[Places], Floats], sizes: Sequence[int]) -> dict[str, Any]:
    """A statistic of places, which reduces the last axis, averaged over the sizes. Draws are the same for every criterion."""
    groups, random = groups_of(sizes), np.random.default_rng(_SEED)
    estimate = _averaged([statistic(group) for group in groups], groups)
    drawn = [statistic(random.choice(group, (_RESAMPLES, len(group)))) for group in groups]
    return asdict(interval_of(float(estimate), _averaged(drawn, groups)))


def _averaged(found: Sequence[Floats], groups: Sequence[Places]) -> Floats:
    return np.asarray(np.average(np.stack(found), axis=0, weights=[len(group) for group in groups]))
