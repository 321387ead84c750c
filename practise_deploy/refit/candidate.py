"""A network without one block: where it is refitted, by which solvers, and how far from its teacher it then ends.

It is refitted at the cut or, where nothing can be solved there, at the first point behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from practise_deploy.compute import autocast
from practise_deploy.images.calibration import CalibrationProblem, End
from practise_deploy.network.graph.activations import compute, downstream, node_by_name, nodes_to_compute
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.refit.criterion import Ends, Errors, joined
from practise_deploy.refit.elimination import survivors, winner_of
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.points import first_point
from practise_deploy.refit.replay import changed, read_by_replay, replay
from practise_deploy.refit.rows import Sampler, rows_for, values_for
from practise_deploy.refit.solvers import NO_REFIT, ridge_solvers
from practise_deploy.refit.write_back import start_of
from practise_deploy.refit.writers import ReconstructionPoint
from practise_deploy.terms import Block

SOLVERS = ridge_solvers((0.03, 0.3))
"""Fewer than in the refit itself: blocks are compared here, not shipped."""


@dataclass(slots=True)
class Candidate:
    """A block, the network without it, its point, and by the solver: the change of its weights, and the errors.

    end: what it is compared by. needs: the teacher's values that
    all this is computed from, beside the point's target. _read: what its problem and replays read. _between: of those, and of what
    leads to them, what lies behind the cut, so that it is not the teacher's.
    """

    block: Block
    student: fx.GraphModule
    point: ReconstructionPoint | None
    end: End
    needs: frozenset[str] = field(init=False)
    changes: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[str, list[Errors]] = field(default_factory=dict)
    remaining: list[str] = field(init=False)
    _read: frozenset[str] = field(init=False)
    _between: Sequence[fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.remaining = [NO_REFIT] if self.point is None else [NO_REFIT, *SOLVERS]
        solved = [] if self.point is None else [node.name for node in values_for(self.point)]
        self._read = frozenset(
            [self._place, *solved, *read_by_replay(self.student, self._place), *self._unchanged_ends]
        )
        behind_cut = downstream(node_by_name(self.student, self.block.entry)) - {self.block.entry}
        shared = {node.name for node in self.student.graph.nodes} - behind_cut
        self._between = nodes_to_compute([node_by_name(self.student, name) for name in self._read], shared)
        read_between = {source.name for node in self._between for source in node.all_input_nodes}
        self.needs = (self._read | read_between) - behind_cut

    @property
    def _place(self) -> str:
        """The value that is changed, and that all solvers are replayed from."""
        return self.block.entry if self.point is None else self.point.value.name

    @property
    def _unchanged_ends(self) -> set[str]:
        """Where the network ends, as far as the value that is changed is not before it."""
        ends = {self.end.feature, *(output.name for output in outputs_of(self.student))}
        return ends - downstream(node_by_name(self.student, self._place))

    @property
    def is_refitted_at_the_cut(self) -> bool:
        """Whether the values at its point are the teacher's."""
        return self.point is not None and not self._between

    def add_rows(self, equations: NormalEquations, env: Env, sampler: Sampler, x: Tensor) -> None:
        """Add a batch to its problem. env: the teacher's values, of `needs` and of the point's target. Shapes: x the network's input."""
        if self.point is not None:
            target = sampler.vectors(self.point, env[self.point.target])
            values = self._prefix_values(env, torch.float32)
            equations.add(*rows_for(self.point, values, target, sampler), sampler.counted(self.point, x))

    def solve(self, equations: NormalEquations) -> None:
        """With every solver."""
        if self.point is None:
            return
        start, precision = start_of(self.point), next(self.student.parameters()).dtype
        for name, solver in SOLVERS.items():
            self.changes[name] = (solver.solve(equations, start) - start).to(precision)

    def ends(self, env: Env) -> dict[str, Ends]:
        """Where the network ends with every solver that is left. env: the teacher's values, of `needs`."""
        values = self._prefix_values(env, self.end.dtype)
        return {
            solver: replay(self.student, values, self._place, self._value(solver, values), self.end)
            for solver in self.remaining
        }

    def _value(self, solver: str, values: Env) -> Tensor:
        if solver == NO_REFIT or self.point is None:
            return values[self._place]
        return changed(self.point, self.changes[solver], values, self.end.dtype)

    def _prefix_values(self, env: Env, dtype: torch.dtype) -> Env:
        """What its problem and a replay from its point read, in the network without the block. dtype: to compute in."""
        shared = {name: value for name, value in env.items() if name in self.needs}
        if not self._between:
            return shared
        with autocast(shared[self.block.entry].device, dtype):
            return compute(self.student, self._between, shared, self._read)

    def eliminate(self) -> None:
        """Drop those that are significantly worse than the best; the plain drop stays, since it is reported."""
        staying = survivors({solver: joined(self.errors[solver]).by_image for solver in self.remaining})
        self.remaining = [solver for solver in self.remaining if solver in staying or solver == NO_REFIT]

    @property
    def best(self) -> str:
        """The solver of least error."""
        return winner_of({solver: joined(parts) for solver, parts in self.errors.items()})

    @property
    def described(self) -> str:
        """The solver of least error, and where it was solved."""
        if self.point is None:
            return "plain (no linear writer before the cut, nor behind it)"
        return self.best if self.best == NO_REFIT or self.is_refitted_at_the_cut else f"{self.best}, behind the cut"


def candidate_for(calibration: CalibrationProblem, block: Block) -> Candidate:
    """The network without a block, as it is before anything is solved."""
    student = drop_blocks(calibration.teacher, [block], share_weights=True)
    end = replace(calibration.end, feature=feature_in(student, calibration.feature, [block]))
    return Candidate(block, student, first_point(student, calibration.teacher, block, calibration.feature), end)
