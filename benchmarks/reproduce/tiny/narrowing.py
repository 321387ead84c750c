"""Which filters go: widths that the device rewards, taken where they cost least, until the network is as fast as asked.

A device need not reward a narrower layer: ONNX Runtime computes channels in blocks of 16 where the processor has AVX-512, of 8
elsewhere, so that 24 filters may take as long as 32. So every width is measured, and one that saves no more than a wider one
is left out. What a width costs is the error of the features where nothing else is pruned, the per-layer sensitivity of
Li et al., 'Pruning filters for efficient ConvNets' (ICLR 2017), section 3.2. Layers are then narrowed one at a time, always
where a percent of the latency costs least error, until the network is as fast as the one without blocks; both are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, fx, nn

from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Interval, LatencyTable, StoppingRule
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.planning.choose import predicted_percent
from practise_deploy.terms import Block
from practise_deploy.training.distillation import Distillation

from .bench import reductions_of
from .choice import by_error, first_that_meet, plain_errors
from .filters import inner_convolutions, prune_filters
from .grid import MET_AT
from .subjects import INNER, Subject

GROUP = 8
MOST_RUNGS = 8
REFERENCE_IMAGES = 500
HARM_IMAGES = {True: 200, False: 50}
"""How many images tell what a width harms, by whether they are small (64 pixels at most)."""
TOLERANCE_POINTS = 0.5
_AT_ONCE, _BATCH = 10, 50
_OF_RUNGS = {
    True: StoppingRule(budget_s=180.0, half_width_percent=0.15),
    False: StoppingRule(budget_s=240.0, half_width_percent=0.15, sessions=2),
}
"""By whether the images are small: a larger network has more widths, and is opened less often."""
_OF_STRUCTURES = StoppingRule(budget_s=120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The narrower widths of convolutions that are alike.

    saving_percent: of the network's latency by each width that was tried, for one convolution. harm: mean squared error of
    the pre-pooling features, by convolution and width, with that convolution alone narrowed; of the widths that are kept.
    """

    convolutions: tuple[str, ...]
    full_width: int
    saving_percent: dict[int, Interval]
    harm: dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Rung:
    """A width of one convolution, what it saves (percent of the network's latency) and what it harms (see `Ladder`)."""

    width: int
    saving: float
    harm: float


Structure = dict[str, Rung]
_Known = dict[tuple[int, int], tuple[FitImages, list[Tensor]]]


@dataclass(frozen=True, slots=True)
class Matched:
    """What a structure and the blocks' network save, in percent, measured in the same rounds."""

    saving: Interval
    reference: Interval

    @property
    def margin(self) -> float:
        """How many points more the structure saves."""
        return self.saving.estimate - self.reference.estimate


