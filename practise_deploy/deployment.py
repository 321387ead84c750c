"""Where the network will run, as the settings say it: the backend, its options, and the conditions. Needs no torch."""

from __future__ import annotations

from typing import Any

from practise_backends.catalog import clocks_of, load_backend, precisions_of
from practise_backends.errors import BackendError
from practise_backends.tensorrt.options import BY_NAME
from practise_backends.terms import Backend, Conditions
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.settings import Settings

_HOW = (
    "make a kit with `practise-deploy kit`, run `practise-measure kit/` on such a device, "
    "and give the table that it writes with --latency-table"
)


def backend_of(settings: Settings) -> Backend:
    """The backend, with its device at hand (or, with --for, known well enough to be built for).

    Raises: EnvironmentProblem where a package or the device is missing; InputError where it lacks an option, or where
    what it is built ahead for was never measured.
    """
    try:
        backend = load_backend(settings.backend, options_of(settings))
        backend.device()
    except BackendError as error:
        kind = EnvironmentProblem if error.exit_code == EnvironmentProblem.exit_code else InputError
        raise kind(error.message, remedy=error.remedy) from None
    _check_conditions(settings, backend)
    if settings.for_ and settings.latency_table is None:
        raise InputError(
            f"--for {','.join(settings.for_)} builds for GPUs that are not at hand, so what a block costs there must be known",
            remedy=_HOW,
        )
    return backend


def _check_conditions(settings: Settings, backend: Backend) -> None:
    """Refuse at once what the backend could not run or time."""
    clocks, precisions = clocks_of(backend), precisions_of(backend)
    if settings.precision not in precisions:
        raise InputError(
            f"backend '{settings.backend}' has no --precision {settings.precision}",
            remedy=f"it has {', '.join(precisions)}",
        )
    if settings.clock is not None and settings.clock not in clocks:
        raise InputError(
            f"backend '{settings.backend}' has no --clock {settings.clock}", remedy=f"it has {', '.join(clocks)}"
        )
    if settings.cuda_graph and "gpu_compute" not in clocks:
        raise InputError(
            f"backend '{settings.backend}' has no --cuda-graph", remedy="leave it out, or give --backend trt or trt-rtx"
        )


def options_of(settings: Settings) -> dict[str, Any]:
    """What the settings ask of the backend itself, where it is not the default anyway."""
    default = {name: Settings.model_fields[name].default for name in BY_NAME}
    return {name: value for name in BY_NAME if (value := getattr(settings, name)) != default[name]}


def conditions_of(settings: Settings, backend: Backend | None) -> Conditions:
    """The deployment's; without a word on the clock, the backend's first (the whole run, where there is no backend)."""
    clock = settings.clock or ("end_to_end" if backend is None else clocks_of(backend)[0])
    return Conditions(
        batch=settings.batch,
        threads=settings.threads,
        precision=settings.precision,
        clock=clock,
        cuda_graph=settings.cuda_graph,
        seed=settings.seed,
    )


def reads_symmetric_int8(settings: Settings) -> bool:
    """Whether the backend reads int8 in TensorRT's form rather than in ONNX Runtime's (see `shipping.precision`)."""
    return settings.backend != "ort"
