"""Stability of the chosen set: its selection frequency over resampled images and savings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from practise_deploy.planning.interactions import Blocks, Candidates, Floats, Rows, best_sets, set_errors
from practise_deploy.terms import Budget

RESAMPLES = 500
_POOL = 40
_SEED = 20_230
TOP = 3
"""Sets that the first round verifies."""
_LEAST_SPREAD = 0.05  # of the log ratio of verified to predicted errors
_TINY = 1e-12
_AROUND = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the saving


def selection_frequencies(
    candidates: Candidates, budget: Budget, chosen: Blocks, verified: Mapping[Blocks, Floats]
) -> tuple[dict[str, float], float]:
    """The share of the resamples that select each block, and the share that selects exactly the chosen set.

    Every resample bootstraps the images and samples the savings and their additivity from normal distributions within their
    intervals. It then chooses as the search does: from a pool of good sets those of least predicted error that
    meet the budget, and of these the one of least error after recovery. Verified sets have their errors on the
    bootstrapped images; the others a random one, as far from the prediction as the verified errors are.
    budget: the one that led to the chosen set. verified: errors [images] of recovered sets. The fits themselves are not
    repeated, so their variance is not included.
    """
    rng = np.random.default_rng(_SEED)
    rows = _pool(candidates, budget, chosen)
    predicted = _drawn_errors(candidates.losses, rows, rng)
    # which sets meet the target with resampled savings
    meets = np.ones(predicted.shape, dtype=np.bool_)
    if budget.drop is None:
        assumed = _drawn_savings(candidates, rows, rng)
        meets = assumed >= (budget.reduce_percent or 0.0)
    # of those, as many as would be verified, with the errors that verification would give
    if verified:
        errors = _recovered_errors(candidates, rows, predicted, verified, rng)
        offered = meets & _among_the_first(np.where(meets, predicted, np.inf), max(TOP, len(verified)))
    else:
        errors, offered = predicted, meets
    errors = np.where(offered, errors, np.inf)
    lost = ~meets.any(1)
    if lost.any():
        errors[lost] = -assumed[lost]  # nothing meets it: what comes nearest
    # every resample takes the set of least error
    taken = rows[errors.argmin(1)]
    shares = {name: float(share) for name, share in zip(candidates.names, taken.mean(0), strict=True)}
    return shares, float((taken == candidates.rows_of([chosen])).all(1).mean())


def log_ratios(candidates: Candidates, verified: Mapping[Blocks, Floats]) -> tuple[float, float]:
    """Median and standard deviation (at least `_LEAST_SPREAD`) of the log ratio of verified to predicted errors."""
    ratios = [mean_error(errors) / max(candidates.error_of(blocks), _TINY) for blocks, errors in verified.items()]
    logs = np.log([max(ratio, _TINY) for ratio in ratios if math.isfinite(ratio)] or [1.0])
    return float(np.median(logs)), max(float(logs.std(ddof=1)) if len(logs) > 1 else 0.0, _LEAST_SPREAD)


def mean_error(errors: Floats) -> float:
    """The mean over images, infinite if not finite. Shapes: errors [images]."""
    mean = float(np.mean(errors))
    return mean if math.isfinite(mean) else math.inf


def _pool(candidates: Candidates, budget: Budget, chosen: Blocks) -> Rows:
    """The best sets for this budget and, if it is a reduction, for budgets within its uncertainty. Shape: [sets, blocks]."""
    budgets = [budget]
    if budget.reduce_percent is not None:
        spread = float(_drawn_savings(candidates, candidates.rows_of([chosen]), np.random.default_rng(_SEED)).std())
        budgets = [Budget(reduce_percent=max(0.0, budget.reduce_percent + step * spread)) for step in _AROUND]
    pool = [chosen, candidates.names] if budget.drop is None else [chosen]
    for variant in budgets:
        pool += best_sets(candidates, variant, _POOL)
    return candidates.rows_of(list(dict.fromkeys(pool)))


def _drawn_errors(losses: Floats, rows: Rows, rng: np.random.Generator) -> Floats:
    """The predicted error of every set on bootstrapped images. Shapes: [images, blocks, blocks] -> [resamples, sets]."""
    return np.asarray(_drawn_images(len(losses), rng) @ set_errors(losses, rows))


def _drawn_images(images: int, rng: np.random.Generator) -> Floats:
    """Bootstrap weights of the images. Shape: [resamples, images]."""
    return np.asarray(rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images)


def _recovered_errors(
    candidates: Candidates,
    rows: Rows,
    predicted: Floats,
    verified: Mapping[Blocks, Floats],
    rng: np.random.Generator,
) -> Floats:
    """Errors after recovery: verified ones on bootstrapped images, others sampled around the predicted. Shapes: [resamples, sets]."""
    typical, spread = log_ratios(candidates, verified)
    errors = predicted * np.exp(typical + spread * rng.standard_normal(predicted.shape))
    weights = _drawn_images(len(next(iter(verified.values()))), rng)
    for place, blocks in enumerate(candidates.sets_of(rows)):
        if blocks in verified:
            finite = math.isfinite(mean_error(verified[blocks]))
            errors[:, place] = weights @ verified[blocks] if finite else np.inf
    return np.asarray(errors)


def _among_the_first(errors: Floats, most: int) -> npt.NDArray[np.bool_]:
    """Which errors are among the smallest of their row. Shapes: [resamples, sets]."""
    ranks = errors.argsort(1, kind="stable").argsort(1, kind="stable")
    return np.asarray(ranks < most)


def _drawn_savings(candidates: Candidates, rows: Rows, rng: np.random.Generator) -> Floats:
    """The assumed saving of every set, in percent, with resampled savings. Shapes: [sets, blocks] -> [resamples, sets].

    The intervals shift with their estimates; blocks of one latency class share a measurement, so they shift together.
    """
    # one standard normal step by latency class, shared by all blocks of the class
    quantile = NormalDist().inv_cdf(0.5 + candidates.confidence / 2)
    estimates, lows, highs = candidates.reductions
    factor, factor_low, factor_high = candidates.additivity
    classes, places = np.unique(candidates.latency_classes, return_inverse=True)
    steps = rng.standard_normal((RESAMPLES, len(classes)))[:, places]
    drawn = estimates + steps * (highs - lows) / (2 * quantile)  # half a width is `quantile` standard deviations
    factors = factor + rng.standard_normal((RESAMPLES, 1)) * (factor_high - factor_low) / (2 * quantile)
    flags = rows.astype(np.float64)
    assumed = candidates.assumed(flags @ estimates, flags @ lows, flags @ highs)
    # shift the assumed saving by the resampled total less the estimated total
    return np.asarray(assumed + factors * (drawn @ flags.T) - factor * (flags @ estimates))
