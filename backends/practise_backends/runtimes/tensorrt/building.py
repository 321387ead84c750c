"""From an ONNX network to a serialised engine: parse, describe, build.

Always strongly typed: the types are those of the ONNX file, and the builder may not choose others. TensorRT 11 has
no other way, and in 10 a builder's flag that a file does not follow is silently without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practise_backends.errors import CompileError
from practise_backends.interfaces import Progress
from practise_backends.runtimes.tensorrt.fused import HEADING, FusedLayer, layers_of_message
from practise_backends.runtimes.tensorrt.log_capture import capture_log, logger_of
from practise_backends.runtimes.tensorrt.monitor import Phases, monitor_of, noted_interrupts
from practise_backends.runtimes.tensorrt.options import Profile, TensorRtOptions
from practise_backends.runtimes.tensorrt.package import TensorRtPackage
from practise_backends.runtimes.tensorrt.remedies import refused_by_builder, refused_by_parser


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build. label: what to call the network in a message. timings: a timing cache to begin with."""

    model: bytes | Path
    label: str
    profiles: Mapping[str, Profile]
    options: TensorRtOptions
    timings: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A serialised engine. layers: empty where this version does not tell; timings: the timing cache afterwards.

    notes: TensorRT's warnings, and deviations from the request.
    """

    content: bytes
    layers: tuple[FusedLayer, ...]
    notes: tuple[str, ...]
    timings: bytes | None


def build_engine(package: TensorRtPackage, request: BuildRequest, progress: Progress | None = None) -> Built:
    """Build one engine. Ctrl-C stops between two steps of the builder.

    Raises: CompileError, DeviceUnavailable; KeyboardInterrupt.
    """
    with capture_log(package) as log:
        builder = package.module.Builder(logger_of(package))
        if builder is None:
            raise refused_by_builder(request.label, log, package)
        network = _network(builder, package)
        parser = package.module.OnnxParser(network, logger_of(package))
        if not _parse(parser, request.model):
            raise refused_by_parser(request.label, parser, log, package)
        config = _config(builder, package, request)
        cache = _with_timings(config, package, request)
        with _watched(config, package, progress) as interrupted:
            serialised = builder.build_serialized_network(network, config)
            if interrupted():
                raise KeyboardInterrupt
        if serialised is None:
            raise refused_by_builder(request.label, log, package)
        return Built(
            content=bytes(serialised),
            layers=layers_of_message(log.starting(HEADING)),
            notes=(*log.warnings, *_timings_note(cache, package, request)),
            timings=None if cache is None else bytes(cache.serialize()),
        )


def _network(builder: Any, package: TensorRtPackage) -> Any:
    """An empty network, strongly typed: the flag's bit is another in 10 and 11."""
    flag = package.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    return builder.create_network(1 << int(flag))


def _parse(parser: Any, model: bytes | Path) -> bool:
    """A file is parsed where it lies, since its weights may lie beside it."""
    return bool(parser.parse(model) if isinstance(model, bytes) else parser.parse_from_file(str(model)))


def _config(builder: Any, package: TensorRtPackage, request: BuildRequest) -> Any:
    """The builder's configuration."""
    trt, options = package.module, request.options
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.target_archs:
        _aim(config, package, options.target_archs)
    if request.profiles:
        _profile(builder, config, request)
    return config


def check_targets(package: TensorRtPackage, targets: tuple[str, ...]) -> None:
    """Refuse to build ahead for what this package does not build for.

    Raises: CompileError.
    """
    supported = package.supported_targets() if targets else ()
    unsupported = [target for target in targets if target not in supported]
    if targets and not supported:
        raise CompileError(
            f"{package.name} builds only for the GPU in this machine, not for {', '.join(targets)}",
            remedy="take the backend trt-rtx for RTX GPUs, or build on the device itself",
        )
    if unsupported:
        raise CompileError(
            f"{package.name} {package.version} does not build for {unsupported[0]}",
            remedy=f"it builds for {', '.join(supported)}",
        )


def _aim(config: Any, package: TensorRtPackage, targets: tuple[str, ...]) -> None:
    """Build for GPUs that are not at hand."""
    config.num_compute_capabilities = len(targets)
    for at, target in enumerate(targets):
        config.set_compute_capability(getattr(package.module.ComputeCapability, target.upper()), at)


def _profile(builder: Any, config: Any, request: BuildRequest) -> None:
    """One optimisation profile over all inputs of dynamic shape."""
    profile = builder.create_optimization_profile()
    for name, shapes in request.profiles.items():
        profile.set_shape(name, shapes.least, shapes.best, shapes.most)
    if config.add_optimization_profile(profile) < 0:
        shown = {name: (shapes.least, shapes.best, shapes.most) for name, shapes in request.profiles.items()}
        raise CompileError(
            f"{request.label}: TensorRT refuses the optimisation profile {shown}",
            remedy="write the least shape, the one to be fast at and the largest, each as many dimensions as the input has",
        )


def _with_timings(config: Any, package: TensorRtPackage, request: BuildRequest) -> Any:
    """The timing cache, from what an earlier build left; None where this package times nothing."""
    if request.timings is None or not package.keeps_timings:
        return None
    cache = config.create_timing_cache(request.timings)
    return cache if config.set_timing_cache(cache, ignore_mismatch=False) else None


def _timings_note(cache: Any, package: TensorRtPackage, request: BuildRequest) -> tuple[str, ...]:
    """Where a timing cache was given and TensorRT did not take it."""
    refused = bool(request.timings) and package.keeps_timings and cache is None
    return (
        ("TensorRT refused the timing cache, and timed its kernels anew without keeping them",)
        if refused
        else ()
    )


@contextmanager
def _watched(
    config: Any, package: TensorRtPackage, progress: Progress | None
) -> Iterator[Callable[[], bool]]:
    """Show the builder's steps meanwhile, and let Ctrl-C end it between two of them; the function says whether it did."""
    with noted_interrupts() as interrupted:
        phases = Phases(progress, interrupted)
        monitor = monitor_of(package, phases)
        config.progress_monitor = monitor
        yield interrupted
        config.progress_monitor = None
        if phases.failure is not None:
            raise phases.failure
