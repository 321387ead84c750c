"""Find a backend by its name among the entry points of group `practise_backends`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast

from practise_backends.errors import BackendMissing
from practise_backends.terms import Backend

GROUP = "practise_backends"


def available_backends() -> tuple[str, ...]:
    """The names of the installed backends, sorted; their own packages may still be missing."""
    return tuple(sorted(_found()))


def load_backend(name: str) -> Backend:
    """The backend of that name, ready to use.

    Raises: BackendMissing where the name is unknown, or a package that the backend needs is absent.
    """
    found = _found()
    if name not in found:
        raise _unknown(name)
    try:
        return cast(Backend, found[name].load()())
    except ImportError as error:
        raise BackendMissing(
            f"backend '{name}' needs a package that is not installed: {error}",
            remedy=f'pip install "practise-backends[{name}]"',
        ) from error


def _found() -> dict[str, EntryPoint]:
    """The entry points of the group, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _unknown(name: str) -> BackendMissing:
    """Why there is no such backend, and what there is."""
    names = ", ".join(available_backends())
    return BackendMissing(
        f"there is no backend '{name}'; available: {names or 'none'}",
        remedy=f"use one of: {names}" if names else "install practise-backends with pip",
    )
