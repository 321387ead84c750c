"""How sure the choice of a set is: the same choice with other images and other savings that were as likely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from practise_deploy.planning.interactions import Blocks, Candidates, Floats, Rows, best_sets, set_errors
from practise_deploy.terms import Budget

RESAMPLES = 500
_POOL = 40
_SEED = 20_230
_AROUND = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the saving


def chosen_shares(
    candidates: Candidates, budget: Budget, chosen: Blocks, verified: Mapping[Blocks, float]
) -> tuple[dict[str, float], float]:
    """In what share of the resamples each block goes, and the whole chosen set.

    Every resample draws the images anew, with replacement, and the savings and their additivity within their
    intervals, as normal; then the set of least predicted error that meets the budget is taken from a pool of
    good ones. budget: what the chosen set was found by. verified: errors of sets that were recovered; the
    prediction of these is corrected by as much as it was wrong, against the typical one of them.
    """
    rng = np.random.default_rng(_SEED)
    rows = _pool(candidates, budget, chosen)
    errors = _drawn_errors(candidates, rows, rng) * _corrections(candidates, rows, verified)
    if budget.drop is None:
        surely = _drawn_savings(candidates, rows, rng)
        meets = surely >= (budget.reduce_percent or 0.0)
        errors = np.where(meets, errors, np.inf)
        lost = ~meets.any(1)
        errors[lost] = -surely[lost]  # nothing meets it: what comes nearest
    taken = rows[errors.argmin(1)]
    shares = {name: float(share) for name, share in zip(candidates.names, taken.mean(0), strict=True)}
    return shares, float((taken == candidates.rows_of([chosen])).all(1).mean())


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


def _drawn_errors(candidates: Candidates, rows: Rows, rng: np.random.Generator) -> Floats:
    """The predicted error of every set on images drawn anew. Shapes: [resamples, sets]."""
    images = len(candidates.losses)
    counts = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return np.asarray(counts / images @ set_errors(candidates.losses, rows))


def _drawn_savings(candidates: Candidates, rows: Rows, rng: np.random.Generator) -> Floats:
    """The low end of every set's predicted reduction, in percent, with savings drawn anew. Shapes: [resamples, sets].

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
    surely = candidates.surely_saved(flags @ lows, flags @ highs)
    return np.asarray(surely + factors * (drawn @ flags.T) - factor * (flags @ estimates))


def _corrections(candidates: Candidates, rows: Rows, verified: Mapping[Blocks, float]) -> Floats:
    """Verified over predicted error of every set, in terms of the median; 1 where nobody verified."""
    predicted = {blocks: candidates.error_of(blocks) for blocks in verified}
    ratios = {
        blocks: verified[blocks] / error
        for blocks, error in predicted.items()
        if error > 0 and math.isfinite(verified[blocks])
    }
    typical = float(np.median(list(ratios.values()))) if ratios else 0.0
    if typical <= 0:
        return np.ones(len(rows))
    return np.array([ratios.get(blocks, typical) / typical for blocks in candidates.sets_of(rows)])
