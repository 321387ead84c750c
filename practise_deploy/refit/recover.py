"""Refitting a whole pruned network: every stream value behind the cuts, in order, on the student's own activations.

At every point all solvers of its least squares problem compete, no refit among them, by the error where
the network ends, on images that the solution did not see: the error at the point itself does not tell it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from practise_backends.interfaces import Progress
from practise_backends.terms import Arrays
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, weights_of
from practise_deploy.planning.sets import Verified
from practise_deploy.refit.criterion import Errors, joined
from practise_deploy.refit.elimination import comparable, eliminate, paired_error, winner_of
from practise_deploy.refit.partial_student import PartialStudent
from practise_deploy.refit.points import cuts_without_point
from practise_deploy.refit.rows import ROWS
from practise_deploy.refit.solvers import NO_REFIT, SOLVERS, Solver
from practise_deploy.refit.writers import ReconstructionPoint
from practise_deploy.tasks.judging import loss_of
from practise_deploy.terms import Block, RefitChoice, Student

BEST_EACH = "each with its best solver"
ONE_RIDGE = "refit, ridge 0.3"
STRATEGIES = (BEST_EACH, ONE_RIDGE)
NEARLY_ALL = 0.85
"""A student that was fitted on so large a share of the images is not fitted again on all of them, which takes as long."""


def recover(calibration: CalibrationProblem, dropped: Sequence[Block], progress: Progress) -> Student:
    """Drop the blocks and refit in sequence everything behind the cuts.

    Point by point with the solver of least held-out error, or with one ridge at every point (what follows a cut can make
    good what looks worse at the cut itself): whichever ends with less error. The errors are of images that the judged
    students did not see: a validation split, or where there are few, by k-fold cross-validation. The student that is
    given takes their choices and is fitted on all images; it is the judged one where that was fitted on nearly all of them (`NEARLY_ALL`).
    """
    began = time.monotonic()
    folds = calibration.folds
    with torch.no_grad():
        start = _Judged(calibration, dropped, folds)
        first = start.errors()
        outcomes = _outcomes(start, first, progress)
        by_strategy = {outcome.strategy: outcome.errors for outcome in outcomes}
        best = min(outcomes, key=lambda outcome: comparable(outcome.errors))
        choices, last, strategy = best.choices, best.errors, best.strategy
        partial = best.judged if len(folds[0][0]) >= NEARLY_ALL * len(calibration.images) else None
        del start, outcomes, best  # and with them all that they keep of their images
        if partial is None:
            progress.advance(len(by_strategy), len(by_strategy) + 1, "fitting all images")
            partial = _fitted(calibration, dropped, choices)
    return Student(
        dropped=tuple(block.name for block in dropped),
        method=_described(choices, strategy),
        mse_before=float(first.features.mean()),
        mse=float(last.features.mean()),
        steps=0,
        seconds=time.monotonic() - began,
        judged_on=_judged_on(folds),
        notes=(
            _notes(first, by_strategy),
            *_thinned(partial.rows),
            *_unfitted(cuts_without_point(partial.student, calibration.teacher, dropped)),
        ),
        choices=tuple(choices),
        relative=last.relative,
        weights=weights_of(partial.student),
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a strategy ended. judged: its student, where a single one was judged."""

    strategy: str
    choices: list[RefitChoice]
    errors: Errors
    judged: PartialStudent | None


def _outcomes(start: _Judged, first: Errors, progress: Progress) -> list[_Outcome]:
    """Every strategy, from the students before any refit. first: their errors."""
    count, outcomes = len(start.points), list[_Outcome]()
    strategies = STRATEGIES if count else STRATEGIES[:1]  # all alike where there is nothing to solve
    for number, strategy in enumerate(strategies):

        def tell(done: int, number: int = number, strategy: str = strategy) -> None:
            progress.advance(number + done / max(1, count), len(strategies) + 1, strategy)

        students = start if strategy == strategies[-1] else start.branched()
        choices, errors = students.settled(strategy, first, tell)
        judged = students.partials[0] if len(students.partials) == 1 else None
        outcomes.append(_Outcome(strategy, choices, errors, judged))
    return outcomes


def verified_without(calibration: CalibrationProblem, dropped: Sequence[Block], progress: Progress) -> Verified:
    """What the network without these blocks is wrong by, and what it lost, on images that its fit did not see.

    Refitted with one ridge at every point, or as it is where that is less: enough to compare sets of blocks by; `recover`,
    with more rows and more solvers, rarely finds more error. All sets of a calibration are judged on the same images.
    """
    errors = min(judged_without(calibration, dropped, progress), key=comparable)
    by_image = np.asarray(errors.by_image.double().cpu())
    teacher, student = (each.cpu().numpy() for each in (errors.teacher_answers, errors.student_answers))
    if not teacher.shape[1]:
        return Verified(by_image, None)
    labels = calibration.comparison_labels
    return Verified(by_image, loss_of(calibration.task, teacher, student, None if labels is None else labels.numpy()))


def judged_without(
    calibration: CalibrationProblem, dropped: Sequence[Block], progress: Progress
) -> tuple[Errors, Errors]:
    """The same, as it is and with everything behind the cuts refitted."""
    with torch.no_grad():
        return _with_one_ridge(_Judged(calibration, dropped, calibration.comparison_folds, to_compare=True), progress)


