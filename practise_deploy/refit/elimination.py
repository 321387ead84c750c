"""Successive elimination of solvers: they are judged batch by batch, and those significantly worse than the best are dropped early.

Source: Maron and Moore, "Hoeffding Races" (NIPS 1993); here by the paired differences of the images' errors, whose
spread is far less than that of the errors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from practise_deploy.refit.criterion import Errors, joined

STANDARD_ERRORS, LEAST_IMAGES = 3.0, 16
"""Standard errors by which a mean difference has to exceed zero, and the images that it takes to know them."""


def eliminate(
    entrants: Iterable[str], evaluations: Iterable[Callable[[str], Errors]], complete: Mapping[str, Errors]
) -> dict[str, Errors]:
    """The errors of each entrant on the images that it saw before it was significantly worse.

    evaluations: by batch of images in random order, the errors of a solver. complete: of solvers that were judged on all these images already.
    """
    seen: dict[str, list[Errors]] = {name: [] for name in entrants}
    remaining = list(seen)
    for evaluate in evaluations:
        for name in remaining:
            seen[name].append(evaluate(name))
        current = {name: joined(seen[name]).by_image for name in remaining}
        count = max((len(seen_errors) for seen_errors in current.values()), default=0)
        others = {name: errors.first(count).by_image for name, errors in complete.items()}
        remaining = [name for name in survivors(others | current) if name in current]
        if not remaining:
            break
    return {name: joined(parts) for name, parts in seen.items()}


def survivors(errors: Mapping[str, Tensor]) -> list[str]:
    """Those that are not significantly worse than the one of least mean error. Shapes: errors [images], the same for all."""
    finite = {name: image_errors for name, image_errors in errors.items() if bool(image_errors.isfinite().all())}
    best = min(finite.values(), key=lambda image_errors: float(image_errors.mean()), default=None)
    return (
        []
        if best is None
        else [name for name, image_errors in finite.items() if not _significantly_above_zero(image_errors - best)]
    )


def _significantly_above_zero(differences: Tensor) -> bool:
    """By their mean in standard errors. Shapes: [images]."""
    count = len(differences)
    return count >= LEAST_IMAGES and float(differences.mean()) > STANDARD_ERRORS * float(differences.std()) / count**0.5


def winner_of(tried: Mapping[str, Errors]) -> str:
    """The solver of least error among those that were judged on all images."""
    images = max(len(errors.features) for errors in tried.values())
    finalists = [name for name, errors in tried.items() if len(errors.features) == images]
    return min(finalists, key=lambda name: comparable(tried[name]))


def comparable(errors: Errors) -> float:
    """The relative error; what gives no numbers is never least."""
    return errors.relative if errors.by_image.isfinite().all() else float("inf")


def paired_error(winner: Errors, errors: Errors) -> float:
    """The relative error of a solver on all images, had it stayed as far from the winner as on those that it saw.

    At least the winner's: a solver that was eliminated before a late winner led was not judged with it.
    """
    seen = winner.first(len(errors.features))
    return max(winner.relative, winner.relative + errors.relative - seen.relative)
