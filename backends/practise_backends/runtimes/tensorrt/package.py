"""The packages that speak TensorRT's Python API: `tensorrt` 10 and 11, and `tensorrt_rtx`.

One code serves them all: what differs is asked of the module (`hasattr`), never of its version.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from practise_backends.errors import BackendMissing

_PACKAGES = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
_INSTALL = {
    "trt": (
        'pip install "practise-backends[trt]" (JetPack and NVIDIA\'s containers bring tensorrt along; a virtual '
        "environment sees theirs when it was made with --system-site-packages)"
    ),
    "trt-rtx": 'pip install "practise-backends[trt-rtx]"',
}
_FOR = {
    "trt": "data-centre GPUs and Jetson",
    "trt-rtx": "RTX GPUs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtPackage:
    """An imported package. module: its namespace; untyped."""

    backend: str
    name: str
    module: Any

    @property
    def version(self) -> str:
        """As the package says it."""
        return str(self.module.__version__)

    @property
    def builds_ahead(self) -> bool:
        """Whether it builds for GPUs that are not at hand."""
        return hasattr(self.module.IBuilderConfig, "set_compute_capability")

    @property
    def keeps_timings(self) -> bool:
        """Whether a timing cache saves anything: the builder of RTX times nothing, it compiles on the device."""
        return not self.builds_ahead

    @property
    def graphs_by_itself(self) -> bool:
        """Whether the runtime captures CUDA graphs on request, instead of the caller."""
        return hasattr(self.module, "CudaGraphStrategy")

    def supported_targets(self) -> tuple[str, ...]:
        """The compute capabilities that it builds ahead for, as `sm86`."""
        if not self.builds_ahead:
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted((name.lower() for name in names if name.startswith("SM")), key=_number))


def import_package(backend: str) -> TensorRtPackage:
    """Import a backend's package.

    Raises: BackendMissing, which names the other package where that one is installed.
    """
    name = _PACKAGES[backend]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise _missing(backend, str(error)) from error
    except OSError as error:  # a shared library that the package brings along, or not
        raise BackendMissing(
            f"backend '{backend}': {name} is installed, but does not load: {error}",
            remedy=_INSTALL[backend],
        ) from error
    return TensorRtPackage(backend=backend, name=name, module=module)


def _missing(backend: str, reason: str) -> BackendMissing:
    other = next(name for name in _PACKAGES if name != backend)
    message = f"backend '{backend}' ({_FOR[backend]}) needs the package {_PACKAGES[backend]}: {reason}"
    remedy = _INSTALL[backend]
    if importlib.util.find_spec(_PACKAGES[other]) is not None:
        message += (
            f"; {_PACKAGES[other]} is installed, which serves another backend, '{other}' ({_FOR[other]})"
        )
        remedy += f", or give --backend {other} where the network is meant for such a device"
    return BackendMissing(message, remedy=remedy)


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))
