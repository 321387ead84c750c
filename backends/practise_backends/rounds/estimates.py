"""The latency of every network in one measurement, with its uncertainty: rounds and sessions.

Model: log time of session c in round r = round effect r + log latency of its network + session effect c + noise.
The round effect (drift, throttling, a neighbour) hits all engines alike and is taken out: it is the median,
over the columns, of each column's distance from its own median. An estimator locates what is left.

Estimator: chosen by its A/A error in the same measurement, which is how far sessions of the same file come out
apart. The 20% trimmed mean is kept unless another errs by a quarter less (a smaller gap would pick whichever
happens to look steady). The comparison of different networks takes no part in that choice.

Milliseconds are those of the median round, for all networks, so that two latencies differ by their ratio: the medians of
two networks may come from different states of a disturbed device.

Uncertainty: joint bootstrap replicates of all columns. Rounds are resampled. To every column a normal session effect is
added; its variance is drawn from how much sessions of one file differed beyond the noise of the rounds (pooled
over all networks, scaled inverse chi-square, so that few sessions give wide intervals). Any figure computed from
the estimates gets its interval from the same replicates. How often the intervals cover the truth under drift is
tested (tests/backends/rounds/test_believable.py).
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
_MAX_REPLICATES, _MIN_REPLICATES, _WORK = 2000, 400, 2**24
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
class LatencyEstimates:
    """Log milliseconds of every column, with bootstrap replicates.

    Shapes: log_ms float64[columns], replicates float64[replicates, columns], median_round_replicates float64[replicates].
    median_round: the mean log time of all columns in the median round. session_percent: the standard deviation of the
    session effects; NaN where no network was opened twice. errors_percent: the A/A error of every estimator
    (empty where no network was opened twice).
    """

    engines: tuple[str, ...]
    log_ms: Samples
    replicates: Samples
    median_round: float
    median_round_replicates: Samples
    confidence: float
    estimator: str
    errors_percent: dict[str, float]
    session_percent: float

    def log_ratio(self, of: str | Sequence[str], to: str | Sequence[str] = ORIGINAL) -> tuple[float, Samples]:
        """The mean log time of the networks `of` minus that of `to`, and its replicates.

        Raises: MeasureError where a network was not measured.
        """
        above, below = columns_of(self.engines, of), columns_of(self.engines, to)
        estimate = float(self.log_ms[above].mean() - self.log_ms[below].mean())
        return estimate, self.replicates[:, above].mean(axis=1) - self.replicates[:, below].mean(axis=1)

    def ratio(self, of: str | Sequence[str], to: str | Sequence[str] = ORIGINAL) -> Interval:
        """Latency of `of` over latency of `to`: below 1 is faster."""
        estimate, replicates = self.log_ratio(of, to)
        return interval_of(math.exp(estimate), np.exp(replicates), self.confidence)

    def speedup(self, of: str | Sequence[str], over: str | Sequence[str] = ORIGINAL) -> Interval:
        """How many times as fast `of` is as `over`."""
        return self.ratio(over, of)

    def typical_ms(self, name: str) -> Interval:
        """The latency of one network in the median round, in milliseconds; those of two differ by their speed-up exactly."""
        names = list(dict.fromkeys(self.engines))
        above, replicates = self.log_ratio(name, names)
        return interval_of(
            math.exp(self.median_round + above),
            np.exp(self.median_round_replicates + replicates),
            self.confidence,
        )

    def noise_floor(self) -> Interval:
        """A/A: some of the original's sessions over the others, opened no sooner on average (`intervals.halves`).

        Raises: MeasureError where the original was opened only once.
        """
        sessions = columns_of(self.engines, ORIGINAL)
        if len(sessions) < 2:
            raise MeasureError(
                f"'{ORIGINAL}' was opened only once, which has no noise floor", remedy="open it twice or more"
            )
        first, second = halves(sessions)
        estimate = float(self.log_ms[second].mean() - self.log_ms[first].mean())
        replicates = self.replicates[:, second].mean(axis=1) - self.replicates[:, first].mean(axis=1)
        return interval_of(math.exp(estimate), np.exp(replicates), self.confidence)


def estimate_latencies(
    timings: Timings, confidence: float = 0.95, *, max_replicates: int = _MAX_REPLICATES
) -> LatencyEstimates:
    """The latencies of one measurement.

    Raises: MeasureError with fewer than 10 rounds, Disturbed where there were as many before some were discarded.
    """
    logs = np.log(valid_rounds(timings))
    if len(logs) < FEWEST_ROUNDS:
        raise _too_few(len(logs), timings)
    groups = _groups(timings.engines)
    resampled = _resampled(logs, max_replicates)
    candidates = {name: _apply_estimator(name, logs, resampled) for name in ESTIMATORS}
    errors = {
        name: _aa_error(log_ms, replicates, groups) for name, (log_ms, replicates) in candidates.items()
    }
    name = _choose_estimator(errors)
    log_ms, replicates = candidates[name]
    spread, effects = _session_effects(log_ms, replicates, groups)
    round_means = logs.mean(axis=1)
    return LatencyEstimates(
        engines=timings.engines,
        log_ms=log_ms,
        replicates=replicates + effects,
        median_round=float(np.median(round_means)),
        median_round_replicates=np.median(round_means[resampled], axis=1),
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
    groups = [columns_of(engines, name) for name in dict.fromkeys(engines)]
    return [columns for columns in groups if len(columns) > 1]


def _resampled(logs: Samples, max_replicates: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Indices of rounds drawn with replacement: intp[replicates, rounds]."""
    rounds, columns = logs.shape
    count = min(max_replicates, max(_MIN_REPLICATES, _WORK // (rounds * columns)))
    return np.random.default_rng(_SEED).integers(0, rounds, (count, rounds))


def _apply_estimator(name: str, logs: Samples, resampled: np.ndarray) -> tuple[Samples, Samples]:
    """One estimator's log latencies, float64[columns], and their replicates, float64[replicates, columns]."""
    paired, locate = ESTIMATORS[name]
    samples = logs - _round_effects(logs)[:, None] if paired else logs
    # in chunks of replicates: [columns, replicates, rounds] would not fit into memory at once
    by_column = np.ascontiguousarray(samples.T)
    rows = max(1, _CHUNK // by_column.size)
    parts = [locate(by_column[:, resampled[at : at + rows]]) for at in range(0, len(resampled), rows)]
    return locate(by_column), np.concatenate(parts, axis=1).T


def _round_effects(logs: Samples) -> Samples:
    """How much slower each round was than usual, in logs: [rounds]."""
    return np.asarray(np.median(logs - np.median(logs, axis=0), axis=1))


def _aa_error(log_ms: Samples, replicates: Samples, groups: list[list[int]]) -> float:
    """How far sessions of one network come out apart, in logs: root mean square over replicates and networks."""
    if not groups:
        return 0.0
    # the variance between sessions of a network, averaged over its replicates, then over the networks
    variances = [replicates[:, columns].var(axis=1, ddof=1).mean() for columns in groups]
    return float(np.sqrt(np.mean(variances)))


def _choose_estimator(errors: dict[str, float]) -> str:
    """The estimator of least A/A error; the trimmed mean unless that is clearly better."""
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < _BETTER * errors[_TRIMMED] else _TRIMMED


def _session_effects(log_ms: Samples, replicates: Samples, groups: list[list[int]]) -> tuple[float, Samples]:
    """The standard deviation of session effects, and replicates of one for every column: float64[replicates, columns].

    Sessions of one network differ by their effects and by the noise of the rounds; the replicates give the noise,
    which is subtracted. NaN and zeros where no network was opened twice.
    """
    # observed: the pooled variance of sessions of one network about their mean
    freedom = sum(len(columns) - 1 for columns in groups)
    if freedom == 0:
        return math.nan, np.zeros_like(replicates)
    observed = sum(float(log_ms[columns].var(ddof=1)) * (len(columns) - 1) for columns in groups) / freedom
    # noise: what the rounds alone make of it, by how far the replicates' deviations scatter about the estimated ones
    noise = 0.0
    for columns in groups:
        deviations = replicates[:, columns] - replicates[:, columns].mean(axis=1, keepdims=True)
        centre = log_ms[columns] - log_ms[columns].mean()
        noise += float(((deviations - centre) ** 2).sum(axis=1).mean()) / freedom
    # draw the true variance from its scaled inverse chi-square distribution less the noise, then effects of that variance
    rng = np.random.default_rng(_SEED + 1)
    variances = np.maximum(0.0, observed * freedom / rng.chisquare(freedom, len(replicates)) - noise)
    effects = rng.standard_normal(replicates.shape) * np.sqrt(variances)[:, None]
    return math.sqrt(max(0.0, observed - noise)), effects
