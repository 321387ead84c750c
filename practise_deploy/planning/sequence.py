"""Refitting a whole pruned network: every stream value behind the cuts, in order, on the student's own activations.

At every site all ways to solve its least squares problem compete, doing nothing among them, by the error where
the network ends, on images that the solution did not see: the error at the site itself does not tell it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from itertools import chain as chain_together

import torch

from practise_backends.terms import Progress
from practise_deploy.model.images import FitImages
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.surgery import weights_of
from practise_deploy.planning.chain import Chain
from practise_deploy.planning.criterion import Errors, joined
from practise_deploy.planning.equations import PLAIN
from practise_deploy.planning.race import beside, comparable, raced, winner_of
from practise_deploy.planning.rows import ROWS
from practise_deploy.planning.sites import cuts_without_site
from practise_deploy.planning.streams import absorb
from practise_deploy.planning.ways import Way, ways_of
from practise_deploy.terms import Block, SiteChoice, Student

EACH = "each in its best way"
UNIFORM = "refit, ridge 0.3"
COURSES = (EACH, UNIFORM)


def recover(lesson: Lesson, dropped: Sequence[Block], progress: Progress) -> Student:
    """Drop the blocks and refit in sequence everything behind the cuts.

    Site by site in the way of least held-out error, or with one ridge at every site (what follows a cut can make
    good what looks worse at the cut itself): whichever ends with less error. Few images are judged in turns, by
    students that did not see them (k-fold); the student that is returned then takes their choices and is fitted on
    all images.
    """
    began = time.monotonic()
    folds = lesson.folds
    with torch.no_grad():
        start = _Chains(lesson, dropped, folds)
        first = start.judged()
        courses = []
        for number, way in enumerate(COURSES):
            chains = start.branched()
            count = len(chains.whole.sites)

            def tell(done: int, number: int = number, way: str = way, count: int = count) -> None:
                progress.advance(number + done / max(1, count), len(COURSES), way)

            courses.append((*chains.settled(way, first, tell), chains.whole.student, way))
        choices, last, student, way = min(courses, key=lambda each: comparable(each[1]))
        absorb(student)
    return Student(
        dropped=tuple(block.name for block in dropped),
        method=_described(choices, way),
        mse_before=float(first.features.mean()),
        mse=float(last.features.mean()),
        steps=0,
        seconds=time.monotonic() - began,
        judged_on=_judged_on(folds),
        notes=(
            _notes(first, {name: errors for _, errors, _, name in courses}),
            *_thinned(start.whole.rows),
            *_unfitted(cuts_without_site(start.whole.student, lesson.teacher, dropped)),
        ),
        choices=tuple(choices),
        relative=last.relative,
        divergence=float(last.divergence.mean()),
        weights=weights_of(student),
    )


def error_without(lesson: Lesson, dropped: Sequence[Block], progress: Progress) -> float:
    """The relative error of the network without these blocks, refitted with one ridge at every site, or as it is where that is less.

    Enough to compare sets of blocks by; `recover`, with more rows and more ways, rarely finds more error.
    """
    with torch.no_grad():
        chains = _Chains(lesson, dropped, lesson.folds, to_compare=True)
        first, count = chains.judged(), max(1, len(chains.whole.sites))
        _, errors = chains.settled(UNIFORM, first, lambda done: progress.advance(done / count, 1, UNIFORM))
    return min(comparable(first), comparable(errors))


class _Chains:
    """One student for each fold, and where there are several the one that is fitted on all images.

    to_compare: for one way at all sites, and only to be judged.
    """

    def __init__(
        self,
        lesson: Lesson,
        dropped: Sequence[Block],
        folds: Sequence[tuple[FitImages, FitImages]],
        *,
        to_compare: bool = False,
    ) -> None:
        alone = len(folds) == 1 or to_compare
        count = len(folds) + (0 if alone else 1)
        self.judges = [Chain(lesson, dropped, learn, judge, count, to_compare=to_compare) for learn, judge in folds]
        self.whole = self.judges[0] if alone else Chain(lesson, dropped, lesson.images, None, count)

    @property
    def all(self) -> list[Chain]:
        return list(dict.fromkeys([*self.judges, self.whole]))

    def branched(self) -> _Chains:
        """The same students before any refit."""
        other = copy.copy(self)
        made = {chain: chain.branched() for chain in self.all}
        other.judges, other.whole = [made[chain] for chain in self.judges], made[self.whole]
        return other

    def judged(self) -> Errors:
        """The errors of the students as they are."""
        return joined([error for chain in self.judges for error in chain.judged()])

    def settled(self, way: str, errors: Errors, tell: Callable[[int], None]) -> tuple[list[SiteChoice], Errors]:
        """Solve all sites in order. way: `EACH`, or the one for all of them. errors: of the students as they are."""
        choices = []
        for number, site in enumerate(self.whole.sites):
            tell(number)
            tried = self._compared(errors) if way == EACH else {}
            method = winner_of(tried) if tried else self._solved(way)
            for chain in self.all:
                chain.take(method)
            errors = tried.get(method, errors)
            choices.append(_choice(site.value.name, method, tried))
        return choices, self.judged()

    def _solved(self, way: str) -> str:
        """Solve the next site in one way."""
        only = {way: ways_of(None)[way]}
        for chain in self.all:
            chain.fit(only.values())
            chain.solve(only)
        return way

    def _compared(self, errors: Errors) -> dict[str, Errors]:
        """Solve the next site in every way; the errors of each. errors: of the students as they are."""
        ways = ways_of(self.whole.stream)
        for chain in self.all:
            chain.fit(ways.values())
        tried = {PLAIN: errors}
        tried |= self._tried(_refining("", ways), tried)
        best = winner_of(tried)
        return tried | self._tried(_refining(best, ways), {best: tried[best]})

    def _tried(self, ways: dict[str, Way], known: dict[str, Errors]) -> dict[str, Errors]:
        """The errors of these ways beside those known; those that some student could not keep are left out."""
        for chain in self.all:
            chain.solve(ways)
        offered = [name for name in ways if all(name in chain.solutions for chain in self.all)]
        looks = chain_together.from_iterable(chain.looks() for chain in self.judges)
        return raced(offered, looks if offered else (), known)


def _refining(best: str, ways: dict[str, Way]) -> dict[str, Way]:
    """The ways that are tried where this one is the best so far; at first, where there is none."""
    return {name: way for name, way in ways.items() if way.refines == best}


def _choice(site: str, method: str, tried: dict[str, Errors]) -> SiteChoice:
    return SiteChoice(
        site=site,
        method=method,
        errors={name: beside(tried[method], errors) for name, errors in tried.items()},
        images={name: len(errors.features) for name, errors in tried.items()},
    )


def _described(choices: Sequence[SiteChoice], way: str) -> str:
    solved = [choice.method for choice in choices if choice.method != PLAIN]
    if not choices:
        return "plain drop (nothing behind the cuts can be refitted: no linear writer)"
    if not solved:
        return "plain drop (every refit was worse on images kept aside)"
    return f"sequential refit of {len(solved)} of {len(choices)} sums, {way if way == EACH else way.removeprefix('refit, ')}"


def _judged_on(folds: Sequence[tuple[FitImages, FitImages]]) -> str:
    how = "judged in five turns" if len(folds) > 1 else "kept aside"
    return f"{sum(len(judge) for _, judge in folds)} images {how}"


def _unfitted(blocks: Sequence[str]) -> tuple[str, ...]:
    if not blocks:
        return ()
    return (f"right where {', '.join(blocks)} went nothing can be refitted: no linear writer before the cut",)


def _thinned(rows: int) -> tuple[str, ...]:
    if rows >= ROWS:
        return ()
    return (f"at most {rows} positions of a site were fitted instead of {ROWS}, for want of memory",)


def _notes(first: Errors, tried: dict[str, Errors]) -> str:
    told = ", ".join(f"{name} {errors.relative:.4g}" for name, errors in {"plain drop": first, **tried}.items())
    return f"the features' error over their variance: {told}"
