"""How sure the choice of a set is: the same choice with other images and other savings that were as likely."""

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
"""Sets that are verified at first."""
_LEAST_SPREAD = 0.05  # of the logarithm of verified over predicted errors
_TINY = 1e-12
_AROUND = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the saving


def chosen_shares(
    candidates: Candidates, budget: Budget, chosen: Blocks, verified: Mapping[Blocks, Floats]
) -> tuple[dict[str, float], float]:
    """In what share of the resamples each block goes, and the whole chosen set.

    Every resample draws the images anew, with replacement, and the savings and their additivity within their
    intervals, as normal; then it chooses as the search does: from a pool of good sets those of least predicted error that
    meet the budget, and of these the one of least error after recovery. That error is known of the sets that were
    verified, on their images drawn anew; of the others it is drawn, as far from the predicted one as those are.
    budget: what the chosen set was found by. verified: errors by image of sets that were recovered. What the images
    drawn anew would have changed of the fits themselves is not in it.
    """
    rng = np.random.default_rng(_SEED)
    rows = _pool(candidates, budget, chosen)
    predicted = _drawn_errors(candidates.losses, rows, rng)
    meets = np.ones(predicted.shape, dtype=np.bool_)
    if budget.drop is None:
        promised = _drawn_savings(candidates, rows, rng)
        meets = promised >= (budget.reduce_percent or 0.0)
    if verified:
        errors = _recovered_errors(candidates, rows, predicted, verified, rng)
        offered = meets & _among_the_first(np.where(meets, predicted, np.inf), max(TOP, len(verified)))
    else:
        errors, offered = predicted, meets
    errors = np.where(offered, errors, np.inf)
    lost = ~meets.any(1)
    if lost.any():
        errors[lost] = -promised[lost]  # nothing meets it: what comes nearest
    taken = rows[errors.argmin(1)]
    shares = {name: float(share) for name, share in zip(candidates.names, taken.mean(0), strict=True)}
    return shares, float((taken == candidates.rows_of([chosen])).all(1).mean())


def log_ratios(candidates: Candidates, verified: Mapping[Blocks, Floats]) -> tuple[float, float]:
    """Of verified over predicted errors, the logarithm's median and standard deviation (at least `_LEAST_SPREAD`)."""
    ratios = [mean_error(errors) / max(candidates.error_of(blocks), _TINY) for blocks, errors in verified.items()]
    logs = np.log([max(ratio, _TINY) for ratio in ratios if math.isfinite(ratio)] or [1.0])
    return float(np.median(logs)), max(float(logs.std(ddof=1)) if len(logs) > 1 else 0.0, _LEAST_SPREAD)


def mean_error(errors: Floats) -> float:
    """Of all images; infinite where it is no number."""
    mean = float(np.mean(errors))
    return mean if math.isfinite(mean) else math.inf


def _pool(candidates: Candidates, budget: Budget, chosen: Blocks) -> Rows:
    """The best sets for this budget and, where it is a reduction, for those that its uncertainty may make of it."""
    budgets = [budget]
    if budget.reduce_percent is not None:
        spread = float(_drawn_savings(candidates, candidates.rows_of([chosen]), np.random.default_rng(_SEED)).std())
        budgets = [Budget(reduce_percent=max(0.0, budget.reduce_percent + step * spread)) for step in _AROUND]
    found = [chosen, candidates.names] if budget.drop is None else [chosen]
    for one in budgets:
        found += best_sets(candidates, one, _POOL)
    return candidates.rows_of(list(dict.fromkeys(found)))


def _drawn_errors(losses: Floats, rows: Rows, rng: np.random.Generator) -> Floats:
    """The predicted error of every set on images drawn anew. Shapes: [images, blocks, blocks] -> [resamples, sets]."""
    return np.asarray(_drawn_images(len(losses), rng) @ set_errors(losses, rows))


def _drawn_images(images: int, rng: np.random.Generator) -> Floats:
    """Weights of images drawn anew, with replacement. Shape: [resamples, images]."""
    return np.asarray(rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images)


def _recovered_errors(
    candidates: Candidates,
    rows: Rows,
    predicted: Floats,
    verified: Mapping[Blocks, Floats],
    rng: np.random.Generator,
) -> Floats:
    """The errors after recovery: verified ones on images drawn anew, others drawn about the predicted. Shapes: [resamples, sets]."""
    typical, spread = log_ratios(candidates, verified)
    found = predicted * np.exp(typical + spread * rng.standard_normal(predicted.shape))
    weights = _drawn_images(len(next(iter(verified.values()))), rng)
    for place, blocks in enumerate(candidates.sets_of(rows)):
        if blocks in verified:
            finite = math.isfinite(mean_error(verified[blocks]))
            found[:, place] = weights @ verified[blocks] if finite else np.inf
    return np.asarray(found)


def _among_the_first(errors: Floats, most: int) -> npt.NDArray[np.bool_]:
    """Which of every row's errors are among its least. Shapes: [resamples, sets]."""
    ranks = errors.argsort(1, kind="stable").argsort(1, kind="stable")
    return np.asarray(ranks < most)


def _drawn_savings(candidates: Candidates, rows: Rows, rng: np.random.Generator) -> Floats:
    """What every set is taken to save, in percent, with savings drawn anew. Shapes: [resamples, sets].

    The intervals move with their estimates; blocks of one latency class share a measurement, so they move together.
    """
    quantile = NormalDist().inv_cdf(0.5 + candidates.confidence / 2)
    estimates, lows, highs = candidates.reductions
    factor, factor_low, factor_high = candidates.additivity
    classes, places = np.unique(candidates.latency_classes, return_inverse=True)
    steps = rng.standard_normal((RESAMPLES, len(classes)))[:, places]
    drawn = estimates + steps * (highs - lows) / (2 * quantile)
    factors = factor + rng.standard_normal((RESAMPLES, 1)) * (factor_high - factor_low) / (2 * quantile)
    flags = rows.astype(np.float64)
    promised = candidates.promised(flags @ estimates, flags @ lows, flags @ highs)
    return np.asarray(promised + factors * (drawn @ flags.T) - factor * (flags @ estimates))
