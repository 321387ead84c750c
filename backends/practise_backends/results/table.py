"""The latency table: what a device saves without each residual block of a network.

One measurement holds what `table_design` says, in the same paired rounds. A class whose twin disagrees is split: each of its
blocks is measured by itself in a second measurement. Blocks whose saving the noise hides are measured again, for longer and
in more sessions, in a measurement of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.results.compare import shared_fields
from practise_backends.results.table_design import FIRSTS, ORIGINALS, Cut, Design, Variant, design_of
from practise_backends.rounds.estimates import LatencyEstimates, estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL, Samples, interval_of, raw_samples
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.terms import Arrays, Interval, LatencyTable, Saving, SetCheck, Timings, TwinCheck

_NOTHING = 1e-12  # squares of shares: where the sets save less than a millionth, nothing can add up

MAX_REMEASUREMENTS, REMEASUREMENT_SESSIONS, WORTH_KNOWING_PERCENT = 2, 4, 0.5
"""How often blocks that the noise hides are measured again at most, how often each network is opened then, and the saving, in
percent of the latency, below which nobody looks again."""

_TWIN_CONFIDENCE = 0.99  # there are several checks in a table, and a class is not to be split by chance

Without = Callable[[tuple[str, ...]], Path]
"""The file of the network without these blocks."""


RANKING_SHARE = 0.05
"""Blocks can be ranked where each saving is known to this share of itself (`StoppingRule.relative_half_width`)."""


def measure_table(
    network: str,
    cuts: Sequence[Cut],
    without: Without,
    setup: MeasurementSetup,
    progress: Progress | None = None,
    design: Design | None = None,
) -> LatencyTable:
    """Every block's saving with its interval. design: what is measured together; drawn here, where none is given.

    Raises: CompileError, MeasureError.
    """
    design = design or design_of(cuts, setup.conditions.seed)
    measured = _measured(design.variants(), without, setup, progress)
    estimates = estimate_latencies(measured.timings, setup.stopping_rule.confidence)
    twins = tuple(_twin_check(key, design, estimates) for key in design.twins)
    split = _split(cuts, twins)
    split_timings = _measured(_alone(split), without, setup, progress).timings if split else None
    split_estimates = (
        estimates
        if split_timings is None
        else estimate_latencies(split_timings, setup.stopping_rule.confidence)
    )
    samples = _samples(measured.timings) | (
        {} if split_timings is None else _samples(split_timings, "split_")
    )
    scale = _Scale.of(estimates)
    first = tuple(
        _saving(cut, _reduction_percent(split_estimates, cut.block), (), scale, measured=True)
        if cut.block in split
        else _pooled(cut, cuts, design, estimates, scale)
        for cut in cuts
    )
    remeasured = _remeasure(first, without, setup, progress)
    savings = remeasured.savings
    samples |= remeasured.samples
    shared = shared_fields(setup, measured.timings, estimates)
    if split_timings is not None:
        shared["discarded"] += tuple(f"split: {reason}" for reason in split_timings.discarded)
    return LatencyTable(
        **shared,
        network=network,
        input_shape=measured.input_shape,
        baseline_ms=scale.baseline_ms,
        resolution_ms=scale.resolution_ms,
        savings=savings,
        twins=twins,
        sets=_set_checks(design, savings, estimates),
        additivity=_additivity(design, cuts, estimates),
        notes=(
            *measured.notes,
            *measured.timings.notes,
            *_split_note(twins, split_timings),
            *remeasured.notes,
        ),
        samples_sha256=samples_digest(samples),
        samples=samples,
    )


def measure_without(
    dropped: tuple[str, ...], without: Without, setup: MeasurementSetup, progress: Progress | None = None
) -> Interval:
    """By how many percent the latency falls when these blocks are left out together."""
    sessions = setup.stopping_rule.sessions
    variants = (Variant(dropped=(), sessions=sessions), Variant(dropped=dropped, sessions=sessions))
    return measure_sets([dropped], without, setup, progress, variants=variants)[0]


def measure_sets(
    sets: Sequence[tuple[str, ...]],
    without: Without,
    setup: MeasurementSetup,
    progress: Progress | None = None,
    *,
    variants: Sequence[Variant] | None = None,
) -> list[Interval]:
    """By how many percent the latency falls without each of these sets of blocks, all in the same rounds."""
    chosen = variants or [
        Variant(dropped=names, sessions=FIRSTS if names else ORIGINALS) for names in ((), *sets)
    ]
    measured = _measured(chosen, without, setup, progress)
    estimates = estimate_latencies(measured.timings, setup.stopping_rule.confidence)
    return [_reduction_percent(estimates, Variant(dropped=names, sessions=1).name) for names in sets]


def samples_digest(samples: Arrays) -> str:
    """sha256 of raw samples: names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(samples):
        array = np.ascontiguousarray(samples[name])
        total.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        total.update(array.tobytes())
    return total.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    timings: Timings
    input_shape: tuple[int, ...]
    notes: tuple[str, ...]


