"""Refitting a whole pruned network: every stream value behind the cuts, in order, on the student's own activations.

At every site all ways to solve its least squares problem compete, doing nothing among them, by the error where
the network ends, on images that the solution did not see: the error at the site itself does not tell it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from practise_backends.terms import Progress
from practise_deploy.model.images import FitImages
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import feature_in
from practise_deploy.model.surgery import drop_blocks, junctions, weights_of
from practise_deploy.model.values import Env, batches, compute, input_of, named, order_of
from practise_deploy.planning.criterion import Ends, Errors, end_of, errors_of, joined
from practise_deploy.planning.equations import PLAIN, NormalEquations, Option, options
from practise_deploy.planning.frontier import before, moved
from practise_deploy.planning.refit import put_in, start_of
from practise_deploy.planning.replay import changed, replay
from practise_deploy.planning.rows import Sampler, at_positions, rows_for, values_for
from practise_deploy.planning.sensitivity import sensitivities
from practise_deploy.planning.sites import sites_of
from practise_deploy.terms import Block, SiteChoice, Student

WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"
EACH = "each in its best way"
UNIFORM = ("refit, ridge 0.1", "refit, ridge 1")


def recover(lesson: Lesson, dropped: Sequence[Block], progress: Progress) -> Student:
    """Drop the blocks and refit in sequence everything behind the cuts.

    Site by site in the way of least held-out error, or the whole refit with one ridge at every site (what follows
    a cut can make good what looks worse at the cut itself): whichever ends with less error. Few images are judged
    in turns, by students that did not see them (k-fold); the student that is returned then takes their choices
    and is fitted on all images.
    """
    began = time.monotonic()
    folds = lesson.folds
    with torch.no_grad():
        start = _Chains(lesson, dropped, folds)
        first = start.judged()
        courses = []
        for number, way in enumerate((EACH, *UNIFORM)):
            chains = start.branched()
            count = len(chains.whole.sites)

            def tell(done: int, number: int = number, way: str = way, count: int = count) -> None:
                progress.advance(number + done / max(1, count), 1 + len(UNIFORM), way)

            courses.append((*chains.settled(way, first, tell), chains, way))
    choices, last, chains, way = min(courses, key=lambda each: _comparable(each[1]))
    return Student(
        dropped=tuple(block.name for block in dropped),
        method=_described(choices, way),
        mse_before=float(first.features.mean()),
        mse=float(last.features.mean()),
        steps=0,
        seconds=time.monotonic() - began,
        notes=_notes(folds, first, {name: errors for _, errors, _, name in courses}),
        choices=tuple(choices),
        criterion=last.criterion,
        weights=weights_of(chains.whole.student),
    )


def error_without(lesson: Lesson, dropped: Sequence[Block], progress: Progress) -> float:
    """The criterion of the network without these blocks, refitted with one ridge at every site, the least of all.

    Enough to compare sets of blocks by; `recover` finds at least as little error.
    """
    with torch.no_grad():
        start = _Chains(lesson, dropped, lesson.folds, judges_only=True)
        first = start.judged()
        found = [_comparable(first)]
        for number, way in enumerate(UNIFORM):
            progress.advance(number, len(UNIFORM), way)
            _, errors = start.branched().settled(way, first, lambda _: None)
            found.append(_comparable(errors))
    return min(found)


class _Chains:
    """One student for each fold, and where there are several the one that is fitted on all images."""

    def __init__(
        self,
        lesson: Lesson,
        dropped: Sequence[Block],
        folds: Sequence[tuple[FitImages, FitImages]],
        *,
        judges_only: bool = False,
    ) -> None:
        self.judges = [Chain(lesson, dropped, learn, judge) for learn, judge in folds]
        alone = len(folds) == 1 or judges_only
        self.whole = self.judges[0] if alone else Chain(lesson, dropped, lesson.images, None)

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
            if way == EACH:
                choice, errors = _settle(self.all, self.judges, number, errors)
            else:
                for chain in self.all:
                    chain.fit(number, weighted=False)
                    chain.solve(number, {way: options()[way]})
                    chain.take(number, way)
                choice = SiteChoice(site=site.value.name, method=way, errors={})
            choices.append(choice)
        return choices, errors if way == EACH else self.judged()


class Chain:
    """A student in the making: the images that it is fitted on, those that it is judged on, and how far it is."""

    def __init__(self, lesson: Lesson, dropped: Sequence[Block], learn: FitImages, judge: FitImages | None) -> None:
        teacher, self.lesson, self.dropped = lesson.teacher, lesson, dropped
        self.student = drop_blocks(teacher, dropped)
        self.sites = sites_of(self.student, teacher, dropped, lesson.feature)
        self.end = (feature_in(self.student, lesson.feature, junctions(self.student, dropped)), lesson.judging)
        self.sampler = Sampler(len(learn), lesson.seed)
        size = 8 if lesson.batch_size == 8 else 16
        goals = {site.value.name: named(teacher, site.target) for site in self.sites}
        self.targets: dict[str, list[Tensor]] = {name: [] for name in goals}
        self.weights: dict[str, list[Tensor]] = {name: [] for name in goals}
        self.learn: list[Env] = []
        self.judge: list[Env] = []
        self.wanted: list[Ends] = []
        self.precision = next(teacher.parameters()).dtype
        self.equations = self.weighted = NormalEquations()
        self.solutions: dict[str, Tensor] = {}
        start, done = input_of(self.student).name, before(self.student, self.sites)
        for part in batches(len(learn), size):
            self._look(teacher, lesson.feature, goals, learn.batch(part))
            self.learn += moved(self.student, done, [{start: learn.batch(part)}], self.sites)
        for part in batches(0 if judge is None else len(judge), size):
            assert judge is not None
            x = judge.batch(part)
            self.wanted.append(end_of(teacher, {input_of(teacher).name: x}, lesson.feature, lesson.judging))
            self.judge += moved(self.student, done, [{start: x}], self.sites)

    def _look(self, teacher: fx.GraphModule, feature: str, goals: dict[str, fx.Node], x: Tensor) -> None:
        """The teacher's values at the sampled positions, and how much its features depend on them."""
        values, slopes = sensitivities(teacher, feature, list(goals.values()), x, self.sampler.seed)
        for name, node in goals.items():
            at = self.sampler.positions(node)
            self.targets[name].append(at_positions(values[node.name], at))
            self.weights[name].append(at_positions(slopes[node.name], at).squeeze(2).flatten())

    def branched(self) -> Chain:
        """The same before any refit; what was computed so far is shared."""
        other = copy.copy(self)
        other.student = drop_blocks(self.lesson.teacher, self.dropped)
        other.sites = sites_of(other.student, self.lesson.teacher, self.dropped, self.lesson.feature)
        return other

    def judged(self) -> list[Errors]:
        """The judged images' errors of the student as it is."""
        pairs = zip(self.judge, self.wanted, strict=True)
        return [errors_of(wanted, end_of(self.student, env, *self.end)) for env, wanted in pairs]

    def fit(self, number: int, *, weighted: bool = True) -> None:
        """Sum the equations of a site, plainly and weighted, on the student's own activations."""
        site = self.sites[number]
        self.equations, self.weighted = NormalEquations(), NormalEquations()
        order = order_of(values_for(site), self.learn[0])
        keep = frozenset(node.name for node in values_for(site))
        name = site.value.name
        for env, wanted, weights in zip(self.learn, self.targets[name], self.weights[name], strict=True):
            values = compute(self.student, order, env, keep)
            patches, targets = rows_for(self.student, site, values, wanted, self.sampler)
            self.equations.add(patches, targets)
            if weighted:
                self.weighted.add(patches, targets, weights)

    def solve(self, number: int, ways: dict[str, Option]) -> None:
        """Solve a site in some ways more; `WEIGHTED` ones take the weighted sums."""
        start = start_of(self.student, self.sites[number])
        for name, way in ways.items():
            sums = self.weighted if name.endswith(WEIGHTED) else self.equations
            self.solutions[name] = way(sums, start)

    def errors(self, number: int, ways: Sequence[str]) -> dict[str, list[Errors]]:
        """The judged images' errors for each of these solutions."""
        site = self.sites[number]
        found: dict[str, list[Errors]] = {name: [] for name in ways}
        start = start_of(self.student, site)
        extra = [site.value, *(writer.source for writer in site.writers)]
        for env, wanted in zip(self.judge, self.wanted, strict=True):
            keep = frozenset([*env, *(node.name for node in extra)])
            here = compute(self.student, order_of(extra, env), env, keep)
            for name in ways:
                change = (self.solutions[name] - start).to(self.precision)
                value = changed(self.student, site, change, here, self.end[1])
                found[name].append(errors_of(wanted, replay(self.student, here, site.value.name, value, self.end)))
        return found

    def take(self, number: int, way: str) -> None:
        """Put a solution in for good, and go on to the next site."""
        site = self.sites[number]
        if way != PLAIN:
            put_in(self.student, site, self.solutions[way], self.equations)
        nodes = list(self.student.graph.nodes)
        done, later = nodes[: nodes.index(site.value) + 1], self.sites[number + 1 :]
        self.learn = moved(self.student, done, self.learn, later)
        self.judge = moved(self.student, done, self.judge, later)
        self.solutions = {}


