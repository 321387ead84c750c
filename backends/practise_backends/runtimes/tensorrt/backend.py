"""The backends `trt` (tensorrt 10 and 11) and `trt-rtx` (tensorrt_rtx): one code, two packages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from practise_backends.choices import ClockKind, Precision
from practise_backends.errors import CompileError, DeviceUnavailable
from practise_backends.interfaces import Capabilities, Progress
from practise_backends.machine.device import describe_cpu, first_line
from practise_backends.machine.driver import Gpu, first_gpu
from practise_backends.runtimes.external_data import read_with_weights
from practise_backends.runtimes.onnx_file import ARITHMETIC, Network, label_of
from practise_backends.runtimes.tensorrt.building import BuildRequest, Built, build_engine, check_targets
from practise_backends.runtimes.tensorrt.cuda import Cuda, open_cuda
from practise_backends.runtimes.tensorrt.engine import TensorRtEngine
from practise_backends.runtimes.tensorrt.engine_file import (
    FORMAT,
    SUFFIX,
    EngineArtifact,
    check_fits,
    read_engine,
    write_engine,
)
from practise_backends.runtimes.tensorrt.fused import share_in
from practise_backends.runtimes.tensorrt.options import (
    Shape,
    TensorRtOptions,
    profiles_for,
)
from practise_backends.runtimes.tensorrt.package import TensorRtPackage, import_package
from practise_backends.runtimes.tensorrt.timing_cache import TimingCaches
from practise_backends.runtimes.tensorrt_flags import FLAGS, RTX_FLAGS
from practise_backends.terms import Artifact, Conditions, Device

CLOCKS = (ClockKind.GPU_COMPUTE, ClockKind.END_TO_END)
PRECISIONS = tuple(Precision)
_ON_JETSON = """\
On a Jetson, JetPack brings numpy and TensorRT along. With its own python3, or in an environment made with
`--system-site-packages`, `pip install --no-deps ./{wheel}` takes what is there; `practise-measure .` says which
package for CUDA to add (`pip install cuda-python`, for instance) where there is none."""


class TensorRtBackend:
    """Networks run by the package `tensorrt`.

    Raises: BackendMissing where it is not installed; CompileError where it does not build for what the options name.
    """

    name = "trt"
    capabilities = Capabilities(
        precisions=PRECISIONS,
        clocks=CLOCKS,
        builds_differ=True,
        engine_suffix=SUFFIX,
        on_gpu=True,
        options=FLAGS,
        device_setup=_ON_JETSON,
    )

    def __init__(self, options: TensorRtOptions | None = None, **fields: Any) -> None:
        """fields: of `TensorRtOptions`, where there are no options."""
        self.options = options or TensorRtOptions(**fields)
        self._run_by = ""
        self.package: TensorRtPackage = import_package(self.name)
        check_targets(self.package, self.options.target_archs)

    def device(self) -> Device:
        """The GPU that CUDA takes first, or the targets of a cross-build.

        Once an engine was opened, with the package that runs it among the properties; the fingerprint is of the device alone.
        Raises: DeviceUnavailable.
        """
        versions = {self.package.name: self.package.version}
        if self.options.target_archs:
            return _cross_built_device(self.options.target_archs, versions)
        device = device_of(self._gpu, versions)
        ran = {"cuda_package": self._run_by} if self._run_by else {}
        return replace(device, facts={**device.facts, **ran})

    def compile(
        self,
        model: bytes | Path,
        conditions: Conditions,
        *,
        build: int = 0,
        shapes: Mapping[str, Shape] | None = None,
        progress: Progress | None = None,
    ) -> EngineArtifact:
        """Build an engine for the GPU at hand, or ahead for the targets of the options.

        build: builds of one number share what the builder measured. shapes: of inputs that have these and no other.
        `precision_share` is read from the layers that the network was fused to, never from what was asked.
        Raises: CompileError, DeviceUnavailable.
        """
        _refuse_unsupported(conditions, self.name)
        network, sha256 = read_with_weights(model)
        label = label_of(model)
        _refuse_doubles(network, label)
        options = self.options.for_shapes(shapes or {})
        profiles = profiles_for(network.inputs, conditions.batch, options, label)
        caches = None if self.options.target_archs else self._caches
        request = BuildRequest(
            model=model,
            label=label,
            profiles=profiles,
            options=options,
            timings=None if caches is None else caches.read(build),
        )
        built = build_engine(self.package, request, progress)
        if caches is not None and built.timings is not None:
            caches.write(build, built.timings)
        artifact = self._artifact(network, sha256, built, conditions)
        return (
            artifact
            if built.layers or self.options.target_archs
            else self._inspected(artifact, network, conditions)
        )

    def save(self, artifact: EngineArtifact, path: Path) -> tuple[Path, ...]:
        """An engine as a file, its manifest beside it (see `engine_file`); gives both.

        Raises: OSError.
        """
        return write_engine(artifact, path)

    def load(self, file: Path, conditions: Conditions) -> EngineArtifact:
        """An engine that was built before, where it fits the GPU at hand.

        Raises: CompileError.
        """
        _refuse_unsupported(conditions, self.name)
        artifact = read_engine(file)
        if artifact.precision != conditions.precision:
            raise CompileError(
                f"{file} was built in {artifact.precision}, asked is {conditions.precision}",
                remedy=f"give --precision {artifact.precision}",
            )
        check_fits(artifact, provider=self._package_version, gpu=self._gpu)
        return artifact

    def open(self, artifact: Artifact, conditions: Conditions) -> TensorRtEngine:
        """Load an engine on the GPU at hand.

        Raises: BackendMissing where no package for CUDA is installed; DeviceUnavailable.
        """
        _refuse_unsupported(conditions, self.name)
        if self.options.target_archs:
            raise DeviceUnavailable(
                f"this engine is built ahead for {', '.join(self.options.target_archs)}, and does not run here",
                remedy="open it on such a GPU; build without targets for the one here",
            )
        self._gpu  # noqa: B018 - a missing driver is said here, before a runtime could crash for want of it
        cuda = self._cuda
        if conditions.cuda_graph and not (cuda.has_graphs or self.package.graphs_by_itself):
            raise DeviceUnavailable(
                f"{cuda.name} has no CUDA graphs",
                remedy="give --cuda torch or --cuda cuda-python, or leave --cuda-graph out",
            )
        self._run_by = cuda.name
        return TensorRtEngine(self.package, artifact, conditions, cuda)

    @property
    def _package_version(self) -> str:
        return f"{self.package.name} {self.package.version}"

    @cached_property
    def _gpu(self) -> Gpu:
        return first_gpu()

    @cached_property
    def _cuda(self) -> Cuda:
        return open_cuda(self.options.cuda)

    @cached_property
    def _caches(self) -> TimingCaches:
        return TimingCaches(folder=self.options.timing_cache, gpu=self._gpu, version=self._package_version)

    def _inspected(
        self, artifact: EngineArtifact, network: Network, conditions: Conditions
    ) -> EngineArtifact:
        """The artifact with the layers that the engine itself reports, where its builder reported none."""
        engine = self.open(artifact, conditions)
        try:
            layers = engine.layers()
        finally:
            engine.close()
        share = share_in(conditions.precision, _arithmetic(network), layers)
        return replace(artifact, layers=layers, precision_share=share.share, others=share.others)

    def _artifact(
        self, network: Network, sha256: str, built: Built, conditions: Conditions
    ) -> EngineArtifact:
        share = share_in(conditions.precision, _arithmetic(network), built.layers)
        return EngineArtifact(
            content=built.content,
            sha256=sha256,
            format=FORMAT,
            precision=conditions.precision,
            precision_share=share.share,
            inputs=network.inputs,
            outputs=network.outputs,
            device_fingerprint=self.device().fingerprint,
            layers=built.layers,
            others=share.others,
            targets=self.options.target_archs,
            gpu="" if self.options.target_archs else self._gpu.name,
            provider=self._package_version,
            notes=built.notes,
        )


class TensorRtRtxBackend(TensorRtBackend):
    """Networks run by the package `tensorrt_rtx`, which compiles its kernels on the device when they first run."""

    name = "trt-rtx"
    capabilities = replace(
        TensorRtBackend.capabilities,
        builds_differ=False,
        options=RTX_FLAGS,
        cross_build_option="target_archs",
        device_setup="",
    )


def _arithmetic(network: Network) -> list[str]:
    """The nodes that multiply, by name; one without a name by its output, which no layer will name."""
    return [node.name or node.outputs[0] for node in network.nodes if node.op in ARITHMETIC]


def _refuse_unsupported(conditions: Conditions, name: str) -> None:
    """Refuse conditions that this backend would silently not meet."""
    for what, requested, supported in (
        ("clock", conditions.clock, CLOCKS),
        ("precision", conditions.precision, PRECISIONS),
    ):
        if requested not in supported:
            raise CompileError(
                f"backend '{name}' has no {what} {requested!r}", remedy=f"use one of: {', '.join(supported)}"
            )


def _refuse_doubles(network: Network, label: str) -> None:
    """TensorRT takes float64 for float32 without a word."""
    doubles = [spec.name for spec in network.inputs if spec.dtype == "float64"]
    if doubles:
        raise CompileError(
            f"{label}: input '{doubles[0]}' is float64, which TensorRT computes in float32 without saying so",
            remedy="export the network in float32",
        )


def device_of(gpu: Gpu, versions: Mapping[str, str]) -> Device:
    """A GPU and its host, as results report them."""
    cpu = describe_cpu({})
    properties = {
        "gpu": gpu.name,
        "compute_capability": gpu.capability,
        "memory_mib": str(gpu.memory_mib),
        "driver_cuda": ".".join(str(part) for part in gpu.cuda),
        "driver": _driver_version(),
        "cpu": cpu.name,
        "os": cpu.facts.get("os", ""),
        "architecture": cpu.facts.get("architecture", ""),
    }
    properties = {key: reading for key, reading in properties.items() if reading}
    return Device(
        name=gpu.name, fingerprint=_digest(properties, versions), versions=dict(versions), facts=properties
    )


def _driver_version() -> str:
    """The driver's own version, where the kernel tells it."""
    line = first_line(Path("/proc/driver/nvidia/version"))
    return next((word for word in line.split() if word.replace(".", "").isdigit() and "." in word), "")


def _cross_built_device(targets: tuple[str, ...], versions: Mapping[str, str]) -> Device:
    properties = {"built_ahead_for": ", ".join(targets)}
    name = f"{', '.join(target.upper() for target in targets)} (not available)"
    return Device(
        name=name, fingerprint=_digest(properties, versions), versions=dict(versions), facts=properties
    )


def _digest(properties: Mapping[str, str], versions: Mapping[str, str]) -> str:
    content = json.dumps([dict(properties), dict(versions)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
