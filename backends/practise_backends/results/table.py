"""The latency table: what a device saves without each residual block of a network.

One measurement holds what `table_design` says, in the same paired rounds. A class whose twin disagrees is split: each of its
blocks is measured by itself in a second measurement. Blocks whose saving the noise hides are measured again, for longer and
in more sessions, with nothing else beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from practise_backends.results.table_design import FIRSTS, ORIGINALS, Cut, Design, Variant, design_of
from practise_backends.rounds.estimates import Levels, levels_of
from practise_backends.rounds.intervals import ORIGINAL, Samples, interval_of, raw_samples
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.terms import (
    Arrays,
    Bench,
    Interval,
    LatencyTable,
    Progress,
    Saving,
    SetCheck,
    Timings,
    TwinCheck,
)

_NOTHING = 1e-12  # squares of shares: where the sets save less than a millionth, nothing can add up

MOST_AGAIN, SESSIONS_AGAIN, WORTH_KNOWING_PERCENT = 2, 4, 0.5
"""How often blocks that the noise hides are measured again at most, how often each network is opened then, and the saving, in
percent of the latency, below which nobody looks again."""

_TWIN_CONFIDENCE = 0.99  # there are several checks in a table, and a class is not to be split by chance

Without = Callable[[tuple[str, ...]], Path]
"""The file of the network without these blocks."""


RANKING_SHARE = 0.05
"""Blocks can be ranked where each saving is known to this share of itself (`Patience.enough_share`)."""


def measure_table(
    network: str,
    cuts: Sequence[Cut],
    without: Without,
    bench: Bench,
    progress: Progress | None = None,
    design: Design | None = None,
) -> LatencyTable:
    """Every block's saving with its interval. design: what is measured together; drawn here, where none is given.

    Raises: CompileError, MeasureError.
    """
    design = design or design_of(cuts, bench.conditions.seed)
    found = _measured(design.variants(), without, bench, progress)
    levels = levels_of(found.timings, bench.patience.confidence)
    twins = tuple(_twin_check(key, design, levels) for key in design.twins)
    split = _split(cuts, twins)
    alone = _measured(_alone(split), without, bench, progress).timings if split else None
    single = levels if alone is None else levels_of(alone, bench.patience.confidence)
    samples = _samples(found.timings) | ({} if alone is None else _samples(alone, "split_"))
    scale = _Scale.of(levels)
    first = tuple(
        _own(cut, single, scale) if cut.block in split else _pooled(cut, cuts, design, levels, scale)
        for cut in cuts
    )
    again = _measured_again(first, without, bench, progress)
    savings = again.savings
    samples |= again.samples
    return LatencyTable(
        network=network,
        backend=bench.backend.name,
        device=bench.backend.device(),
        conditions=bench.conditions,
        input_shape=found.input_shape,
        baseline_ms=scale.baseline_ms,
        aa_ratio=levels.noise_floor(),
        resolution_ms=scale.resolution_ms,
        session_percent=levels.session_percent,
        estimator=levels.estimator,
        estimator_errors_percent=levels.errors_percent,
        savings=savings,
        twins=twins,
        sets=_set_checks(design, savings, levels),
        additivity=_additivity(design, cuts, levels),
        rounds=len(found.timings.rounds_ms),
        discarded=(
            *found.timings.discarded,
            *(f"split: {one}" for one in (alone.discarded if alone else ())),
        ),
        warmup_s=found.timings.warmup_s,
        stopped_because=found.timings.stopped_because,
        environment=found.timings.environment,
        notes=(*found.notes, *found.timings.notes, *_split_note(twins, alone), *again.notes),
        timed_by=found.timings.timed_by,
        samples_sha256=samples_digest(samples),
        samples=samples,
    )


def measure_without(
    dropped: tuple[str, ...], without: Without, bench: Bench, progress: Progress | None = None
) -> Interval:
    """By how many percent the latency falls when these blocks are left out together."""
    sessions = bench.patience.sessions
    variants = (Variant(dropped=(), sessions=sessions), Variant(dropped=dropped, sessions=sessions))
    return measure_sets([dropped], without, bench, progress, variants=variants)[0]


def measure_sets(
    sets: Sequence[tuple[str, ...]],
    without: Without,
    bench: Bench,
    progress: Progress | None = None,
    *,
    variants: Sequence[Variant] | None = None,
) -> list[Interval]:
    """By how many percent the latency falls without each of these sets of blocks, all in the same rounds."""
    chosen = variants or [
        Variant(dropped=names, sessions=FIRSTS if names else ORIGINALS) for names in ((), *sets)
    ]
    found = _measured(chosen, without, bench, progress)
    levels = levels_of(found.timings, bench.patience.confidence)
    return [_reduction_percent(levels, Variant(dropped=names, sessions=1).name) for names in sets]


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
    variants: Sequence[Variant], without: Without, bench: Bench, progress: Progress | None
) -> _Measured:
    """Paired rounds of the variants."""
    candidates = {one.name: Candidate(model=without(one.dropped), sessions=one.sessions) for one in variants}
    with opened(candidates, bench, progress) as found:
        timings = measure(found, bench, progress)
    return _Measured(timings=timings, input_shape=next(iter(found.feeds.values())).shape, notes=found.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """From ratios to milliseconds, and the smallest saving that can be told from none."""

    baseline_ms: Interval
    resolution_ms: float

    @classmethod
    def of(cls, levels: Levels) -> _Scale:
        baseline, floor = levels.typical_ms(ORIGINAL), levels.noise_floor()
        finest = max(abs(floor.high - 1), abs(1 - floor.low))
        return cls(baseline_ms=baseline, resolution_ms=baseline.estimate * finest)


def _reduction(levels: Levels, names: str | Sequence[str]) -> tuple[float, Samples]:
    """The share of the original's latency that is saved, and its draws."""
    estimate, draws = levels.log_ratio(names)
    return 1 - float(np.exp(estimate)), 1 - np.exp(draws)


