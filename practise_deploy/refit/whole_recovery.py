"""Blocks that one refitted point misjudges, scored by what their whole recovery leaves.

One point tells what losing a block costs where recovery there nearly suffices. Where much error stays, the points behind it win back
a good part: of MobileNetV2's blocks one point leaves a relative error of 0.2 to 1.1, all of them 0.2 to 0.8 (benchmarks/reproduce/
predicted_sets.py). Those blocks are refitted as sets are, and how losses act together is scaled with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from practise_backends.interfaces import Progress
from practise_backends.terms import Interval
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.planning.interactions import Floats
from practise_deploy.refit.recover import verified_without
from practise_deploy.terms import Block, Recoverabilities, Recoverability

MISLEADING = 0.2
"""The relative error above which one point is not taken at its word."""


def is_doubtful(one: Recoverability) -> bool:
    """Whether one point leaves so much error that it is not taken at its word."""
    return one.relative > MISLEADING


def rescored(
    calibration: CalibrationProblem, blocks: Sequence[Block], scores: Recoverabilities, progress: Progress
) -> Recoverabilities:
    """The same, with the whole recovery of every block that one point leaves much error of."""
    doubtful = {score.block for score in scores.of if is_doubtful(score)}
    errors: dict[str, Floats] = {}
    for number, block in enumerate(block for block in blocks if block.name in doubtful):
        part = _Part(progress, number, len(doubtful))
        errors[block.name] = verified_without(calibration, [block], part).errors
    return with_errors(scores, errors)


def with_errors(scores: Recoverabilities, errors: Mapping[str, Floats]) -> Recoverabilities:
    """Blocks with these relative errors instead, where they are lower; their interactions scaled alike. Shapes: errors [images]."""
    lower = {
        score.block: errors[score.block]
        for score in scores.of
        if score.block in errors and float(errors[score.block].mean()) < score.relative
    }
    shares = [float(lower[score.block].mean()) / score.relative if score.block in lower else 1.0 for score in scores.of]
    # Q_ij is an inner product of displacements: a displacement whose square is a share s of what it was is sqrt(s) as long.
    scale = np.sqrt(np.outer(shares, shares))
    return replace(
        scores,
        of=tuple(
            _rescored(score, share, lower[score.block]) if score.block in lower else score
            for score, share in zip(scores.of, shares, strict=True)
        ),
        interactions={name: values * scale for name, values in scores.interactions.items()},
    )


def _rescored(one: Recoverability, share: float, errors: Floats) -> Recoverability:
    mse = one.mse
    return replace(
        one,
        mse=Interval(
            estimate=mse.estimate * share, low=mse.low * share, high=mse.high * share, confidence=mse.confidence
        ),
        relative=float(errors.mean()),
        judged_images=len(errors),
        method="everything behind the cut, one ridge",
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """The progress of one of several parts, as that of the whole."""

    total: Progress
    number: int
    parts: int

    def advance(self, done: float, total: float, note: str = "") -> None:
        """So much of this part is done."""
        self.total.advance(self.number + done / total, self.parts, note)