def ladder(width: int) -> tuple[int, ...]:
    """Narrower widths, widest first: multiples of 8, or some 8 evenly spread multiples of 16 where those would be many."""
    fine = range(GROUP, width, GROUP)
    step = GROUP if len(fine) <= MOST_RUNGS else 2 * GROUP * -(-width // (2 * GROUP * (MOST_RUNGS + 1)))
    return tuple(range(step, width, step))[::-1]


def rewarded(savings: Mapping[int, Interval]) -> list[int]:
    """The widths, widest first, that save more than every wider one that is kept, and more than nothing, beyond doubt."""
    kept: list[int] = []
    most = 0.0
    for width in sorted(savings, reverse=True):
        if savings[width].low > most:
            kept.append(width)
            most = savings[width].estimate
    return kept


def alike(convolutions: Sequence[str], blocks: Sequence[Block]) -> list[tuple[str, ...]]:
    """The convolutions in groups that cost the same: in the same place of residual units of one latency class."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in convolutions:
        unit = next((block for block in blocks if name.startswith(f"{block.name}.")), None)
        key = (name,) if unit is None else (unit.latency_class, name.removeprefix(unit.name))
        groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


def measure_ladders(subject: Subject) -> list[Ladder]:
    """What every width saves on this device, and what those that save anything harm."""
    groups = alike(inner_convolutions(subject.teacher, INNER[subject.name]), subject.blocks)
    savings = _savings(subject, groups)
    kept = {name: rewarded(saved) for names, saved in zip(groups, savings, strict=True) for name in names}
    harms = _harms(subject, kept)
    return [
        Ladder(
            convolutions=names,
            full_width=_width(subject, names[0]),
            saving_percent=saved,
            harm={name: harms[name] for name in names},
        )
        for names, saved in zip(groups, savings, strict=True)
    ]


def _savings(subject: Subject, groups: Sequence[tuple[str, ...]]) -> list[dict[int, Interval]]:
    """By width, what one convolution of each group saves: a group is narrowed as a whole, and its saving divided."""
    tried = [(names, width) for names in groups for width in ladder(_width(subject, names[0]))]
    networks = {f"{names[0]} {width}": _narrowed(subject, dict.fromkeys(names, width)) for names, width in tried}
    found = reductions_of(subject, networks, _OF_RUNGS[_small(subject)])
    savings: dict[tuple[str, ...], dict[int, Interval]] = {names: {} for names in groups}
    for names, width in tried:
        savings[names][width] = _part(found[f"{names[0]} {width}"], len(names))
    return list(savings.values())


def _part(whole: Interval, number: int) -> Interval:
    """One of so many equal parts."""
    return Interval(
        estimate=whole.estimate / number, low=whole.low / number, high=whole.high / number, confidence=whole.confidence
    )


def _harms(subject: Subject, kept: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
    """By convolution and width, the error of the features with nothing else narrowed."""
    images, known = _images(subject, HARM_IMAGES[_small(subject)]), _Known()
    return {
        name: {width: _error(subject, _narrowed(subject, {name: width}), images, known) for width in widths}
        for name, widths in kept.items()
    }


def _error(subject: Subject, student: fx.GraphModule, images: FitImages, known: _Known) -> float:
    """Mean squared error of the pre-pooling features. known: the teacher's, which are computed once."""
    pair = Distillation(student, subject.teacher.cpu(), subject.feature, subject.feature, feature_cache=known)
    return pair.error(images, _BATCH)


def _small(subject: Subject) -> bool:
    return subject.network.input_shape[-1] <= 64


def _images(subject: Subject, count: int) -> FitImages:
    return subject.tiny_set(min(count, len(subject.pool)), 0)


def _width(subject: Subject, name: str) -> int:
    convolution = subject.teacher.get_submodule(name)
    assert isinstance(convolution, nn.Conv2d)
    return convolution.out_channels


def _narrowed(subject: Subject, widths: Mapping[str, int]) -> fx.GraphModule:
    return prune_filters(subject.teacher, list(widths), list(widths.values()), subject.network.input_shape)


def rungs_of(ladders: Sequence[Ladder]) -> dict[str, tuple[Rung, ...]]:
    """Of each convolution the full width and those that are kept, widest first."""
    return {
        name: (
            Rung(each.full_width, 0.0, 0.0),
            *(Rung(width, each.saving_percent[width].estimate, harm) for width, harm in each.harm[name].items()),
        )
        for each in ladders
        for name in each.convolutions
    }


def chain(rungs: Mapping[str, Sequence[Rung]]) -> list[Structure]:
    """From the full network to the narrowest: each time the one convolution and rung of least further harm for what it saves more."""
    now = {name: of[0] for name, of in rungs.items()}
    found = [dict(now)]
    while moves := [
        ((lower.harm - now[name].harm) / (lower.saving - now[name].saving), name, lower)
        for name, of in rungs.items()
        for lower in of[of.index(now[name]) + 1 :]
    ]:
        _, name, lower = min(moves, key=lambda move: move[0])
        now[name] = lower
        found.append(dict(now))
    return found


def begin_at(structures: Sequence[Structure], goal: float) -> int:
    """The first structure whose savings add up to the goal; the last where none do."""
    sums = [sum(rung.saving for rung in structure.values()) for structure in structures]
    return next((place for place, saved in enumerate(sums) if saved >= goal - TOLERANCE_POINTS), len(sums) - 1)


def widest(begin: int, count: int, measure: Callable[[range], Mapping[int, Matched]]) -> tuple[int, Matched]:
    """The first of so many structures, wide to narrow, that saves enough, and what it was measured to save.

    measure: gives some places' savings. It begins around `begin`, and goes on to narrower ones while none saves enough, to
    wider ones while the first that was measured does. Where even the narrowest are too slow: the one that saves most.
    """
    first = max(0, begin - _AT_ONCE // 2)
    places = range(first, min(first + _AT_ONCE, count))
    found: dict[int, Matched] = {}
    while places:
        found |= measure(places)
        enough = [place for place in sorted(found) if found[place].margin >= -TOLERANCE_POINTS]
        if enough and enough[0] > min(found):
            return enough[0], found[enough[0]]
        if enough:
            places = range(max(0, min(found) - _AT_ONCE), min(found))
        else:
            places = range(max(found) + 1, min(max(found) + 1 + _AT_ONCE, count))
    place = enough[0] if enough else max(found, key=lambda place: found[place].margin)
    return place, found[place]


def match_filters(subject: Subject, table: LatencyTable, reduction: int, ladders: Sequence[Ladder]) -> dict[str, Any]:
    """Inner widths whose network is as fast as the one without blocks, both measured; the widest there are.

    The blocks' network is that of the least plain-drop error on images of seed 0: any set of the budget would do, as sets
    of equal predicted latency have equal latency.
    """
    images = _images(subject, REFERENCE_IMAGES)
    dropped = first_that_meet(by_error(plain_errors(subject, images), table), table, reduction)
    structures = chain(rungs_of(ladders))
    begin = begin_at(structures, predicted_percent(dropped, table).estimate)
    place, matched = widest(begin, len(structures), _measuring(subject, dropped, structures))
    widths = {name: rung.width for name, rung in structures[place].items()}
    return {
        "schema": 2,
        "network": subject.name,
        "asked_percent": reduction,
        "budget_met_at": MET_AT,
        "reference_dropped": list(dropped),
        "reference_percent": asdict(matched.reference),
        "widths": widths,
        "full_widths": {name: _width(subject, name) for name in widths},
        "reduction_percent": asdict(matched.saving),
        "structures": len(structures),
        "device": OrtBackend().device().name,
        "harm_images": HARM_IMAGES[_small(subject)],
        "ladders": [asdict(each) for each in ladders],
    }


def _measuring(
    subject: Subject, dropped: tuple[str, ...], structures: Sequence[Structure]
) -> Callable[[range], dict[int, Matched]]:
    """How structures are measured beside the network without these blocks."""
    blocks = drop_blocks(subject.teacher, subject.named(dropped))

    def measure(places: range) -> dict[int, Matched]:
        widths = {place: {name: rung.width for name, rung in structures[place].items()} for place in places}
        narrow = {str(place): _narrowed(subject, of) for place, of in widths.items()}
        found = reductions_of(subject, {"blocks": blocks, **narrow}, _OF_STRUCTURES)
        return {place: Matched(found[str(place)], found["blocks"]) for place in places}

    return measure