def _reduction_percent(levels: Levels, names: str | Sequence[str]) -> Interval:
    estimate, draws = _reduction(levels, names)
    return interval_of(100 * estimate, 100 * draws, levels.confidence)


def _twin_check(key: int, design: Design, levels: Levels) -> TwinCheck:
    """Whether the class's twin costs what its first block costs, as far as this measurement can tell."""
    first, twin = design.firsts[key], design.twins[key]
    estimate, draws = levels.log_ratio(twin, first)
    difference = interval_of(100 * np.expm1(estimate), 100 * np.expm1(draws), _TWIN_CONFIDENCE)
    floor = levels.noise_floor()
    finest = 100 * max(abs(floor.high - 1), abs(1 - floor.low))
    return TwinCheck(
        latency_class=key,
        blocks=(first, twin),
        difference_percent=difference,
        same=difference.low <= 0 <= difference.high or abs(difference.estimate) <= finest,
    )


def _pooled(cut: Cut, cuts: Sequence[Cut], design: Design, levels: Levels, scale: _Scale) -> Saving:
    """A block's saving, read off its class."""
    key = cut.latency_class
    measured = [design.firsts[key], *([design.twins[key]] if key in design.twins else [])]
    twins = tuple(one.block for one in cuts if one.latency_class == key and one != cut)
    return _saving(cut, _reduction_percent(levels, measured), twins, scale, measured=cut.block in measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """All savings after those that noise hid were measured again, and what is told of it."""

    savings: tuple[Saving, ...]
    samples: Arrays
    notes: tuple[str, ...]


def _measured_again(
    savings: tuple[Saving, ...], without: Without, bench: Bench, progress: Progress | None
) -> _Again:
    """Blocks whose saving may be there but cannot be told from none, in measurements of their own."""
    samples: Arrays = {}
    notes: list[str] = []
    for number in range(1, MOST_AGAIN + 1):
        hidden = [one for one in savings if _is_hidden(one)]
        if not hidden:
            break
        of_class = {
            _class_of(one): one.block for one in reversed(hidden) if one.measured or not one.pooled_with
        }
        variants = [Variant(dropped=(), sessions=SESSIONS_AGAIN)]
        variants += [Variant(dropped=(block,), sessions=SESSIONS_AGAIN) for block in of_class.values()]
        patience = bench.patience
        longer = replace(
            patience,
            budget_s=patience.budget_s * number,
            enough_percent=patience.enough_percent / 2**number,
        )
        timings = _measured(variants, without, replace(bench, patience=longer), progress).timings
        levels = levels_of(timings, patience.confidence)
        own = _Scale.of(levels)
        fresh = {key: _reduction_percent(levels, block) for key, block in of_class.items()}
        savings = tuple(
            _again(one, fresh[_class_of(one)], own) if _is_hidden(one) and _class_of(one) in fresh else one
            for one in savings
        )
        samples |= _samples(timings, f"again{number}_")
        told = ", ".join(f"{one.block}" for one in hidden)
        notes.append(
            f"the noise hid the saving of {told}: measured again for {timings.warmup_s + longer.budget_s:.0f} s at most; "
            f"{len(timings.rounds_ms)} rounds; {timings.stopped_because}"
        )
    return _Again(savings=savings, samples=samples, notes=tuple(notes))


def _is_hidden(one: Saving) -> bool:
    """Whether there may be a saving worth knowing that the noise hides."""
    return not one.distinguishable and one.reduction_percent.high > WORTH_KNOWING_PERCENT


def _class_of(one: Saving) -> tuple[str, ...]:
    """What shares a measurement: a class that was not split."""
    return tuple(sorted((one.block, *one.pooled_with)))


def _again(one: Saving, reduction: Interval, scale: _Scale) -> Saving:
    """The same with the saving that was measured again."""
    cut = Cut(block=one.block, latency_class=one.latency_class)
    return _saving(cut, reduction, one.pooled_with, scale, measured=one.measured)


def _own(cut: Cut, levels: Levels, scale: _Scale) -> Saving:
    """A block's saving, measured by itself."""
    return _saving(cut, _reduction_percent(levels, cut.block), (), scale, measured=True)


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
    names: Sequence[str], design: Design, cuts: Sequence[Cut], levels: Levels
) -> tuple[float, Samples]:
    """The sum of single reductions, as a share, and its draws."""
    classes = {cut.block: cut.latency_class for cut in cuts}
    parts = []
    for name in names:
        key = classes[name]
        parts.append(
            _reduction(levels, [design.firsts[key], *([design.twins[key]] if key in design.twins else [])])
        )
    return sum(part[0] for part in parts), np.sum([part[1] for part in parts], axis=0)


