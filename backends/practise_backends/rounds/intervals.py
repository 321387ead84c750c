"""Estimates with their intervals, read from raw samples; every resampling has a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from practise_backends.errors import MeasureError
from practise_backends.terms import Arrays, Interval, Timings

ORIGINAL = "original"
FEWEST_ROUNDS = 10
TRIM = 0.2

Samples = npt.NDArray[np.float64]
Statistic = Callable[[Samples], Samples]

_RESAMPLES = 2000
_SEED = 20_230
_CHUNK = 2**20
_WORK = 2**22


def samples_ms(timings: Timings, name: str) -> Samples:
    """One network's raw samples in the valid rounds, all sessions, in milliseconds."""
    return valid_rounds(timings)[:, columns_of(timings.engines, name)].ravel()


def percentile_ms(samples: npt.ArrayLike, q: float, confidence: float = 0.95) -> Interval | None:
    """A percentile with its order-statistics interval; None when there are too few samples to bound it.

    q: percent, from 1 to 99.99 (so that 0.99 cannot be taken for 99). Needs no distribution.
    """
    if not 1 <= q < 100:
        raise MeasureError(
            f"percentile {q} is not between 1 and 100", remedy="give it in percent: 99, not 0.99"
        )
    ordered = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    ordered = ordered[~np.isnan(ordered)]
    ranks = _bounding_ranks(len(ordered), q / 100, confidence)
    if ranks is None:
        return None
    return Interval(
        estimate=float(np.percentile(ordered, q)),
        low=float(ordered[ranks[0]]),
        high=float(ordered[ranks[1]]),
        confidence=confidence,
    )