def _measured(
    variants: Sequence[Variant], without: Without, setup: MeasurementSetup, progress: Progress | None
) -> _Measured:
    """Paired rounds of the variants."""
    candidates = {
        variant.name: Candidate(model=without(variant.dropped), sessions=variant.sessions)
        for variant in variants
    }
    with opened(candidates, setup, progress) as networks:
        timings = measure(networks, setup, progress)
    return _Measured(
        timings=timings, input_shape=next(iter(networks.feeds.values())).shape, notes=networks.notes
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """From ratios to milliseconds, and the smallest saving that is distinguishable from zero."""

    baseline_ms: Interval
    resolution_ms: float

    @classmethod
    def of(cls, estimates: LatencyEstimates) -> _Scale:
        baseline = estimates.typical_ms(ORIGINAL)
        return cls(baseline_ms=baseline, resolution_ms=baseline.estimate * _finest(estimates))


def _finest(estimates: LatencyEstimates) -> float:
    """The smallest difference that is distinguishable, as a share: how far the noise floor's interval reaches from 1."""
    floor = estimates.noise_floor()
    return max(abs(floor.high - 1), abs(1 - floor.low))


def _reduction(estimates: LatencyEstimates, names: str | Sequence[str]) -> tuple[float, Samples]:
    """The share of the original's latency that is saved, and its replicates (float64[replicates])."""
    estimate, replicates = estimates.log_ratio(names)
    return 1 - float(np.exp(estimate)), 1 - np.exp(replicates)


def _reduction_percent(estimates: LatencyEstimates, names: str | Sequence[str]) -> Interval:
    estimate, replicates = _reduction(estimates, names)
    return interval_of(100 * estimate, 100 * replicates, estimates.confidence)


def _twin_check(key: int, design: Design, estimates: LatencyEstimates) -> TwinCheck:
    """Whether the class's twin costs what its first block costs, as far as this measurement can tell."""
    first, twin = design.firsts[key], design.twins[key]
    estimate, replicates = estimates.log_ratio(twin, first)
    difference = interval_of(100 * np.expm1(estimate), 100 * np.expm1(replicates), _TWIN_CONFIDENCE)
    finest = 100 * _finest(estimates)
    return TwinCheck(
        latency_class=key,
        blocks=(first, twin),
        difference_percent=difference,
        same=difference.low <= 0 <= difference.high or abs(difference.estimate) <= finest,
    )


def _pooled(
    cut: Cut, cuts: Sequence[Cut], design: Design, estimates: LatencyEstimates, scale: _Scale
) -> Saving:
    """A block's saving, read off its class."""
    key = cut.latency_class
    measured = design.measured(key)
    twins = tuple(other.block for other in cuts if other.latency_class == key and other != cut)
    return _saving(cut, _reduction_percent(estimates, measured), twins, scale, measured=cut.block in measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remeasured:
    """All savings after those that the noise hid were measured again, and notes about that."""

    savings: tuple[Saving, ...]
    samples: Arrays
    notes: tuple[str, ...]


def _remeasure(
    savings: tuple[Saving, ...], without: Without, setup: MeasurementSetup, progress: Progress | None
) -> _Remeasured:
    """Measure again, separately, the blocks whose saving is not distinguishable from zero but may be worthwhile."""
    samples: Arrays = {}
    notes: list[str] = []
    for number in range(1, MAX_REMEASUREMENTS + 1):
        hidden = [saving for saving in savings if _is_hidden(saving)]
        if not hidden:
            break
        of_class = {
            _class_of(saving): saving.block
            for saving in reversed(hidden)
            if saving.measured or not saving.pooled_with
        }
        variants = [Variant(dropped=(), sessions=REMEASUREMENT_SESSIONS)]
        variants += [
            Variant(dropped=(block,), sessions=REMEASUREMENT_SESSIONS) for block in of_class.values()
        ]
        rule = setup.stopping_rule
        longer = replace(
            rule,
            budget_s=rule.budget_s * number,
            half_width_percent=rule.half_width_percent / 2**number,
        )
        timings = _measured(variants, without, replace(setup, stopping_rule=longer), progress).timings
        estimates = estimate_latencies(timings, rule.confidence)
        scale = _Scale.of(estimates)
        fresh = {key: _reduction_percent(estimates, block) for key, block in of_class.items()}
        savings = tuple(
            _remeasured_saving(saving, fresh[_class_of(saving)], scale)
            if _is_hidden(saving) and _class_of(saving) in fresh
            else saving
            for saving in savings
        )
        samples |= _samples(timings, f"again{number}_")
        blocks = ", ".join(f"{saving.block}" for saving in hidden)
        notes.append(
            f"the noise hid the saving of {blocks}: measured again for {timings.warmup_s + longer.budget_s:.0f} s at most; "
            f"{len(timings.rounds_ms)} rounds; {timings.stopped_because}"
        )
    return _Remeasured(savings=savings, samples=samples, notes=tuple(notes))


def _is_hidden(saving: Saving) -> bool:
    """Whether there may be a saving worth knowing that the noise hides."""
    return not saving.distinguishable and saving.reduction_percent.high > WORTH_KNOWING_PERCENT


def _class_of(saving: Saving) -> tuple[str, ...]:
    """What shares a measurement: a class that was not split."""
    return tuple(sorted((saving.block, *saving.pooled_with)))


def _remeasured_saving(saving: Saving, reduction: Interval, scale: _Scale) -> Saving:
    """The saving of the same block, measured again."""
    cut = Cut(block=saving.block, latency_class=saving.latency_class)
    return _saving(cut, reduction, saving.pooled_with, scale, measured=saving.measured)


def _saving(
    cut: Cut, reduction: Interval, twins: tuple[str, ...], scale: _Scale, *, measured: bool
) -> Saving:
    unit = scale.baseline_ms.estimate / 100
    saving = Interval(
        estimate=reduction.estimate * unit,
        low=reduction.low * unit,
        high=reduction.high * unit,
        confidence=reduction.confidence,
    )
    return Saving(
        block=cut.block,
        latency_class=cut.latency_class,
        saving_ms=saving,
        reduction_percent=reduction,
        pooled_with=twins,
        distinguishable=saving.low > 0 and saving.estimate > scale.resolution_ms,
        measured=measured,
    )


def _summed(
    names: Sequence[str], design: Design, cuts: Sequence[Cut], estimates: LatencyEstimates
) -> tuple[float, Samples]:
    """The sum of single reductions, as a share, and its replicates (float64[replicates])."""
    classes = {cut.block: cut.latency_class for cut in cuts}
    parts = [_reduction(estimates, design.measured(classes[name])) for name in names]
    return sum(part[0] for part in parts), np.sum([part[1] for part in parts], axis=0)


def _set_checks(
    design: Design, savings: Sequence[Saving], estimates: LatencyEstimates
) -> tuple[SetCheck, ...]:
    """Every random set: predicted by the sum of the table's savings, and measured."""
    single = {saving.block: saving.reduction_percent.estimate for saving in savings}
    return tuple(
        SetCheck(
            dropped=names,
            predicted_percent=sum(single[name] for name in names),
            measured_percent=_reduction_percent(estimates, " + ".join(names)),
        )
        for names in design.sets
    )


def _additivity(design: Design, cuts: Sequence[Cut], estimates: LatencyEstimates) -> Interval | None:
    """Measured over predicted saving: the slope, through the origin, of the sets' savings on their sums."""
    if not design.sets:
        return None
    predictions = [_summed(names, design, cuts, estimates) for names in design.sets]
    measurements = [_reduction(estimates, " + ".join(names)) for names in design.sets]
    products = sum(
        predicted[0] * measured[0] for predicted, measured in zip(predictions, measurements, strict=True)
    )
    squares = sum(predicted[0] ** 2 for predicted in predictions)
    product_replicates = np.sum(
        [predicted[1] * measured[1] for predicted, measured in zip(predictions, measurements, strict=True)],
        axis=0,
    )
    square_replicates = np.sum([predicted[1] ** 2 for predicted in predictions], axis=0)
    if min(squares, float(np.min(square_replicates))) <= _NOTHING:
        return None
    return interval_of(products / squares, product_replicates / square_replicates, estimates.confidence)


def _samples(timings: Timings, prefix: str = "") -> Arrays:
    return {f"{prefix}{name}": array for name, array in raw_samples(timings).items()}


def _split(cuts: Sequence[Cut], twins: Sequence[TwinCheck]) -> tuple[str, ...]:
    """The blocks of the classes whose twin disagrees."""
    classes = {twin.latency_class for twin in twins if not twin.same}
    return tuple(cut.block for cut in cuts if cut.latency_class in classes)


def _alone(split: Sequence[str]) -> tuple[Variant, ...]:
    """The original, and the network without each of these blocks."""
    each = (Variant(dropped=(block,), sessions=FIRSTS) for block in split)
    return (Variant(dropped=(), sessions=ORIGINALS), *each)


def _split_note(twins: Sequence[TwinCheck], split_timings: Timings | None) -> tuple[str, ...]:
    """Which classes were split, and why, and how their own measurement ended."""
    if split_timings is None:
        return ()
    why = tuple(
        f"latency class {twin.latency_class} was split, its blocks measured one by one: {twin.blocks[0]} and "
        f"{twin.blocks[1]} differ by {twin.difference_percent.estimate:.2f}% of the latency"
        for twin in twins
        if not twin.same
    )
    return (
        *why,
        f"split: {len(split_timings.rounds_ms)} rounds; {split_timings.stopped_because}",
        *split_timings.notes,
    )
