"""The original goes the whole way to the device before anything is measured, so that what would fail at the end fails now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from practise_backends.terms import Progress
from practise_deploy.deployment.verify import Form, compare, outputs_of, problems_of, tolerances
from practise_deploy.errors import EnvironmentProblem, VerificationFailed
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.outcome import Rehearsal

IMAGES = 8
_COPIES = 8
"""Of a network's weights that a run folder holds: two ONNX files, an engine, two states, half-written ones."""


def check_space(folder: Path, parameters: int) -> None:
    """Whether a build's files have room.

    Raises: EnvironmentProblem.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    needed, free = 4 * _COPIES * parameters, shutil.disk_usage(there).free
    if free < needed:
        raise EnvironmentProblem(
            f"{folder} has {free / 1e6:,.0f} MB left, and a build of this network needs about {needed / 1e6:,.0f} MB",
            remedy="free some space, or choose another --out",
        )


def rehearse(forms: Mapping[str, Form], images: FitImages, precision: str, progress: Progress) -> Rehearsal:
    """Compare the original's forms, the teacher first, each with the one before it, on a few images.

    Raises: VerificationFailed where one does not compute what the one before does.
    """
    whole = outputs_of(forms, images.some(IMAGES, seed=0), progress)
    links = tuple(compare(a, b, whole[a], whole[b]) for a, b in pairwise(whole))
    for link, allowed in zip(links, tolerances(precision), strict=False):  # there may be no engine here
        told = replace(link, agreement_percent=None)  # so few images tell nothing of it
        if problems := problems_of(told, allowed):
            raise VerificationFailed(
                f"the original itself is not what it was once it is written in {precision}: {'; '.join(problems)}, on {link.images} images",
                remedy=_remedy(precision),
            )
    return Rehearsal(links=links)


def _remedy(precision: str) -> str:
    if precision != "fp32":
        return "give --precision fp32"
    return "compare original.onnx in the run folder with the network yourself; a newer torch may export it rightly"
