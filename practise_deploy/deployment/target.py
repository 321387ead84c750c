"""The deployment target of the settings: the backend, its options, and the conditions. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from practise_backends.choices import Precision
from practise_backends.errors import EnvironmentProblem
from practise_backends.interfaces import Backend
from practise_backends.options import Measuring, flags_of
from practise_backends.runtimes import catalog
from practise_backends.runtimes.catalog import RunMode, backend_class, load_backend
from practise_backends.terms import Conditions
from practise_deploy.errors import InputError
from practise_deploy.settings import AUTO, DeploymentTarget

_NO_TABLE_REMEDY = (
    "make a kit with `practise-deploy kit`, run `practise-measure kit/` on such a device, "
    "and give the table that it writes with --latency-table"
)


def target_archs(target: DeploymentTarget) -> tuple[str, ...]:
    """The devices that the backend is asked to build ahead for, instead of the one here."""
    option = backend_class(target.backend).capabilities.cross_build_option
    return tuple(target.backend_options.get(option, ()))


def backend_of(target: DeploymentTarget) -> Backend:
    """The backend, with its device available (or one that it can build ahead for).

    Raises: EnvironmentProblem where a package or the device is missing; BackendError where the backend lacks an option; InputError where
    a cross-built target has no latency table.
    """
    backend = load_backend(target.backend, target.backend_options)
    backend.device()
    catalog.check_run_mode(backend, _requested(target))
    if (archs := target_archs(target)) and target.latency_table is None:
        raise InputError(
            f"an engine for {', '.join(archs)} is built without such a device, so what a block costs there must be known",
            remedy=_NO_TABLE_REMEDY,
        )
    return backend


def backend_or_table(target: DeploymentTarget, tell: Callable[[str], None]) -> Backend | None:
    """The same; None where it is not available, and a latency table stands for it, which is told.

    Raises: as `backend_of`.
    """
    check_supported(target)
    try:
        return backend_of(target)
    except EnvironmentProblem as error:
        if target.latency_table is None:
            raise
        tell(f"note: {error.message}; going by {target.latency_table} alone")
        return None


def check_supported(target: DeploymentTarget) -> None:
    """Check that the backend exists and has the requested options; neither its package nor its device need be available.

    Raises: EnvironmentProblem where there is no such backend; BackendError where it lacks an option.
    """
    catalog.check_supported(target.backend, target.backend_options, _requested(target))


def _requested(target: DeploymentTarget) -> RunMode:
    precision = Precision.FP32 if target.precision == AUTO else target.one_precision
    return RunMode(precision=precision, clock=target.clock, cuda_graph=target.cuda_graph)


def conditions_of(target: DeploymentTarget, backend: Backend | None) -> Conditions:
    """The conditions of the deployment; the clock defaults to the backend's first. backend: None if it is not available."""
    clock = target.clock or (backend or backend_class(target.backend)).capabilities.clocks[0]
    return Conditions(
        batch=target.batch,
        threads=target.threads,
        precision=target.one_precision,
        clock=clock,
        cuda_graph=target.cuda_graph,
        seed=target.seed,
    )


def reads_symmetric_int8(target: DeploymentTarget) -> bool:
    """Whether the backend reads int8 in TensorRT's form rather than in ONNX Runtime's (see `deployment.precision`)."""
    return not backend_class(target.backend).capabilities.unsigned_int8


def measuring_of(target: DeploymentTarget) -> Measuring:
    """The measurement settings, as the command line of the device half takes them."""
    values = {flag.name: getattr(target, flag.name) for flag in flags_of(Measuring)}
    return Measuring(**values, options=target.backend_options)