def _settle(
    chains: Sequence[Chain], judges: Sequence[Chain], number: int, before_it: Errors
) -> tuple[SiteChoice, Errors]:
    """Solve one site in every way, keep the one of least error, and go on."""
    ways = options()
    for chain in chains:
        chain.fit(number)
        chain.solve(number, ways)
    tried = {PLAIN: before_it, **_tried(judges, number, [name for name in ways if name != PLAIN])}
    best = _least(tried)
    if best.startswith("refit"):
        way = ways[best]
        more: dict[str, Option] = {
            f"{best}, {REPAIRED}": lambda sums, start: sums.with_variance(way(sums, start)),
            f"{best}, {WEIGHTED}": way,
        }
        for chain in chains:
            chain.solve(number, more)
        tried |= _tried(judges, number, list(more))
        best = _least(tried)
    for chain in chains:
        chain.take(number, best)
    site = judges[0].sites[number]
    errors = {name: found.criterion for name, found in tried.items()}
    return SiteChoice(site=site.value.name, method=best, errors=errors), tried[best]


def _tried(judges: Sequence[Chain], number: int, ways: Sequence[str]) -> dict[str, Errors]:
    parts = [chain.errors(number, ways) for chain in judges]
    return {name: joined([error for part in parts for error in part[name]]) for name in ways}


def _least(tried: dict[str, Errors]) -> str:
    """The way of least error."""
    return min(tried, key=lambda name: _comparable(tried[name]))


def _comparable(errors: Errors) -> float:
    """The criterion; what gives no numbers is never least."""
    return errors.criterion if math.isfinite(errors.criterion) else math.inf


def _described(choices: Sequence[SiteChoice], way: str) -> str:
    solved = [choice.method for choice in choices if choice.method != PLAIN]
    if not solved:
        return "plain drop (every refit was worse on images kept aside)"
    return f"sequential refit of {len(solved)} of {len(choices)} sums, {way if way == EACH else way.removeprefix('refit, ')}"


def _notes(folds: Sequence[tuple[FitImages, FitImages]], first: Errors, tried: dict[str, Errors]) -> tuple[str, ...]:
    how = "judged in five turns" if len(folds) > 1 else "kept aside"
    judged = sum(len(judge) for _, judge in folds)
    told = ", ".join(f"{name} {errors.criterion:.4g}" for name, errors in {"plain drop": first, **tried}.items())
    return (f"error over the features' variance plus KL divergence in nats, on {judged} images {how}: {told}",)