def refitted_without(calibration: CalibrationProblem, dropped: Sequence[Block], progress: Progress) -> Arrays:
    """The weights of the network without these blocks, in a fraction of the time that `recover` takes: to compare many sets by.

    Refitted like `verified_without`'s, on all images but those that judge whether the refit is any better.
    """
    with torch.no_grad():
        judged = _Judged(calibration, dropped, [calibration.images.split(calibration.seed)], to_compare=True)
        first, errors = _with_one_ridge(judged, progress)
        better = comparable(errors) < comparable(first)
        return weights_of(judged.partials[0].student if better else drop_blocks(calibration.teacher, dropped))


def _with_one_ridge(judged: _Judged, progress: Progress) -> tuple[Errors, Errors]:
    """The errors of these students before and after their refit."""
    first, count = judged.errors(), max(1, len(judged.points))
    _, errors = judged.settled(ONE_RIDGE, first, lambda done: progress.advance(done / count, 1, ONE_RIDGE))
    return first, errors


def _fitted(
    calibration: CalibrationProblem, dropped: Sequence[Block], choices: Sequence[RefitChoice]
) -> PartialStudent:
    """The student that takes these choices and is fitted on all images."""
    partial = PartialStudent(calibration, dropped, calibration.images, None)
    for choice in choices:
        solver = SOLVERS.get(choice.method)
        if solver is not None:
            partial.fit([solver])
            partial.solve({choice.method: solver})
        partial.take(choice.method)
    return partial


class _Judged:
    """One student for each fold, all by the same solvers, and what they are judged by."""

    def __init__(
        self,
        calibration: CalibrationProblem,
        dropped: Sequence[Block],
        folds: Sequence[tuple[FitImages, FitImages]],
        *,
        to_compare: bool = False,
    ) -> None:
        count = len(folds)
        self.partials = [
            PartialStudent(calibration, dropped, fit, validation, count, to_compare=to_compare)
            for fit, validation in folds
        ]

    @property
    def points(self) -> Sequence[ReconstructionPoint]:
        """What is solved, in order; the same for all."""
        return self.partials[0].points

    def branched(self) -> _Judged:
        """The same students before any refit."""
        other = copy.copy(self)
        other.partials = [partial.branched() for partial in self.partials]
        return other

    def errors(self) -> Errors:
        """The errors of the students as they are."""
        return joined([error for partial in self.partials for error in partial.errors()])

    def settled(self, strategy: str, errors: Errors, tell: Callable[[int], None]) -> tuple[list[RefitChoice], Errors]:
        """Solve all points in order. strategy: `BEST_EACH`, or the solver for all of them. errors: of the students as they are."""
        choices = []
        for number, point in enumerate(self.points):
            tell(number)
            tried = self._compared(errors) if strategy == BEST_EACH else {}
            method = winner_of(tried) if tried else self._solved(strategy)
            for partial in self.partials:
                partial.take(method)
            errors = tried.get(method, errors)
            choices.append(_choice(point.value.name, method, tried))
        return choices, self.errors()

    def _solved(self, name: str) -> str:
        """Solve the next point with one solver."""
        only = {name: SOLVERS[name]}
        for partial in self.partials:
            partial.fit(only.values())
            partial.solve(only)
        return name

    def _compared(self, errors: Errors) -> dict[str, Errors]:
        """Solve the next point with every solver; the errors of each. errors: of the students as they are."""
        for partial in self.partials:
            partial.fit(SOLVERS.values())
        tried = {NO_REFIT: errors}
        tried |= self._tried(_refining(""), tried)
        best = winner_of(tried)
        for partial in self.partials:
            partial.forget_all_but(best)
        return tried | self._tried(_refining(best), {best: tried[best]})

    def _tried(self, solvers: dict[str, Solver], errors: dict[str, Errors]) -> dict[str, Errors]:
        """The errors of these solvers."""
        for partial in self.partials:
            partial.solve(solvers)
        return eliminate(
            solvers, chain.from_iterable(partial.evaluations() for partial in self.partials) if solvers else (), errors
        )


def _refining(best: str) -> dict[str, Solver]:
    """The solvers that are tried where this one is the best so far; at first, where there is none."""
    return {name: solver for name, solver in SOLVERS.items() if solver.refines == best}


def _choice(point: str, method: str, tried: dict[str, Errors]) -> RefitChoice:
    return RefitChoice(
        point=point,
        method=method,
        errors={name: paired_error(tried[method], errors) for name, errors in tried.items()},
        images={name: len(errors.features) for name, errors in tried.items()},
    )


def _described(choices: Sequence[RefitChoice], strategy: str) -> str:
    solved = [choice.method for choice in choices if choice.method != NO_REFIT]
    if not choices:
        return "plain drop (nothing behind the cuts can be refitted: no linear writer)"
    if not solved:
        return "plain drop (every refit was worse on the validation images)"
    return f"sequential refit of {len(solved)} of {len(choices)} points, {strategy if strategy == BEST_EACH else strategy.removeprefix('refit, ')}"


def _judged_on(folds: Sequence[tuple[FitImages, FitImages]]) -> str:
    images = sum(len(validation) for _, validation in folds)
    return f"{images} images, {len(folds)}-fold cross-validation" if len(folds) > 1 else f"{images} validation images"


def _unfitted(blocks: Sequence[str]) -> tuple[str, ...]:
    if not blocks:
        return ()
    return (f"right where {', '.join(blocks)} went nothing can be refitted: no linear writer before the cut",)


def _thinned(rows: int) -> tuple[str, ...]:
    if rows >= ROWS:
        return ()
    return (f"at most {rows} positions of a point were fitted instead of {ROWS}, for lack of memory",)


def _notes(first: Errors, tried: dict[str, Errors]) -> str:
    listed = ", ".join(f"{name} {errors.relative:.4g}" for name, errors in {"plain drop": first, **tried}.items())
    return f"the features' error over their variance: {listed}"
