"""A rehearsal: export, compile and run the original before anything is measured, so that failures show up early."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from practise_backends.choices import Precision
from practise_backends.errors import EnvironmentProblem
from practise_backends.interfaces import Progress
from practise_deploy.deployment.verify import Runner, look_at, problems_of, tolerances
from practise_deploy.errors import VerificationFailed
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.outcome import Rehearsal
from practise_deploy.terms import Task

IMAGES = 8
_COPIES = 8
"""How many copies of the weights a run folder holds: two ONNX files, an engine, two state dicts, temporary files."""


def check_space(folder: Path, parameters: int) -> None:
    """Check the free disk space for a build's files.

    Raises: EnvironmentProblem.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    needed, free = 4 * _COPIES * parameters, shutil.disk_usage(there).free
    if free < needed:
        raise EnvironmentProblem(
            f"{folder} has {free / 1e6:,.0f} MB left, and a build of this network needs about {needed / 1e6:,.0f} MB",
            remedy="free some space, or choose another --out",
        )


def rehearse(
    runners: Mapping[str, Runner], images: FitImages, precision: Precision, progress: Progress, task: Task
) -> Rehearsal:
    """Compare the original's runners, the teacher first, each with the previous one, on a few images.

    Raises: VerificationFailed where a runner's outputs differ from those of the previous one.
    """
    links = look_at(runners, [*pairwise(runners)], images.subsample(IMAGES, seed=0), progress, task).links
    for link, allowed in zip(links, tolerances(precision), strict=False):  # there may be no engine here
        classless = replace(link, agreement_percent=None)  # too few images to judge it
        if problems := problems_of(classless, allowed):
            raise VerificationFailed(
                f"the original itself is not what it was once it is written in {precision}: {'; '.join(problems)}, on {link.images} images",
                remedy=_remedy(precision),
            )
    return Rehearsal(links=links)


def _remedy(precision: Precision) -> str:
    if precision != Precision.FP32:
        return "give --precision fp32"
    return "compare original.onnx in the run folder with the network yourself; a newer torch may export it rightly"
