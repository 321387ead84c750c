"""Find a backend by its name among the entry points of group `practise_backends`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from practise_backends.choices import ClockKind, Precision
from practise_backends.errors import BackendError, BackendMissing
from practise_backends.flags import option_flags
from practise_backends.interfaces import Backend, Capabilities, Progress
from practise_backends.terms import Artifact, Conditions

GROUP = "practise_backends"


def available_backends() -> tuple[str, ...]:
    """The names of the installed backends, sorted; their own packages may still be missing."""
    return tuple(sorted(_entry_points()))


def load_backend(name: str, options: Mapping[str, Any] | None = None) -> Backend:
    """The backend of that name, ready to use. options: of this backend, by name (keywords of its class).

    Raises: BackendMissing where the name is unknown, or a package that the backend needs is absent; BackendError where
    it has no such option.
    """
    kind = backend_class(name)
    try:
        return cast(Backend, _configured(name, kind, options) if options else kind())
    except ImportError as error:
        raise _lacking(name, error) from error


def artifact_of(
    backend: Backend,
    model: bytes | Path,
    conditions: Conditions,
    *,
    build: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """A network compiled, or a file of the backend's own taken up."""
    suffix = backend.capabilities.engine_suffix
    if suffix and isinstance(model, Path) and model.suffix == suffix:
        return backend.load(model, conditions)
    return backend.compile(model, conditions, build=build, shapes=shapes, progress=progress)


def engine_suffixes() -> frozenset[str]:
    """Of the files that the installed backends build."""
    suffixes = set()
    for name in available_backends():
        with suppress(BackendMissing):
            suffixes.add(backend_class(name).capabilities.engine_suffix)
    return frozenset(suffixes - {""})


def check_supported(name: str, options: Mapping[str, Any], mode: RunMode) -> None:
    """Refuse what a backend could not do, as far as its class tells without package and device.

    Raises: BackendMissing where the name is unknown; BackendError where it lacks an option.
    """
    kind = backend_class(name)
    _check_options(name, kind, options)
    check_run_mode(kind, mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMode:
    """How a network is to run and be timed. clock: None is the backend's first one."""

    precision: Precision = Precision.FP32
    clock: ClockKind | None = None
    cuda_graph: bool = False


def check_run_mode(backend: Backend, mode: RunMode) -> None:
    """Refuse at once what the backend could not run or time.

    Raises: BackendError.
    """
    clocks, precisions = backend.capabilities.clocks, backend.capabilities.precisions
    if mode.precision not in precisions:
        raise BackendError(
            f"backend '{backend.name}' has no --precision {mode.precision}",
            remedy=f"it has {', '.join(precisions)}",
        )
    if mode.clock is not None and mode.clock not in clocks:
        raise BackendError(
            f"backend '{backend.name}' has no --clock {mode.clock}", remedy=f"it has {', '.join(clocks)}"
        )
    if mode.cuda_graph and ClockKind.GPU_COMPUTE not in clocks:
        raise BackendError(
            f"backend '{backend.name}' has no --cuda-graph",
            remedy="leave it out, or give a backend that times a GPU by itself",
        )


def backend_class(name: str) -> Any:
    """The class of the backend of that name; its package and its device need not be here.

    Raises: BackendMissing.
    """
    points = _entry_points()
    if name not in points:
        raise _unknown(name)
    try:
        return points[name].load()
    except ImportError as error:
        raise _lacking(name, error) from error


def _lacking(name: str, error: ImportError) -> BackendMissing:
    return BackendMissing(
        f"backend '{name}' needs a package that is not installed: {error}",
        remedy=f'pip install "practise-backends[{name}]"',
    )


def _configured(name: str, kind: Any, options: Mapping[str, Any]) -> Any:
    """A backend with options."""
    _check_options(name, kind, options)
    known = _options_of(kind.capabilities)
    return kind(**{option: value for option, value in options.items() if option in known})


def _check_options(name: str, kind: Any, options: Mapping[str, Any]) -> None:
    """Refuse the first option that the backend lacks, but for one at its default, which asks for nothing."""
    known, flags = _options_of(kind.capabilities), {flag.name: flag for flag in option_flags()}
    for option, value in options.items():
        if option in known or (option in flags and value == flags[option].default):
            continue
        written = flags[option].written if option in flags else option
        takes = ", ".join(known.values()) or "no options of its own"
        raise BackendError(
            f"backend '{name}' has no {written}", remedy=f"leave it out; '{name}' takes {takes}"
        )


def _options_of(capabilities: Capabilities) -> dict[str, str]:
    """A backend's options by name, as they are written."""
    return {flag.name: flag.written for flag in capabilities.options}


def _entry_points() -> dict[str, EntryPoint]:
    """The entry points of the group, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _unknown(name: str) -> BackendMissing:
    """The refusal of an unknown backend, with those that are installed."""
    names = ", ".join(available_backends())
    return BackendMissing(
        f"there is no backend '{name}'; available: {names or 'none'}",
        remedy=f"use one of: {names}" if names else "install practise-backends with pip",
    )
