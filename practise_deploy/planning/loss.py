"""What a network lost against the original, in points of top-1: measured where there are labels, else estimated.

With labels the loss is the share of images that only the original gets right, less the share that only the student
does. Without them the original's probabilities replace the labels: the loss is the mean of p(its answer) - p(the
student's answer), which is exact in expectation if the original is calibrated (Guo et al., On Calibration of Modern Neural
Networks, ICML 2017: its confidence is its accuracy). Networks are overconfident or, trained with label smoothing,
underconfident, so a temperature scales their mean confidence to the accuracy that labelled networks of that confidence reach,
and the interval's upper bound takes a sharper one (benchmarks/reproduce/losses.py; docs/accuracy.md). Pure arithmetic; no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from practise_backends.rounds.intervals import quantile, wilson
from practise_backends.terms import Interval
from practise_deploy.terms import Loss

Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

CONFIDENCE = 0.95
WORTH, SHARPEST_WORTH = (0.65, 0.25), (0.69, 0.28)
"""The accuracy a + b c at a mean confidence c: a fit through the studied networks, and their upper envelope."""
RATIOS = (0.1, 2.0)
"""Bounds of the ratio of loss by labels to loss by the original's probabilities: a few labels may say that nothing costs anything."""
NO_ANSWER = -1
_HALVINGS = 60
_COLDEST, _HOTTEST = 0.02, 50.0


def loss_of(original: Logits, student: Logits, labels: Labels | None = None) -> Loss:
    """The loss on images that the fit did not use. Shapes: logits [images, classes], labels [images], None if unlabelled."""
    answers = _answers(original), _answers(student)
    agreement = percent(int((answers[0] == answers[1]).sum()), len(original))
    points = estimated_points(original, student) if labels is None else measured_points(*answers, labels)
    informative = labels is None or above_chance(int((answers[0] == labels).sum()), len(original), original.shape[1])
    return Loss(
        points=points,
        estimated=labels is None,
        agreement_percent=agreement,
        images=len(original),
        above_chance=informative,
    )


def losses_of(original: Logits, students: Sequence[Logits], labels: Labels) -> list[Loss]:
    """The losses of several students, by labels, where there are few images: each answer would weigh more than the students differ.

    A ratio estimate (Cochran, Sampling Techniques, 3rd ed., chapter 6): what the original's probabilities say of each student, times the one
    ratio of loss by labels to loss by probabilities over all of them. The intervals are of the labels alone.
    Shapes: logits [images, classes] each, labels [images].
    """
    losses = [loss_of(original, student, labels) for student in students]
    likely, _ = temperatures(original)
    estimates = [100 * estimated_share(original, student, likely) for student in students]
    total = sum(estimates)
    low, high = RATIOS
    ratio = min(max(sum(loss.points.estimate for loss in losses) / total, low), high) if total > 0 else 1.0
    return [
        replace(
            loss, points=replace(loss.points, estimate=min(max(ratio * estimate, loss.points.low), loss.points.high))
        )
        for loss, estimate in zip(losses, estimates, strict=True)
    ]


def above_chance(correct: int, images: int, classes: int) -> bool:
    """Whether the lower bound of the accuracy exceeds chance."""
    return wilson(correct, images, CONFIDENCE).low > 1 / classes


def measured_points(original: Labels, student: Labels, labels: Labels) -> Interval:
    """The loss of accuracy in points, paired by image. Shapes: answers and labels [images]."""
    before, after = original == labels, student == labels
    return paired_difference(int((before & ~after).sum()), int((~before & after).sum()), len(labels))


def estimated_points(original: Logits, student: Logits) -> Interval:
    """The same without labels. Shapes: logits [images, classes].

    The upper bound uses the sharpest probabilities. The lower bound credits the student with every image that
    the original's probabilities would give it.
    """
    likely, sharp = temperatures(original)
    lost, gained = _answers_probabilities(original, student, likely)
    sharp_lost, sharp_gained = _answers_probabilities(original, student, sharp)
    estimate = float((lost - gained).mean())
    high = mean_of_shares((sharp_lost - sharp_gained).clip(0)).high
    low = mean_of_shares(lost).low - mean_of_shares(gained).high
    return _in_percent(
        Interval(estimate=estimate, low=min(low, estimate), high=max(high, estimate), confidence=CONFIDENCE)
    )


def temperatures(original: Logits) -> tuple[float, float]:
    """The likely temperature and the sharpest, which is 1 at most. Shapes: logits [images, classes]."""
    confidence = _confidence(original, 1.0)
    likely, sharp = (a + b * confidence for a, b in (WORTH, SHARPEST_WORTH))
    coldest = _temperature(original, max(confidence, sharp))
    return max(coldest, _temperature(original, likely)), coldest


def _confidence(original: Logits, temperature: float) -> float:
    """The mean probability of the original's answers. Shapes: logits [images, classes]."""
    return float(_probabilities(original, temperature).max(1).mean())


def _temperature(original: Logits, confidence: float) -> float:
    """The temperature of a mean confidence, which falls as the temperature rises. Shapes: logits [images, classes]."""
    log_temperature = _crossing(
        lambda power: _confidence(original, math.exp(power)) - confidence, math.log(_COLDEST), math.log(_HOTTEST)
    )
    return math.exp(log_temperature)


