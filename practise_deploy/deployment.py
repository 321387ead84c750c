"""Where the network will run, as the settings say it: the backend, its options, and the conditions. Needs no torch."""

from __future__ import annotations

from typing import Any

from practise_backends.catalog import check_timing, clocks_of, load_backend
from practise_backends.errors import BackendError
from practise_backends.tensorrt.options import asked_of
from practise_backends.terms import Backend, Conditions
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.settings import Settings


def backend_of(settings: Settings) -> Backend:
    """The backend, with its device at hand.

    Raises: EnvironmentProblem where a package or the device is missing; InputError where it lacks an option.
    """
    try:
        backend = load_backend(settings.backend, options_of(settings))
        backend.device()
        check_timing(backend, settings.clock, cuda_graph=settings.cuda_graph)
    except BackendError as error:
        kind = EnvironmentProblem if error.exit_code == EnvironmentProblem.exit_code else InputError
        raise kind(error.message, remedy=error.remedy) from None
    return backend


def options_of(settings: Settings) -> dict[str, Any]:
    """What the settings ask of the backend itself, where it is not the default anyway."""
    return asked_of(settings)


def conditions_of(settings: Settings, backend: Backend) -> Conditions:
    """The deployment's; without a word on the clock, the backend's first."""
    return Conditions(
        batch=settings.batch,
        threads=settings.threads,
        clock=settings.clock or clocks_of(backend)[0],
        cuda_graph=settings.cuda_graph,
        seed=settings.seed,
    )
