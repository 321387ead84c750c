"""Refitting a whole pruned network: every stream value behind the cuts, in order, on the student's own activations.

At every site all ways to solve its least squares problem compete, doing nothing among them, by the error where
the network ends, on images that the solution did not see: the error at the site itself does not tell it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

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
from practise_deploy.planning.frontier import before, move_to
from practise_deploy.planning.refit import put_in, start_of
from practise_deploy.planning.replay import changed, replay
from practise_deploy.planning.rows import Sampler, at_positions, rows_for, values_for
from practise_deploy.planning.sensitivity import sensitivities
from practise_deploy.planning.sites import sites_of
from practise_deploy.terms import Block, SiteChoice, Student

WEIGHTED, REPAIRED = "weighted by sensitivity", "variance repaired"


def recover(lesson: Lesson, dropped: Sequence[Block], progress: Progress) -> Student:
    """Drop the blocks and refit in sequence everything behind the cuts, each site in the way of least held-out error.

    Few images are judged in turns, by students that did not see them (k-fold); the student that is returned then
    takes their choices and is fitted on all images.
    """
    began = time.monotonic()
    folds = lesson.images.folds(lesson.seed)
    with torch.no_grad():
        chains = [Chain(lesson, dropped, learn, judge) for learn, judge in folds]
        judges, whole = list(chains), chains[0]
        if len(folds) > 1:
            whole = Chain(lesson, dropped, lesson.images, None)
            chains.append(whole)
        first = last = _judged(judges)
        choices = []
        for number, site in enumerate(whole.sites):
            progress.advance(number, len(whole.sites), f"solving for {site.value.name}")
            choice, last = _settle(chains, judges, number, last)
            choices.append(choice)
    return Student(
        dropped=tuple(block.name for block in dropped),
        method=_described(choices),
        mse_before=float(first.features.mean()),
        mse=float(last.features.mean()),
        steps=0,
        seconds=time.monotonic() - began,
        notes=_notes(folds, first, last),
        choices=tuple(choices),
        weights=weights_of(whole.student),
    )


class Chain:
    """A student in the making: the images that it is fitted on, those that it is judged on, and how far it is."""

    def __init__(self, lesson: Lesson, dropped: Sequence[Block], learn: FitImages, judge: FitImages | None) -> None:
        teacher = lesson.teacher
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
            self.learn.append(move_to(self.student, done, {start: learn.batch(part)}, self.sites))
        for part in batches(0 if judge is None else len(judge), size):
            assert judge is not None
            x = judge.batch(part)
            self.wanted.append(end_of(teacher, {input_of(teacher).name: x}, lesson.feature, lesson.judging))
            self.judge.append(move_to(self.student, done, {start: x}, self.sites))

    def _look(self, teacher: fx.GraphModule, feature: str, goals: dict[str, fx.Node], x: Tensor) -> None:
        """The teacher's values at the sampled positions, and how much its features depend on them."""
        values, slopes = sensitivities(teacher, feature, list(goals.values()), x, self.sampler.seed)
        for name, node in goals.items():
            at = self.sampler.positions(node)
            self.targets[name].append(at_positions(values[node.name], at))
            self.weights[name].append(at_positions(slopes[node.name], at).squeeze(2).flatten())

    def fit(self, number: int) -> None:
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
        self.learn = [move_to(self.student, done, env, later) for env in self.learn]
        self.judge = [move_to(self.student, done, env, later) for env in self.judge]
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
    errors = {name: float(found.criterion.mean()) for name, found in tried.items()}
    return SiteChoice(site=site.value.name, method=best, errors=errors), tried[best]


def _tried(judges: Sequence[Chain], number: int, ways: Sequence[str]) -> dict[str, Errors]:
    parts = [chain.errors(number, ways) for chain in judges]
    return {name: joined([error for part in parts for error in part[name]]) for name in ways}


def _least(tried: dict[str, Errors]) -> str:
    """The way of least error; what gives no numbers is never it."""
    found = {name: float(errors.criterion.mean()) for name, errors in tried.items()}
    return min(found, key=lambda name: found[name] if found[name] == found[name] else float("inf"))


def _judged(judges: Sequence[Chain]) -> Errors:
    """The errors of the students as they are."""
    parts = []
    for chain in judges:
        for env, wanted in zip(chain.judge, chain.wanted, strict=True):
            parts.append(errors_of(wanted, end_of(chain.student, env, *chain.end)))
    return joined(parts)


def _described(choices: Sequence[SiteChoice]) -> str:
    solved = [choice.method for choice in choices if choice.method != PLAIN]
    if not solved:
        return "plain drop (every refit was worse on images kept aside)"
    return f"sequential refit of {len(solved)} of {len(choices)} sums"


def _notes(folds: Sequence[tuple[FitImages, FitImages]], first: Errors, last: Errors) -> tuple[str, ...]:
    how = "judged in five turns" if len(folds) > 1 else "kept aside"
    judged = sum(len(judge) for _, judge in folds)
    return (
        f"on {judged} images {how}: error over the features' variance {_relative(first):.4g} before, {_relative(last):.4g} after; "
        f"KL divergence from the original's classes {float(first.divergence.mean()):.4g} nats before, {float(last.divergence.mean()):.4g} after",
    )


def _relative(errors: Errors) -> float:
    return float(errors.features.mean() / errors.variance.mean().clamp_min(1e-12))
