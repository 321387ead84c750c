"""Interactions of the losses of blocks: the predicted error of a set, and the sets of least predicted error.

To first order the changes of the features that dropped blocks cause add up, so the error of a set S is a quadratic form,
R(S) ~ 1_S' Q 1_S, where Q_ij is the mean inner product of the changes from dropping blocks i and j. It overestimates
errors but ranks sets well (docs/planning.md), so the best sets should be verified. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from practise_backends.terms import Interval, LatencyTable
from practise_deploy.planning.choose import MAX_SHORTFALL, scores_of
from practise_deploy.terms import Budget, Recoverabilities

MAX_EXHAUSTIVE_BLOCKS = 20
_LEVELS, _WIDTH, _MAX_ROUNDS = 24, 128, 4

Blocks = tuple[str, ...]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The blocks that sets are made of, in the order of the latency table.

    losses: [images, blocks, blocks], in units of the features' variance. reductions: [3, blocks], estimate, lower and
    upper bound in percent; additivity: the same of measured over predicted savings. confidence: of these intervals.
    measured: sets are measured before one is chosen (see `assumed_percent`).
    """

    names: Blocks
    losses: Floats
    reductions: Floats
    additivity: tuple[float, float, float]
    confidence: float
    latency_classes: tuple[int, ...]
    measured: bool = False

    def error_of(self, blocks: Sequence[str]) -> float:
        """The predicted error of a set, in units of the features' variance."""
        return float(set_errors(self.losses.mean(0), self.rows_of([blocks]))[0])

    def rows_of(self, sets: Sequence[Sequence[str]]) -> Rows:
        """Sets as rows of flags. Shape: [sets, blocks]."""
        return np.array([[name in blocks for name in self.names] for blocks in sets], dtype=np.bool_)

    def sets_of(self, rows: Rows) -> tuple[Blocks, ...]:
        """The names of the blocks of every row. Shapes: rows [sets, blocks]."""
        return tuple(tuple(name for name, there in zip(self.names, row, strict=True) if there) for row in rows)

    def assumed(self, estimates: Floats, lows: Floats, highs: Floats) -> Floats:
        """The saving that a search assumes of sets, in percent. Shapes: sums of the blocks' estimates and bounds [..., sets]."""
        factor, low, high = self.additivity
        ends = (low * lows, high * lows, low * highs, high * highs)
        lower_bound = np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
        return np.maximum(lower_bound, (1 - MAX_SHORTFALL) * factor * estimates) if self.measured else lower_bound


def candidates_of(latency: LatencyTable, recoverability: Recoverabilities, *, measured: bool = False) -> Candidates:
    """The blocks with a distinguishable saving and a known loss. measured: as in `Candidates`."""
    scored, places = (
        scores_of(latency, recoverability.of),
        {r.block: index for index, r in enumerate(recoverability.of)},
    )
    savings = [saving for saving in latency.savings if saving.block in scored]
    factor = latency.additivity
    return Candidates(
        names=tuple(saving.block for saving in savings),
        losses=_losses(recoverability, [places[saving.block] for saving in savings]),
        reductions=np.array([_ends(saving.reduction_percent) for saving in savings]).T,
        additivity=_ends(factor) if factor else (1.0, 1.0, 1.0),
        confidence=latency.baseline_ms.confidence,
        latency_classes=tuple(saving.latency_class for saving in savings),
        measured=measured,
    )


def best_sets(candidates: Candidates, budget: Budget, limit: int) -> tuple[Blocks, ...]:
    """The sets of least predicted error that meet the budget, best first, at most `limit`.

    Supersets of a listed set are left out. The search is exhaustive for few blocks, else a beam search.
    budget: a reduction, which a set must be assumed to save, or a number of blocks.
    """
    few = len(candidates.names) <= MAX_EXHAUSTIVE_BLOCKS
    return (exhaustive_search if few else beam_search)(candidates, budget, limit)


def exhaustive_search(candidates: Candidates, budget: Budget, limit: int) -> tuple[Blocks, ...]:
    """The same for up to about 20 blocks, exactly: it evaluates every subset."""
    if budget.drop is not None:
        allowed = _subset_sums(np.ones(len(candidates.names))) == budget.drop
    else:
        allowed = candidates.assumed(*map(_subset_sums, candidates.reductions)) >= (budget.reduce_percent or 0.0)
    allowed[0] = False  # the empty set
    masks = np.flatnonzero(allowed)
    errors = _subset_errors(candidates.losses.mean(0))[masks]
    selected: list[int] = []
    while len(masks) and len(selected) < limit:
        selected.append(best := int(masks[errors.argmin()]))
        others = (masks & best) != best
        masks, errors = masks[others], errors[others]
    bits = np.array(selected, dtype=np.int64)[:, None] >> np.arange(len(candidates.names))
    return candidates.sets_of((bits & 1).astype(np.bool_))


