"""Students in the making: how far they are refitted, on which images, and what they are judged by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, fx

from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import batches, compute, input_of, node_by_name, nodes_to_compute
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.refit.criterion import Ends, Errors, end_of, errors_of
from practise_deploy.refit.points import points_of
from practise_deploy.refit.prefix_cache import before, live, moved, until_cut
from practise_deploy.refit.problems import Problem, Solution
from practise_deploy.refit.replay import replay
from practise_deploy.refit.rows import ENOUGH_TO_COMPARE, ROWS, Sampler, rows_in_memory, values_for
from practise_deploy.refit.sensitivity import sensitivities
from practise_deploy.refit.solvers import NO_REFIT, Solver
from practise_deploy.refit.writers import ReconstructionPoint
from practise_deploy.terms import Block

_BATCH = 16


class PartialStudent:
    """A student in the making: the images that it is fitted on, those that it is judged on, and how far it is.

    students: how many of them share the memory for prefix values. to_compare: for sets to be compared by, with one solver at every
    points: fewer rows, none weighted.
    """

    def __init__(
        self,
        calibration: CalibrationProblem,
        dropped: Sequence[Block],
        fit_images: FitImages,
        validation: FitImages | None,
        students: int = 1,
        *,
        to_compare: bool = False,
    ) -> None:
        self.calibration, self.dropped, self.weighted = calibration, dropped, not to_compare
        self.student = drop_blocks(calibration.teacher, dropped)
        self.points = points_of(self.student, calibration.teacher, dropped, calibration.feature)
        cuts = {block.entry for block in dropped}
        self.end = replace(calibration.end, feature=feature_in(self.student, calibration.feature, dropped))
        self.rows = rows_in_memory(self.points, len(fit_images), ENOUGH_TO_COMPARE if to_compare else ROWS, students)
        self.sampler = Sampler(len(fit_images), calibration.seed, self.rows, fit_images.preprocessing)
        self.precision = next(calibration.teacher.parameters()).dtype
        self.solved, self.solutions = 0, dict[str, Solution]()
        self.problem: Problem | None = None
        self.targets: dict[str, list[Tensor]] = {point.value.name: [] for point in self.points}
        self.weights: dict[str, list[Tensor]] = {point.value.name: [] for point in self.points}
        self.counted: dict[str, list[Tensor | None]] = {point.value.name: [] for point in self.points}
        self.fit_values, self.validation_values, self.teacher_ends = list[Env](), list[Env](), list[Ends]()
        # images whose values are kept, by all chains
        self.in_memory = students * (len(fit_images) + len(validation or ()))
        first = before(self.student, self.points, self.in_memory)
        self.reached = len(first)
        common = live(self.student, until_cut(self.student, first, cuts), self.points)
        for x in _parts(fit_images, _BATCH if self.weighted else calibration.batch_size):
            prefix = self._prefix_values(common, x)
            self._look(prefix, x)
            self.fit_values += moved(self.student, first, [prefix], self.points)
        for x in _parts(validation, _BATCH):
            prefix = self._prefix_values(common, x)
            self.teacher_ends.append(end_of(calibration.teacher, prefix, calibration.end))
            self.validation_values += moved(self.student, first, [prefix], self.points)

    def _prefix_values(self, common: Sequence[fx.Node], x: Tensor) -> Env:
        """The images, and the values before the first cut: up to there the student is its teacher. Shapes: x [n, c, h, w]."""
        start = {input_of(self.student).name: x}
        keep = frozenset([*start, *(node.name for node in common)])
        return compute(self.student, nodes_to_compute(common, start), start, keep)

    def _look(self, prefix: Env, x: Tensor) -> None:
        """The teacher's values at the sampled positions, and how much its features depend on them."""
        teacher, feature = self.calibration.teacher, self.calibration.feature
        goals = {point.value.name: node_by_name(teacher, point.target) for point in self.points}
        nodes = {goals[point.value.name]: point.axis for point in self.points}
        if self.weighted and nodes:
            values, slopes = sensitivities(teacher, feature, nodes, prefix, self.sampler.seed)
        else:
            values, slopes = (
                compute(teacher, nodes_to_compute(nodes, prefix), prefix, frozenset(n.name for n in nodes)),
                {},
            )
        for point in self.points:
            name, goal = point.value.name, goals[point.value.name].name
            self.targets[name].append(self.sampler.vectors(point, values[goal]))
            self.counted[name].append(self.sampler.counted(point, x))
            if self.weighted:
                self.weights[name].append(self.sampler.vectors(point, slopes[goal]).squeeze(2).flatten())

    def branched(self) -> PartialStudent:
        """The same before any refit; what was computed so far is shared."""
        other = copy.copy(self)
        other.student = drop_blocks(self.calibration.teacher, self.dropped)
        other.points = points_of(other.student, self.calibration.teacher, self.dropped, self.calibration.feature)
        return other

    def errors(self) -> list[Errors]:
        """The judged images' errors of the student as it is."""
        pairs = zip(self.validation_values, self.teacher_ends, strict=True)
        return [errors_of(teacher_ends, end_of(self.student, env, self.end)) for env, teacher_ends in pairs]

    @property
    def point(self) -> ReconstructionPoint:
        """The next point to solve."""
        return self.points[self.solved]

    def fit(self, solvers: Collection[Solver]) -> None:
        """Sum the equations that these solvers of the next point need, on the student's own activations."""
        self._approach()
        point, name, needed = self.point, self.point.value.name, values_for(self.point)
        self.problem, self.solutions = Problem(point), {}
        order, keep = nodes_to_compute(needed, self.fit_values[0]), frozenset(node.name for node in needed)
        weighted = any(solver.weighted for solver in solvers)
        weights = self.weights[name] if weighted else [None] * len(self.fit_values)
        batch = zip(self.fit_values, self.targets[name], weights, self.counted[name], strict=True)
        for env, teacher_vectors, weight, counted in batch:
            values = compute(self.student, order, env, keep)
            self.problem.add(values, teacher_vectors, self.sampler, weight, counted)

    def _approach(self) -> None:
        """Compute all up to the next point's writers, as far as memory allows: it will be needed more than once."""
        points = self.points[self.solved :]
        done = before(self.student, points, self.in_memory, self.reached)
        if len(done) > self.reached:
            self._move(done, points)

    def solve(self, solvers: Mapping[str, Solver]) -> None:
        """Solve it with further solvers."""
        problem = self.problem
        assert problem is not None
        start = problem.start
        for name, solver in solvers.items():
            weights = solver.solve(problem.weighted if solver.weighted else problem.sums, start)
            self.solutions[name] = Solution(problem, weights, (weights - start).to(self.precision))

    def forget_all_but(self, solver: str) -> None:
        """Of the solutions of the next point only this one can still be taken: wide layers have large ones."""
        self.solutions = {name: solution for name, solution in self.solutions.items() if name == solver}

    def evaluations(self) -> Iterator[Callable[[str], Errors]]:
        """By batch of the judged images: their errors with a solution."""
        point = self.point
        extra = [point.value, *(writer.source for writer in point.writers)]
        for env, teacher_ends in zip(self.validation_values, self.teacher_ends, strict=True):
            keep = frozenset([*env, *(node.name for node in extra)])
            values = compute(self.student, nodes_to_compute(extra, env), env, keep)

            def evaluate(solver: str, values: Env = values, teacher_ends: Ends = teacher_ends) -> Errors:
                value = self.solutions[solver].value(values, self.end.dtype)
                return errors_of(teacher_ends, replay(self.student, values, point.value.name, value, self.end))

            yield evaluate

    def take(self, solver: str) -> None:
        """Put a solution in for good, and go on to the next point."""
        if solver != NO_REFIT:
            self.solutions[solver].put_in()
        nodes = list(self.student.graph.nodes)
        done = nodes[: nodes.index(self.point.value) + 1]
        self.solved, self.problem, self.solutions = self.solved + 1, None, {}
        self._move(done, self.points[self.solved :])

    def _move(self, done: Sequence[fx.Node], later: Sequence[ReconstructionPoint]) -> None:
        self.reached = len(done)
        self.fit_values, self.validation_values = (
            moved(self.student, done, envs, later) for envs in (self.fit_values, self.validation_values)
        )


def _parts(images: FitImages | None, size: int) -> Iterator[Tensor]:
    """The images by batch. Shapes: [n, c, h, w] each."""
    return (images.batch(part) for part in batches(len(images), size)) if images else iter(())
