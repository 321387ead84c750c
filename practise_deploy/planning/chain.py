"""Students in the making: how far they are refitted, on which images, and what they are judged by."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, fx

from practise_deploy.model.images import FitImages
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import feature_in
from practise_deploy.model.surgery import drop_blocks, junctions
from practise_deploy.model.values import Env, batches, compute, input_of, named, order_of
from practise_deploy.planning.criterion import Ends, Errors, end_of, errors_of
from practise_deploy.planning.equations import PLAIN
from practise_deploy.planning.frontier import before, moved
from practise_deploy.planning.problems import Problem, Solution
from practise_deploy.planning.replay import replay
from practise_deploy.planning.rows import Sampler, at_positions, values_for
from practise_deploy.planning.sensitivity import sensitivities
from practise_deploy.planning.sites import sites_of
from practise_deploy.planning.streams import Stream, stream_of
from practise_deploy.planning.ways import Way
from practise_deploy.planning.writers import Site
from practise_deploy.terms import Block


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
        self.solved = 0
        self.problems: dict[type[Problem], Problem] = {}
        self.solutions: dict[str, Solution] = {}
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

    @property
    def site(self) -> Site:
        """The next site to solve."""
        return self.sites[self.solved]

    @property
    def stream(self) -> Stream | None:
        """The stream behind it, where it can be mapped."""
        return stream_of(self.student, self.site, self.end[0])

    def fit(self, ways: Collection[Way]) -> None:
        """Sum the equations that these ways to solve the next site need, on the student's own activations."""
        site, name, needed = self.site, self.site.value.name, values_for(self.site)
        self.problems = {of: of(self.student, site) for of in dict.fromkeys(way.of for way in ways)}
        self.solutions, weighted = {}, any(way.weighted for way in ways)
        order, keep = order_of(needed, self.learn[0]), frozenset(node.name for node in needed)
        for env, wanted, weights in zip(self.learn, self.targets[name], self.weights[name], strict=True):
            values = compute(self.student, order, env, keep)
            for problem in self.problems.values():
                problem.add(values, wanted, self.sampler, weights if weighted else None)

    def solve(self, ways: Mapping[str, Way]) -> None:
        """Solve it in some ways more; a solution that the student could not keep is left out."""
        starts = {of: self.problems[of].start for of in dict.fromkeys(way.of for way in ways.values())}
        for name, way in ways.items():
            problem, start = self.problems[way.of], starts[way.of]
            found = way.solve(problem.weighted if way.weighted else problem.sums, start)
            if problem.admits(found):
                self.solutions[name] = Solution(problem, found, (found - start).to(self.precision))

    def errors(self, ways: Collection[str]) -> dict[str, list[Errors]]:
        """The judged images' errors for each of these solutions."""
        site = self.site
        found: dict[str, list[Errors]] = {name: [] for name in ways}
        extra = [site.value, *(writer.source for writer in site.writers)]
        for env, wanted in zip(self.judge, self.wanted, strict=True):
            keep = frozenset([*env, *(node.name for node in extra)])
            here = compute(self.student, order_of(extra, env), env, keep)
            for name in ways:
                value = self.solutions[name].value(here, self.end[1])
                found[name].append(errors_of(wanted, replay(self.student, here, site.value.name, value, self.end)))
        return found

    def take(self, way: str) -> None:
        """Put a solution in for good, and go on to the next site."""
        if way != PLAIN:
            self.solutions[way].put_in()
        nodes = list(self.student.graph.nodes)
        done, later = nodes[: nodes.index(self.site.value) + 1], self.sites[self.solved + 1 :]
        self.solved, self.problems, self.solutions = self.solved + 1, {}, {}
        self.learn = moved(self.student, done, self.learn, later)
        self.judge = moved(self.student, done, self.judge, later)
