"""Students in the making: how far they are refitted, on which images, and what they are judged by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from torch import Tensor, fx

from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.activations import batches, compute, input_of, node_by_name, nodes_to_compute
from practise_deploy.network.execution import Env
from practise_deploy.network.surgery import drop_blocks, feature_in
from practise_deploy.refit.criterion import Ends, Errors, end_of, errors_of
from practise_deploy.refit.normal_equations import PLAIN
from practise_deploy.refit.points import sites_of
from practise_deploy.refit.prefix_cache import before, live, moved, until_cut
from practise_deploy.refit.problems import Problem, Solution
from practise_deploy.refit.replay import replay
from practise_deploy.refit.rows import ENOUGH_TO_COMPARE, ROWS, Sampler, rows_in_memory, values_for
from practise_deploy.refit.sensitivity import sensitivities
from practise_deploy.refit.solvers import Way
from practise_deploy.refit.writers import Site
from practise_deploy.terms import Block

_BATCH = 16


class Chain:
    """A student in the making: the images that it is fitted on, those that it is judged on, and how far it is.

    beside: how many chains share the memory for known values. to_compare: for sets to be compared by, in one way at all
    sites: fewer rows, none weighted.
    """

    def __init__(
        self,
        calibration: CalibrationProblem,
        dropped: Sequence[Block],
        learn: FitImages,
        judge: FitImages | None,
        beside: int = 1,
        *,
        to_compare: bool = False,
    ) -> None:
        self.calibration, self.dropped, self.weighted = calibration, dropped, not to_compare
        self.student = drop_blocks(calibration.teacher, dropped)
        self.sites = sites_of(self.student, calibration.teacher, dropped, calibration.feature)
        cuts = {block.entry for block in dropped}
        self.end = (feature_in(self.student, calibration.feature, dropped), calibration.comparison_dtype)
        self.rows = rows_in_memory(self.sites, len(learn), ENOUGH_TO_COMPARE if to_compare else ROWS, beside)
        self.sampler = Sampler(len(learn), calibration.seed, self.rows)
        self.precision = next(calibration.teacher.parameters()).dtype
        self.solved, self.solutions = 0, dict[str, Solution]()
        self.problem: Problem | None = None
        self.targets: dict[str, list[Tensor]] = {site.value.name: [] for site in self.sites}
        self.weights: dict[str, list[Tensor]] = {site.value.name: [] for site in self.sites}
        self.learn, self.judge, self.wanted = list[Env](), list[Env](), list[Ends]()
        # images whose values are kept, by all chains
        self.in_memory = beside * (len(learn) + len(judge or ()))
        first = before(self.student, self.sites, self.in_memory)
        self.reached = len(first)
        common = live(self.student, until_cut(self.student, first, cuts), self.sites)
        for x in _parts(learn, _BATCH if self.weighted else calibration.batch_size):
            known = self._known(common, x)
            self._look(known)
            self.learn += moved(self.student, first, [known], self.sites)
        for x in _parts(judge, _BATCH):
            known = self._known(common, x)
            self.wanted.append(end_of(calibration.teacher, known, calibration.feature, calibration.comparison_dtype))
            self.judge += moved(self.student, first, [known], self.sites)

    def _known(self, common: Sequence[fx.Node], x: Tensor) -> Env:
        """The images, and the values before the first cut: up to there the student is its teacher."""
        start = {input_of(self.student).name: x}
        keep = frozenset([*start, *(node.name for node in common)])
        return compute(self.student, nodes_to_compute(common, start), start, keep)

    def _look(self, known: Env) -> None:
        """The teacher's values at the sampled positions, and how much its features depend on them."""
        teacher, feature = self.calibration.teacher, self.calibration.feature
        goals = {site.value.name: node_by_name(teacher, site.target) for site in self.sites}
        nodes = {goals[site.value.name]: site.axis for site in self.sites}
        if self.weighted and nodes:
            values, slopes = sensitivities(teacher, feature, nodes, known, self.sampler.seed)
        else:
            values, slopes = (
                compute(teacher, nodes_to_compute(nodes, known), known, frozenset(n.name for n in nodes)),
                {},
            )
        for site in self.sites:
            name, goal = site.value.name, goals[site.value.name].name
            self.targets[name].append(self.sampler.vectors(site, values[goal]))
            if self.weighted:
                self.weights[name].append(self.sampler.vectors(site, slopes[goal]).squeeze(2).flatten())

    def branched(self) -> Chain:
        """The same before any refit; what was computed so far is shared."""
        other = copy.copy(self)
        other.student = drop_blocks(self.calibration.teacher, self.dropped)
        other.sites = sites_of(other.student, self.calibration.teacher, self.dropped, self.calibration.feature)
        return other

    def judged(self) -> list[Errors]:
        """The judged images' errors of the student as it is."""
        pairs = zip(self.judge, self.wanted, strict=True)
        return [errors_of(wanted, end_of(self.student, env, *self.end)) for env, wanted in pairs]

    @property
    def site(self) -> Site:
        """The next site to solve."""
        return self.sites[self.solved]

    def fit(self, ways: Collection[Way]) -> None:
        """Sum the equations that these ways to solve the next site need, on the student's own activations."""
        self._approach()
        site, name, needed = self.site, self.site.value.name, values_for(self.site)
        self.problem, self.solutions = Problem(self.student, site), {}
        order, keep = nodes_to_compute(needed, self.learn[0]), frozenset(node.name for node in needed)
        weighted = any(way.weighted for way in ways)
        weights = self.weights[name] if weighted else [None] * len(self.learn)
        for env, wanted, weight in zip(self.learn, self.targets[name], weights, strict=True):
            values = compute(self.student, order, env, keep)
            self.problem.add(values, wanted, self.sampler, weight)

    def _approach(self) -> None:
        """Compute all up to the next site's writers, as far as memory allows: it will be needed more than once."""
        sites = self.sites[self.solved :]
        done = before(self.student, sites, self.in_memory, self.reached)
        if len(done) > self.reached:
            self._move(done, sites)

    def solve(self, ways: Mapping[str, Way]) -> None:
        """Solve it in some ways more."""
        problem = self.problem
        assert problem is not None
        start = problem.start
        for name, way in ways.items():
            found = way.solve(problem.weighted if way.weighted else problem.sums, start)
            self.solutions[name] = Solution(problem, found, (found - start).to(self.precision))

    def forget_all_but(self, way: str) -> None:
        """Of the solutions of the next site only this one can still be taken: wide layers have large ones."""
        self.solutions = {name: found for name, found in self.solutions.items() if name == way}

    def looks(self) -> Iterator[Callable[[str], Errors]]:
        """By batch of the judged images: their errors with a solution."""
        site = self.site
        extra = [site.value, *(writer.source for writer in site.writers)]
        for env, wanted in zip(self.judge, self.wanted, strict=True):
            keep = frozenset([*env, *(node.name for node in extra)])
            here = compute(self.student, nodes_to_compute(extra, env), env, keep)

            def look(way: str, here: Env = here, wanted: Ends = wanted) -> Errors:
                value = self.solutions[way].value(here, self.end[1])
                return errors_of(wanted, replay(self.student, here, site.value.name, value, self.end))

            yield look

    def take(self, way: str) -> None:
        """Put a solution in for good, and go on to the next site."""
        if way != PLAIN:
            self.solutions[way].put_in()
        nodes = list(self.student.graph.nodes)
        done = nodes[: nodes.index(self.site.value) + 1]
        self.solved, self.problem, self.solutions = self.solved + 1, None, {}
        self._move(done, self.sites[self.solved :])

    def _move(self, done: Sequence[fx.Node], later: Sequence[Site]) -> None:
        self.reached = len(done)
        self.learn, self.judge = (moved(self.student, done, envs, later) for envs in (self.learn, self.judge))


def _parts(images: FitImages | None, size: int) -> Iterator[Tensor]:
    """The images by batch."""
    return (images.batch(part) for part in batches(len(images), size)) if images else iter(())