def percentile_of(timings: Timings, name: str, q: float, confidence: float = 0.95) -> Interval | None:
    """A percentile of one network's runs, all sessions, in milliseconds; None when there are too few rounds, and
    above the median where samples are means of several runs, whose tail is not that of the runs.

    A round is what is drawn anew, with all its sessions, since what slows one of them slows the others too; and
    it takes as many valid rounds as `percentile_ms` takes runs.
    """
    columns = columns_of(timings.engines, name)
    rounds = valid_rounds(timings)[:, columns]
    if q > 50 and any(timings.runs_a_sample[at] > 1 for at in columns if timings.runs_a_sample):
        return None
    if percentile_ms(rounds[:, 0], q, confidence) is None:
        return None
    count = min(1000, max(200, _WORK // rounds.size))
    resampled = np.random.default_rng(_SEED).integers(0, len(rounds), (count, len(rounds)))
    replicates = np.array([np.percentile(rounds[rows], q) for rows in resampled])
    return interval_of(float(np.percentile(rounds, q)), replicates, confidence)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A proportion with its score interval. Source: Wilson (1927)."""
    if n < 1 or not 0 <= successes <= n:
        raise MeasureError(f"{successes} of {n} is not a proportion", remedy="count at least one trial")
    z, share = quantile(confidence), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(
        estimate=share,
        low=min(max(0.0, centre - half), share),
        high=max(min(1.0, centre + half), share),
        confidence=confidence,
    )


def bootstrap(samples: Samples, statistic: Statistic, confidence: float = 0.95) -> Interval:
    """A statistic with its percentile bootstrap interval of 2000 resamples.

    Shapes: samples float64[n]; the statistic reduces the last axis. Raises: MeasureError below 10 samples.
    """
    n = len(samples)
    if n < FEWEST_ROUNDS:
        raise MeasureError(
            f"{n} valid rounds cannot carry an interval; it takes {FEWEST_ROUNDS}",
            remedy="measure for longer, or find what disturbs the device",
        )
    rng = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // n)
    sizes = [min(rows, _RESAMPLES - at) for at in range(0, _RESAMPLES, rows)]
    replicates = np.concatenate([statistic(samples[rng.integers(0, n, (size, n))]) for size in sizes])
    return interval_of(float(statistic(samples[None])[0]), replicates, confidence)


def trimmed_mean(samples: Samples) -> Samples:
    """The mean of the middle 60% along the last axis."""
    n = samples.shape[-1]
    cut = int(TRIM * n)
    if cut == 0:
        return np.asarray(samples.mean(axis=-1))
    middle = np.partition(samples, (cut, n - cut - 1), axis=-1)[..., cut : n - cut]
    return np.asarray(middle.mean(axis=-1))


def trimmed_half_width(samples: Samples, confidence: float) -> Samples:
    """The half-width of the trimmed mean's interval by normal approximation, along the first axis.

    Source: Tukey and McLaughlin (1963), the Winsorised variance.
    """
    n = samples.shape[0]
    cut = int(TRIM * n)
    ordered = np.sort(samples, axis=0)
    winsorised = np.clip(ordered, ordered[cut], ordered[n - 1 - cut])
    deviation = winsorised.std(axis=0, ddof=1) / ((1 - 2 * TRIM) * math.sqrt(n))
    return np.asarray(quantile(confidence) * deviation)


def quantile(confidence: float) -> float:
    """The normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def valid_rounds(timings: Timings) -> Samples:
    """The rounds that were not discarded: float64[valid rounds, columns], milliseconds."""
    rounds = timings.rounds_ms
    return np.asarray(rounds[~np.isnan(rounds).any(axis=1)], dtype=np.float64)


def raw_samples(timings: Timings) -> Arrays:
    """What is kept of a measurement: rounds_ms (NaN: discarded), raw_ms and cpu_ms (all of them), engines (by column)."""
    raw = timings.rounds_ms if timings.raw_ms is None else timings.raw_ms
    arrays = {"rounds_ms": timings.rounds_ms, "raw_ms": raw, "engines": np.array(timings.engines)}
    return arrays if timings.cpu_ms is None else arrays | {"cpu_ms": timings.cpu_ms}


def columns_of(engines: Sequence[str], names: str | Sequence[str]) -> list[int]:
    """The columns of these networks, all sessions.

    Raises: MeasureError where one was not measured.
    """
    requested = [names] if isinstance(names, str) else list(names)
    missing = [name for name in requested if name not in engines]
    if missing or not requested:
        raise MeasureError(
            f"engine {missing[:1]} was not measured; measured: {sorted(set(engines))}",
            remedy="name engines of this measurement",
        )
    return [at for at, name in enumerate(engines) if name in requested]


def halves(columns: Sequence[int]) -> tuple[list[int], list[int]]:
    """Two parts of a network's sessions, which are in the order of their opening, neither sooner on average."""
    last = len(columns) - 1
    if last == 1:
        return [columns[0]], [columns[1]]
    parities = [min(at, last - at) % 2 for at in range(len(columns))]
    first, second = (
        [column for column, parity in zip(columns, parities, strict=True) if parity == part]
        for part in (0, 1)
    )
    return first, second


def interval_of(estimate: float, replicates: Samples, confidence: float = 0.95) -> Interval:
    """An estimate with the percentile interval of its replicates (float64[n]), widened to hold the estimate."""
    tail, estimate = (1 - confidence) / 2, float(estimate)
    low, high = np.quantile(replicates, (tail, 1 - tail))
    return Interval(
        estimate=estimate,
        low=min(float(low), estimate),
        high=max(float(high), estimate),
        confidence=confidence,
    )


def _bounding_ranks(n: int, share: float, confidence: float) -> tuple[int, int] | None:
    """The ranks (from 0) of the order statistics that bound a quantile, or None.

    X(i) to X(j), counted from 1, covers the quantile with probability P(i <= Binomial(n, share) <= j - 1).
    """
    if n < 1:
        return None
    tail = (1 - confidence) / 2
    below = np.cumsum(_binomial(n, share))  # below[k] = P(Binomial <= k)
    lows = np.flatnonzero(below <= tail)  # X(i) may be as high as i - 1 = lows[-1]
    highs = np.flatnonzero(below[:-1] >= 1 - tail)  # X(j) may be as low as j - 1 = highs[0]
    if len(lows) == 0 or len(highs) == 0:
        return None
    return int(lows[-1]), int(highs[0])


def _binomial(n: int, share: float) -> Samples:
    """The probabilities of 0 to n successes."""
    k = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    chosen = factorials[n] - factorials[k] - factorials[n - k]
    return np.asarray(np.exp(chosen + k * math.log(share) + (n - k) * math.log1p(-share)))