def estimated_share(original: Logits, student: Logits, temperature: float) -> float:
    """The estimate at a temperature, as a share of the images. Shapes: logits [images, classes]."""
    lost, gained = _answers_probabilities(original, student, temperature)
    return float((lost - gained).mean())


def images_to_settle(loss: Loss, demand_points: float) -> int | None:
    """How many images would bring the upper bound down to the allowed loss if the estimate stayed; None if none would.

    By Wilson's interval, whose upper bound on these images gives the variance.
    """
    mean, high, demand = (points / 100 for points in (loss.points.estimate, loss.points.high, demand_points))
    if mean >= demand or high <= 0:
        return None
    z = quantile(loss.points.confidence)
    size = (loss.images * ((high - mean) / z) ** 2 + high * high) / high
    return max(1, math.ceil(z * z * max(0.0, size * demand - demand * demand) / (demand - mean) ** 2))


def percent(successes: int, count: int) -> Interval:
    """A share in percent with its Wilson interval."""
    return _in_percent(wilson(successes, count, CONFIDENCE))


def paired_difference(lost: int, gained: int, images: int) -> Interval:
    """The difference in percent between `lost` and `gained` images out of `images`, with its score interval.

    Source: Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design. Unlike a normal interval it keeps its coverage if few or no answers changed.
    """
    estimate = (lost - gained) / images

    def score(difference: float) -> float:
        """The score: standard errors of the data above a true difference, at the constrained maximum likelihood."""
        linear = (2 * images - lost + gained) * difference - lost - gained
        constant = gained * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear * linear + 8 * images * constant))
        share = max(0.0, (root - linear) / (4 * images))
        variance = images * (2 * share + difference * (1 - difference))
        above = lost - gained - images * difference
        if variance > 0:
            return above / math.sqrt(variance)
        return math.copysign(math.inf, above) if above else 0.0

    z = quantile(CONFIDENCE)
    low = _crossing(lambda difference: score(difference) - z, -1.0, estimate)
    high = _crossing(lambda difference: score(difference) + z, estimate, 1.0)
    return _in_percent(Interval(estimate=estimate, low=low, high=high, confidence=CONFIDENCE))


def mean_of_shares(shares: Floats) -> Interval:
    """The mean of values between 0 and 1, most of them 0, with its score interval. Shapes: shares [images].

    Wilson's interval with the variance of such values, k m - m^2 at a mean m, where k is their mean square over their mean:
    1 for binary values, less for fractions. k includes one more image of value 1, since without any loss its size is unknown.
    """
    count, mean = len(shares), float(shares.mean())
    size = float((np.square(shares).sum() + 1) / (shares.sum() + 1))
    z = quantile(CONFIDENCE)
    scale = 1 + z * z / count
    centre = (mean + z * z * size / (2 * count)) / scale
    half = math.sqrt(max(0.0, centre * centre - mean * mean / scale))
    return Interval(
        estimate=mean,
        low=min(mean, max(0.0, centre - half)),
        high=max(mean, min(1.0, centre + half)),
        confidence=CONFIDENCE,
    )


def mean_difference(differences: Floats) -> Interval:
    """The mean of differences between -1 and 1, many of them 0, in percent with its interval. Shapes: differences [images].

    The intervals of what was lost and of what was gained, joined by their correlation: MOVER (Zou and Donner, Construction of confidence
    limits about effect measures, Statistics in Medicine 2008).
    """
    lost, gained = mean_of_shares(differences.clip(0)), mean_of_shares((-differences).clip(0))
    both = lost.estimate * gained.estimate > 0
    correlation = float(np.corrcoef(differences.clip(0), (-differences).clip(0))[0, 1]) if both else 0.0
    ends = (
        (lost.estimate - lost.low, gained.high - gained.estimate),
        (lost.high - lost.estimate, gained.estimate - gained.low),
    )
    below, above = (math.sqrt(a * a + b * b - 2 * correlation * a * b) for a, b in ends)
    estimate = lost.estimate - gained.estimate
    return _in_percent(Interval(estimate=estimate, low=estimate - below, high=estimate + above, confidence=CONFIDENCE))


def _answers_probabilities(original: Logits, student: Logits, temperature: float) -> tuple[Floats, Floats]:
    """The original's probabilities of its answer and the student's, both 0 where they agree. Shapes: [images, classes] -> [images]."""
    shares = _probabilities(original, temperature)
    rows, original_answers, student_answers = np.arange(len(shares)), _answers(original), _answers(student)
    differs = original_answers != student_answers
    return shares[rows, original_answers] * differs, shares[rows, student_answers] * (
        differs & (student_answers != NO_ANSWER)
    )


def _answers(logits: Logits) -> Labels:
    """The top-1 class, NO_ANSWER (never right) where scores are not finite. Shapes: [images, classes] -> [images]."""
    return np.where(np.isfinite(logits).all(1), logits.argmax(1), NO_ANSWER)


def _probabilities(original: Logits, temperature: float) -> Floats:
    """The softmax of logits over a temperature. Shapes: [images, classes]."""
    scaled = original.astype(np.float64) / temperature
    shares = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """The root of a decreasing function, by bisection; the nearer bound if there is none."""
    if function(high) >= 0:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def _in_percent(share: Interval) -> Interval:
    return Interval(
        estimate=100 * share.estimate, low=100 * share.low, high=100 * share.high, confidence=share.confidence
    )
