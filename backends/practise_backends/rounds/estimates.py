"""The latency of every network in one measurement, with its uncertainty: rounds and sessions.

Model: log time of session c in round r = round effect r + level of its network + session effect c + noise.
The round effect (drift, throttling, a neighbour) hits all engines alike and is taken out: it is the median,
over the columns, of each column's distance from its own median. What is left is located by an estimator.

Estimator: chosen by its A/A error in the same measurement, that is by how far sessions of one and the same
file come out apart; the 20% trimmed mean is kept unless another errs by a quarter less (a smaller gap would
pick whichever happens to look steady). The comparison of different networks takes no part in that choice.

Milliseconds are those of one round for all networks, the median one, so that two latencies differ by their ratio: the medians of
two networks may each be of another state of a disturbed device.

Uncertainty: draws of all levels together. Rounds are resampled; to every column a session effect is added,
normal, its variance drawn from what sessions of one file were found to differ beyond the noise of the
rounds (pooled over all networks, scaled inverse chi-square, so that few sessions give wide intervals).
Any figure that is computed from the levels gets its interval from the same draws. How often the intervals
cover the truth under drift is tested (tests/backends/rounds/test_believable.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from practise_backends.errors import Disturbed, MeasureError
from practise_backends.rounds.intervals import (
    FEWEST_ROUNDS,
    ORIGINAL,
    Samples,
    columns_of,
    halves,
    interval_of,
    trimmed_mean,
    valid_rounds,
)
from practise_backends.terms import Interval, Timings

_SEED = 20_230
_MOST_DRAWS, _FEWEST_DRAWS, _WORK = 2000, 400, 2**24
_CHUNK = 2**21
_BETTER = 0.75


def _lower_decile(samples: Samples) -> Samples:
    """The 10% quantile along the last axis: what the engine takes when little disturbs it."""
    return np.asarray(np.quantile(samples, 0.1, axis=-1))


def _median(samples: Samples) -> Samples:
    return np.asarray(np.median(samples, axis=-1))


def _mean(samples: Samples) -> Samples:
    return np.asarray(samples.mean(axis=-1))


_TRIMMED = "20% trimmed mean of the round differences"
ESTIMATORS: dict[str, tuple[bool, Callable[[Samples], Samples]]] = {
    _TRIMMED: (True, trimmed_mean),
    "median of the round differences": (True, _median),
    "mean of the round differences": (True, _mean),
    "difference of the lower deciles": (False, _lower_decile),
}
"""By name: whether the round effect is taken out first, and the location along the last axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Log milliseconds of every column, and draws of them.

    Shapes: level float64[columns], draws float64[draws, columns]. round, round_draws: the mean log time of all columns in the
    median round, and its draws: float64[draws]. session_percent: standard deviation of the
    session effects; NaN where no network was opened twice. errors_percent: the A/A error of every estimator
    (empty where no network was opened twice).
    """

    engines: tuple[str, ...]
    level: Samples
    draws: Samples
    round: float
    round_draws: Samples
    confidence: float
    estimator: str
    errors_percent: dict[str, float]
    session_percent: float

    def log_ratio(self, of: str | Sequence[str], to: str | Sequence[str] = ORIGINAL) -> tuple[float, Samples]:
        """The mean log time of the networks `of` minus that of `to`, and its draws.

        Raises: MeasureError where a network was not measured.
        """
        above, below = columns_of(self.engines, of), columns_of(self.engines, to)
        estimate = float(self.level[above].mean() - self.level[below].mean())
        return estimate, self.draws[:, above].mean(axis=1) - self.draws[:, below].mean(axis=1)

    def ratio(self, of: str | Sequence[str], to: str | Sequence[str] = ORIGINAL) -> Interval:
        """Latency of `of` over latency of `to`: below 1 is faster."""
        estimate, draws = self.log_ratio(of, to)
        return interval_of(math.exp(estimate), np.exp(draws), self.confidence)

    def speedup(self, of: str | Sequence[str], over: str | Sequence[str] = ORIGINAL) -> Interval:
        """How many times as fast `of` is as `over`."""
        return self.ratio(over, of)

    def typical_ms(self, name: str) -> Interval:
        """The latency of one network in the median round, in milliseconds; those of two differ by their speed-up exactly."""
        everything = list(dict.fromkeys(self.engines))
        above, draws = self.log_ratio(name, everything)
        return interval_of(math.exp(self.round + above), np.exp(self.round_draws + draws), self.confidence)

    def noise_floor(self) -> Interval:
        """A/A: some of the original's sessions over the others, opened no sooner on average (`intervals.halves`).

        Raises: MeasureError where the original was opened only once.
        """
        own = columns_of(self.engines, ORIGINAL)
        if len(own) < 2:
            raise MeasureError(
                f"'{ORIGINAL}' was opened only once, which has no noise floor", remedy="open it twice or more"
            )
        first, second = halves(own)
        estimate = float(self.level[second].mean() - self.level[first].mean())
        draws = self.draws[:, second].mean(axis=1) - self.draws[:, first].mean(axis=1)
        return interval_of(math.exp(estimate), np.exp(draws), self.confidence)


def levels_of(timings: Timings, confidence: float = 0.95, *, most_draws: int = _MOST_DRAWS) -> Levels:
    """The levels of one measurement.

    Raises: MeasureError with fewer than 10 rounds, Disturbed where there were as many before some were discarded.
    """
    logs = np.log(valid_rounds(timings))
    if len(logs) < FEWEST_ROUNDS:
        raise _too_few(len(logs), timings)
    groups = _groups(timings.engines)
    drawn = _resampled(logs, most_draws)
    candidates = {name: _located(name, logs, drawn) for name in ESTIMATORS}
    errors = {name: _aa_error(level, draws, groups) for name, (level, draws) in candidates.items()}
    name = _least(errors)
    level, draws = candidates[name]
    spread, effects = _session_effects(level, draws, groups)
    whole = logs.mean(axis=1)
    return Levels(
        engines=timings.engines,
        level=level,
        draws=draws + effects,
        round=float(np.median(whole)),
        round_draws=np.median(whole[drawn], axis=1),
        confidence=confidence,
        estimator=name,
        errors_percent={} if math.isnan(spread) else {key: 100 * error for key, error in errors.items()},
        session_percent=100 * spread,
    )


def _too_few(valid: int, timings: Timings) -> MeasureError:
    """Why so few valid rounds are left, and what to do about it."""
    rounds = len(timings.rounds_ms)
    message = f"{valid} valid rounds of {rounds} cannot carry an interval; it takes {FEWEST_ROUNDS}"
    if rounds < FEWEST_ROUNDS:
        return MeasureError(message, remedy="measure for longer")
    last = "".join(timings.discarded[-1:]).partition(": ")[2]
    return Disturbed(
        message,
        remedy=f"find what disturbs the device (the last discarded round: {last}); where it lives under a quota or "
        "heat, give --keep-throttled",
    )


def _groups(engines: Sequence[str]) -> list[list[int]]:
    """The columns of every network that was opened at least twice."""
    found = [columns_of(engines, name) for name in dict.fromkeys(engines)]
    return [columns for columns in found if len(columns) > 1]


def _resampled(logs: Samples, most: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Rounds drawn with replacement: [draws, rounds]."""
    rounds, columns = logs.shape
    count = min(most, max(_FEWEST_DRAWS, _WORK // (rounds * columns)))
    return np.random.default_rng(_SEED).integers(0, rounds, (count, rounds))


def _located(name: str, logs: Samples, drawn: np.ndarray) -> tuple[Samples, Samples]:
    """One estimator's levels, and their draws over the rounds."""
    paired, locate = ESTIMATORS[name]
    samples = logs - _round_effects(logs)[:, None] if paired else logs
    by_column = np.ascontiguousarray(samples.T)
    rows = max(1, _CHUNK // by_column.size)
    parts = [locate(by_column[:, drawn[at : at + rows]]) for at in range(0, len(drawn), rows)]
    return locate(by_column), np.concatenate(parts, axis=1).T


def _round_effects(logs: Samples) -> Samples:
    """How much slower each round was than usual, in logs: [rounds]."""
    return np.asarray(np.median(logs - np.median(logs, axis=0), axis=1))


def _aa_error(level: Samples, draws: Samples, groups: list[list[int]]) -> float:
    """How far sessions of one network come out apart, in logs: root mean square over draws and networks."""
    if not groups:
        return 0.0
    squares = [draws[:, own].var(axis=1, ddof=1).mean() for own in groups]
    return float(np.sqrt(np.mean(squares)))


def _least(errors: dict[str, float]) -> str:
    """The estimator of least A/A error; the trimmed mean unless that is clearly better."""
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < _BETTER * errors[_TRIMMED] else _TRIMMED


def _session_effects(level: Samples, draws: Samples, groups: list[list[int]]) -> tuple[float, Samples]:
    """The standard deviation of session effects, and draws of one for every column.

    Sessions of one network differ by their effects and by the noise of the rounds; the latter is known from
    the draws and taken off. NaN and no effects where no network was opened twice.
    """
    freedom = sum(len(own) - 1 for own in groups)
    if freedom == 0:
        return math.nan, np.zeros_like(draws)
    found = sum(float(level[own].var(ddof=1)) * (len(own) - 1) for own in groups) / freedom
    noise = 0.0
    for own in groups:
        apart = draws[:, own] - draws[:, own].mean(axis=1, keepdims=True)
        centre = level[own] - level[own].mean()
        noise += float(((apart - centre) ** 2).sum(axis=1).mean()) / freedom
    rng = np.random.default_rng(_SEED + 1)
    variances = np.maximum(0.0, found * freedom / rng.chisquare(freedom, len(draws)) - noise)
    effects = rng.standard_normal(draws.shape) * np.sqrt(variances)[:, None]
    return math.sqrt(max(0.0, found - noise)), effects