def _set_checks(design: Design, savings: Sequence[Saving], levels: Levels) -> tuple[SetCheck, ...]:
    """Every random set: predicted by the sum of the table's savings, and measured."""
    single = {saving.block: saving.reduction_percent.estimate for saving in savings}
    return tuple(
        SetCheck(
            dropped=names,
            predicted_percent=sum(single[name] for name in names),
            measured_percent=_reduction_percent(levels, " + ".join(names)),
        )
        for names in design.sets
    )


def _additivity(design: Design, cuts: Sequence[Cut], levels: Levels) -> Interval | None:
    """Measured over predicted saving: the slope, through the origin, of the sets' savings on their sums."""
    if not design.sets:
        return None
    sums = [_summed(names, design, cuts, levels) for names in design.sets]
    wholes = [_reduction(levels, " + ".join(names)) for names in design.sets]
    products = sum(one[0] * whole[0] for one, whole in zip(sums, wholes, strict=True))
    squares = sum(one[0] ** 2 for one in sums)
    drawn_products = np.sum([one[1] * whole[1] for one, whole in zip(sums, wholes, strict=True)], axis=0)
    drawn_squares = np.sum([one[1] ** 2 for one in sums], axis=0)
    if min(squares, float(np.min(drawn_squares))) <= _NOTHING:
        return None
    return interval_of(products / squares, drawn_products / drawn_squares, levels.confidence)


def _samples(timings: Timings, prefix: str = "") -> Arrays:
    return {f"{prefix}{name}": array for name, array in raw_samples(timings).items()}


def _split(cuts: Sequence[Cut], twins: Sequence[TwinCheck]) -> tuple[str, ...]:
    """The blocks of the classes whose twin disagrees."""
    classes = {one.latency_class for one in twins if not one.same}
    return tuple(cut.block for cut in cuts if cut.latency_class in classes)


def _alone(split: Sequence[str]) -> tuple[Variant, ...]:
    """The original, and the network without each of these blocks."""
    each = (Variant(dropped=(block,), sessions=FIRSTS) for block in split)
    return (Variant(dropped=(), sessions=ORIGINALS), *each)


def _split_note(twins: Sequence[TwinCheck], alone: Timings | None) -> tuple[str, ...]:
    """Which classes were split, and why, and how their own measurement ended."""
    if alone is None:
        return ()
    why = tuple(
        f"latency class {one.latency_class} was split, its blocks measured one by one: {one.blocks[0]} and "
        f"{one.blocks[1]} differ by {one.difference_percent.estimate:.2f}% of the latency"
        for one in twins
        if not one.same
    )
    return (*why, f"split: {len(alone.rounds_ms)} rounds; {alone.stopped_because}", *alone.notes)
