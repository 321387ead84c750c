"""A race of ways to recover: they are judged batch by batch, and who is surely worse than the best leaves early.

Source: Maron and Moore, "Hoeffding Races" (NIPS 1993); here by the paired differences of the images' errors, whose
spread is far less than that of the errors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from practise_deploy.refit.criterion import Errors, joined

SURELY, LEAST_IMAGES = 3.0, 16
"""Standard errors by which a mean difference has to exceed zero, and the images that it takes to know them."""


def raced(
    entrants: Iterable[str], looks: Iterable[Callable[[str], Errors]], known: Mapping[str, Errors]
) -> dict[str, Errors]:
    """The errors of each entrant on the images that it saw before it was surely worse.

    looks: by batch of images in random order, the errors of a way. known: of ways that were judged on all these images already.
    """
    seen: dict[str, list[Errors]] = {name: [] for name in entrants}
    racing = list(seen)
    for look in looks:
        for name in racing:
            seen[name].append(look(name))
        here = {name: joined(seen[name]).by_image for name in racing}
        count = max((len(found) for found in here.values()), default=0)
        there = {name: errors.first(count).by_image for name, errors in known.items()}
        racing = [name for name in still_racing(there | here) if name in here]
        if not racing:
            break
    return {name: joined(parts) for name, parts in seen.items()}


def still_racing(errors: Mapping[str, Tensor]) -> list[str]:
    """Those that are not surely worse than the one of least mean error. Shapes: errors [images], the same for all."""
    finite = {name: found for name, found in errors.items() if bool(found.isfinite().all())}
    best = min(finite.values(), key=lambda found: float(found.mean()), default=None)
    return [] if best is None else [name for name, found in finite.items() if not _surely_above_zero(found - best)]


def _surely_above_zero(differences: Tensor) -> bool:
    count = len(differences)
    return count >= LEAST_IMAGES and float(differences.mean()) > SURELY * float(differences.std()) / count**0.5


def winner_of(tried: Mapping[str, Errors]) -> str:
    """The way of least error among those that were judged on all images."""
    images = max(len(errors.features) for errors in tried.values())
    finalists = [name for name, errors in tried.items() if len(errors.features) == images]
    return min(finalists, key=lambda name: comparable(tried[name]))


def comparable(errors: Errors) -> float:
    """The relative error; what gives no numbers is never least."""
    return errors.relative if errors.by_image.isfinite().all() else float("inf")


def beside(winner: Errors, errors: Errors) -> float:
    """The relative error of a way on all images, had it stayed as far from the winner as on those that it saw.

    At least the winner's: a way that left before a late winner led was not judged beside it.
    """
    seen = winner.first(len(errors.features))
    return max(winner.relative, winner.relative + errors.relative - seen.relative)