def beam_search(candidates: Candidates, budget: Budget, limit: int) -> tuple[Blocks, ...]:
    """The same for any number of blocks, nearly always exactly.

    It keeps the best sets at every level of the budget (of the reduction, or of the number of blocks) and expands each to
    all sets that differ in one block, until nothing improves.
    """
    form, top = candidates.losses.mean(0), budget.drop or _LEVELS
    rows = np.zeros((1, len(candidates.names)), dtype=np.bool_)
    fresh = np.ones(1, dtype=np.bool_)
    for _ in range(_MAX_ROUNDS * len(candidates.names)):
        rows = np.concatenate([rows, _neighbours(rows[fresh])])
        fresh = np.arange(len(rows)) >= len(fresh)
        levels = _levels(candidates, budget, rows)
        kept = _best_of_levels(rows, set_errors(form, rows), levels)
        rows, fresh = rows[kept], fresh[kept]
        if not fresh.any():
            break
    reached = rows[_levels(candidates, budget, rows) == top]
    ordered = reached[np.argsort(set_errors(form, reached), kind="stable")]
    selected: list[Rows] = []
    for row in ordered:
        if len(selected) < limit and row.any() and not any((row | other == row).all() for other in selected):
            selected.append(row)
    return candidates.sets_of(np.array(selected, dtype=np.bool_).reshape(-1, rows.shape[1]))


def set_errors(form: Floats, rows: Rows) -> Floats:
    """1_S' Q 1_S of every set. Shapes: [..., blocks, blocks], [sets, blocks] -> [..., sets]."""
    flags = rows.astype(np.float64)
    return np.asarray(((flags @ form) * flags).sum(-1))


def _losses(recoverability: Recoverabilities, places: Sequence[int]) -> Floats:
    """The interactions, or the blocks' errors on the diagonal, which then add up. Shape: [images, blocks, blocks]."""
    alone = np.diag([block.mse.estimate for block in recoverability.of])[None]
    interactions = np.asarray(recoverability.interactions.get("features", alone), dtype=np.float64)
    return interactions[:, places][:, :, places]


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _subset_sums(values: Floats) -> Floats:
    """The sum of every subset, where bit i of the index selects value i. Shapes: [blocks] -> [2^blocks]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def _subset_errors(form: Floats) -> Floats:
    """1_S' Q 1_S of every subset: each block adds its error and its products with the previous ones. Shape: [2^blocks]."""
    errors, both = np.zeros(1), form + form.T
    for index in range(len(form)):
        errors = np.concatenate([errors, errors + form[index, index] + _subset_sums(both[index, :index])])
    return errors


def _neighbours(rows: Rows) -> Rows:
    """Every row with each of its flags flipped. Shapes: [rows, blocks] -> [rows * blocks, blocks]."""
    turned = rows[:, None, :] ^ np.eye(rows.shape[1], dtype=np.bool_)
    return turned.reshape(-1, rows.shape[1])


def _levels(candidates: Candidates, budget: Budget, rows: Rows) -> npt.NDArray[np.int64]:
    """The level of the budget that every set reaches; -1 beyond it. Shapes: [sets, blocks] -> [sets]."""
    if budget.drop is not None:
        sizes = rows.sum(1)
        return np.where(sizes > budget.drop, -1, sizes)
    target_percent = budget.reduce_percent or 0.0
    assumed = candidates.assumed(*(np.cumsum(rows * ends, axis=1)[:, -1] for ends in candidates.reductions))
    share = np.clip(assumed / target_percent, 0, 1) if target_percent > 0 else np.ones(len(rows))
    return np.where(assumed >= target_percent, _LEVELS, np.minimum((share * _LEVELS).astype(np.int64), _LEVELS - 1))


def _best_of_levels(rows: Rows, errors: Floats, levels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of the sets of least error at every level, without duplicates. Shapes: [sets, blocks], [sets], [sets]."""
    _, once = np.unique(np.packbits(rows, axis=1), axis=0, return_index=True)
    once = np.sort(once[levels[once] >= 0])
    ordered = once[np.lexsort((errors[once], levels[once]))]
    starts = np.searchsorted(levels[ordered], levels[ordered])
    return np.asarray(np.sort(ordered[np.arange(len(ordered)) - starts < _WIDTH]))
