"""The deployment target of the settings: the backend, its options, and the conditions. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from practise_backends.errors import BackendError
from practise_backends.interfaces import Backend
from practise_backends.options import Measuring, flags_of
from practise_backends.runtimes import catalog
from practise_backends.runtimes.catalog import RunMode, backend_class, load_backend
from practise_backends.terms import Conditions
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.settings import Settings

_NO_TABLE_REMEDY = (
    "make a kit with `practise-deploy kit`, run `practise-measure kit/` on such a device, "
    "and give the table that it writes with --latency-table"
)


def options_of(settings: Settings) -> dict[str, Any]:
    """The backend's own options, and the devices that it builds ahead for."""
    return {**settings.backend_options, **({"for_": settings.for_} if settings.for_ else {})}


def backend_of(settings: Settings) -> Backend:
    """The backend, with its device available (or, with --for, one that it can cross-build for).

    Raises: EnvironmentProblem where a package or the device is missing; InputError where the backend lacks an option, or where
    a cross-built target has no latency table.
    """
    with our_errors():
        backend = load_backend(settings.backend, options_of(settings))
        backend.device()
        catalog.check_run_mode(backend, _requested(settings))
    if settings.for_ and settings.latency_table is None:
        raise InputError(
            f"--for {','.join(settings.for_)} builds for GPUs that are not at hand, so what a block costs there must be known",
            remedy=_NO_TABLE_REMEDY,
        )
    return backend


def check_supported(settings: Settings) -> None:
    """Check that the backend exists and has the requested options; neither its package nor its device need be available.

    Raises: EnvironmentProblem where there is no such backend; InputError where it lacks an option.
    """
    with our_errors():
        catalog.check_supported(settings.backend, options_of(settings), _requested(settings))


def _requested(settings: Settings) -> RunMode:
    return RunMode(precision=settings.precision, clock=settings.clock, cuda_graph=settings.cuda_graph)


@contextmanager
def our_errors() -> Iterator[None]:
    """Translate errors of the device half into ours, with the same exit codes."""
    try:
        yield
    except BackendError as error:
        error_type = EnvironmentProblem if error.exit_code == EnvironmentProblem.exit_code else InputError
        raise error_type(error.message, remedy=error.remedy) from None


def conditions_of(settings: Settings, backend: Backend | None) -> Conditions:
    """The conditions of the deployment; the clock defaults to the backend's first. backend: None if it is not available."""
    clock = settings.clock or (backend or backend_class(settings.backend)).capabilities.clocks[0]
    return Conditions(
        batch=settings.batch,
        threads=settings.threads,
        precision=settings.precision,
        clock=clock,
        cuda_graph=settings.cuda_graph,
        seed=settings.seed,
    )


def reads_symmetric_int8(settings: Settings) -> bool:
    """Whether the backend reads int8 in TensorRT's form rather than in ONNX Runtime's (see `deployment.precision`)."""
    return not backend_class(settings.backend).capabilities.unsigned_int8


def measuring_of(settings: Settings) -> Measuring:
    """The measurement settings, as the command line of the device half takes them."""
    values = {flag.name: getattr(settings, flag.name) for flag in flags_of(Measuring)}
    return Measuring(**values, options=settings.backend_options)
