"""How well the network recovers from losing each block, R(B) in the paper (section 3.2), without SGD.

One pass of the teacher sums the normal equations of all blocks. Then, on images that were not used for it, the
part behind each cut is replayed with every solver, from the teacher's own values; the error is taken
where the network ends, because the error at the cut does not tell it. Where nothing can be solved at the cut, the
first point behind it is, from what the network without the block has there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from practise_backends.interfaces import Progress
from practise_deploy.compute import autocast
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import batches, compute, input_of, node_by_name, nodes_to_compute
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.outputs import outputs_of
from practise_deploy.refit.candidate import Candidate, candidate_for
from practise_deploy.refit.criterion import Ends, end_of, errors_of, interactions_of, joined, mean_interval, not_finite
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.rows import ENOUGH_TO_COMPARE, Sampler
from practise_deploy.refit.solvers import NO_REFIT
from practise_deploy.terms import Block, Recoverabilities, Recoverability


def measure_recoverability(
    calibration: CalibrationProblem, blocks: Sequence[Block], progress: Progress
) -> Recoverabilities:
    """R of every block: the least held-out error over all solvers of its point; and how the losses act together.

    Few images are cross-validated: judged by solutions that did not see them.
    """
    return recoverability_of([candidate_for(calibration, block) for block in blocks], calibration, progress)


def recoverability_of(
    candidates: Sequence[Candidate], calibration: CalibrationProblem, progress: Progress
) -> Recoverabilities:
    """R of candidates that nothing was solved for yet."""
    if not candidates:
        return Recoverabilities(of=())
    folds = calibration.folds
    work, products = _Work(progress, calibration, folds, len(candidates)), []
    needed = frozenset[str]().union(*(candidate.needs for candidate in candidates))
    with torch.no_grad():
        for fit, validation in folds:
            _fit(calibration, candidates, fit, work)
            for env, teacher_ends in _teacher_on(calibration, validation, needed):
                products.append(_judge(candidates, env, teacher_ends, work))
    best = [(candidate.block.name, candidate.best) for candidate in candidates]
    variance = joined(candidates[0].errors[NO_REFIT]).variance.double().mean().clamp_min(1e-12)
    fitted, judged = len(folds[0][0]), sum(len(validation) for _, validation in folds)
    return Recoverabilities(
        of=tuple(_conclude(candidate, fitted, judged) for candidate in candidates),
        interactions={"features": (torch.cat([each.of(best) for each in products]) / variance).cpu().numpy()},
    )


@dataclass(frozen=True, slots=True)
class _Products:
    """Interactions on a batch of images. names: (block, solver). Shapes: values [n, names, names]."""

    names: list[tuple[str, str]]
    values: Tensor

    def of(self, names: Sequence[tuple[str, str]]) -> Tensor:
        """Those of some alone. Shapes: [n, blocks, blocks]."""
        places = [self.names.index(name) for name in names]
        return self.values[:, places][:, :, places]


class _Work:
    """Counts batches of images, so that the progress is known."""

    def __init__(
        self,
        progress: Progress,
        calibration: CalibrationProblem,
        folds: Sequence[tuple[FitImages, FitImages]],
        blocks: int,
    ) -> None:
        size = calibration.batch_size
        fits = sum(math.ceil(len(fit) / size) for fit, _ in folds)
        judged = sum(math.ceil(len(validation) / size) for _, validation in folds)
        self.progress, self.total, self.count = progress, fits + judged * blocks, 0

    def done(self, note: str) -> None:
        """One more batch."""
        self.count += 1
        self.progress.advance(self.count, self.total, note)


def _fit(calibration: CalibrationProblem, candidates: Sequence[Candidate], fit: FitImages, work: _Work) -> None:
    """Solve every candidate's point with every solver."""
    sampler = Sampler(len(fit), calibration.seed, ENOUGH_TO_COMPARE, fit.preprocessing)
    sums = [NormalEquations() for _ in candidates]
    for part in batches(len(fit), calibration.batch_size):
        _sum_equations(calibration.teacher, list(zip(candidates, sums, strict=True)), fit.batch(part), sampler)
        work.done("summing normal equations")
    for candidate, equations in zip(candidates, sums, strict=True):
        candidate.solve(equations)


def _sum_equations(
    teacher: fx.GraphModule, candidates: Sequence[tuple[Candidate, NormalEquations]], images: Tensor, sampler: Sampler
) -> None:
    solved = [(candidate, equations) for candidate, equations in candidates if candidate.point is not None]
    targets = frozenset(candidate.point.target for candidate, _ in solved if candidate.point is not None)
    names, start = targets.union(*(candidate.needs for candidate, _ in solved)), input_of(teacher).name
    env = compute(
        teacher, nodes_to_compute([node_by_name(teacher, name) for name in names], {start}), {start: images}, names
    )
    for candidate, equations in solved:
        candidate.add_rows(equations, env, sampler, images)


def _teacher_on(
    calibration: CalibrationProblem, images: FitImages, needed: frozenset[str]
) -> Iterator[tuple[Env, Ends]]:
    """The teacher's needed values, and where it ends, by batch."""
    teacher = calibration.teacher
    start, ends = input_of(teacher).name, {calibration.feature, *(output.name for output in outputs_of(teacher))}
    nodes = nodes_to_compute([node_by_name(teacher, name) for name in needed | ends], {start})
    for part in batches(len(images), calibration.batch_size):
        with autocast(calibration.device, calibration.comparison_dtype):
            env = compute(teacher, nodes, {start: images.batch(part)}, needed | ends | {start})
        yield env, end_of(teacher, env, replace(calibration.end, dtype=torch.float32))


def _judge(candidates: Sequence[Candidate], env: Env, teacher_ends: Ends, work: _Work) -> _Products:
    """The interactions of all candidates with all solvers that are left; their errors are taken down."""
    ends, names = [], []
    for candidate in candidates:
        for solver, end in candidate.ends(env).items():
            ends.append(end)
            names.append((candidate.block.name, solver))
            candidate.errors.setdefault(solver, []).append(errors_of(teacher_ends, end))
        candidate.eliminate()
        work.done(f"replaying without {candidate.block.name}")
    return _Products(names, interactions_of(teacher_ends, ends))


def _conclude(candidate: Candidate, fitted: int, judged: int) -> Recoverability:
    no_refit = joined(candidate.errors[NO_REFIT])
    if not bool(torch.isfinite(no_refit.features).all()):
        raise not_finite(candidate.block.name)
    errors = joined(candidate.errors[candidate.best])
    variance = float(errors.variance.mean())
    mse = mean_interval(errors.features.double().cpu().numpy())
    return Recoverability(
        block=candidate.block.name,
        mse=mse,
        mse_dropped=float(no_refit.features.double().mean()),
        relative=mse.estimate / variance if variance else math.nan,
        fit_images=fitted,
        judged_images=judged,
        method=candidate.described,
    )
