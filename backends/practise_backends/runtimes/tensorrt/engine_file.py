"""An engine as a file, with a manifest next to it: its kind, its GPU and its fused layers.

An engine runs on the kind of GPU and with the very version of TensorRT that it was built with: both are checked before
TensorRT is asked to load it, since its own words are few.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from practise_backends.errors import CompileError, DeviceUnavailable
from practise_backends.files import write_file
from practise_backends.machine.driver import Gpu
from practise_backends.parsing import read_json, record_of
from practise_backends.runtimes.onnx_file import content_of
from practise_backends.runtimes.tensorrt.fused import FusedLayer
from practise_backends.terms import Artifact

SUFFIX = ".engine"
FORMAT = "tensorrt"
SCHEMA = 1
_AGAIN = "build it again from its ONNX file"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact(Artifact):
    """A serialised engine. gpu: the one that it was built on, where it was."""

    layers: tuple[FusedLayer, ...] = ()
    gpu: str = ""


_KEPT = [f.name for f in fields(EngineArtifact) if f.name not in ("content", "sha256", "format")]
"""The fields that the manifest holds under their own names."""


def manifest_of(engine: Path) -> Path:
    """Where an engine's manifest lies."""
    return engine.with_name(engine.name + ".json")


def write_engine(artifact: EngineArtifact, path: Path) -> tuple[Path, ...]:
    """Write the engine and its manifest, and give both; the manifest comes last, since it vouches for the engine.

    Raises: OSError.
    """
    content = content_of(artifact.content)
    manifest = {
        "schema": SCHEMA,
        "engine_sha256": hashlib.sha256(content).hexdigest(),
        "network_sha256": artifact.sha256,
        **{name: getattr(artifact, name) for name in _KEPT},
    }
    manifest_of(path).unlink(missing_ok=True)
    write_file(path, content)
    write_file(manifest_of(path), json.dumps(manifest, indent=1, default=asdict) + "\n")
    return path, manifest_of(path)


def read_engine(path: Path) -> EngineArtifact:
    """An engine that `write_engine` wrote; its content stays in its file.

    Raises: CompileError where the file, its manifest or their agreement is missing.
    """
    content, manifest = content_of(path), _manifest(path)
    if hashlib.sha256(content).hexdigest() != manifest.get("engine_sha256"):
        raise CompileError(f"{path} is not the engine that {manifest_of(path)} describes", remedy=_AGAIN)
    try:
        return _artifact(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CompileError(f"{manifest_of(path)} is damaged: {error}", remedy=_AGAIN) from error


def check_fits(artifact: EngineArtifact, *, provider: str, gpu: Gpu) -> None:
    """Refuse an engine of another TensorRT or another kind of GPU than the one at hand.

    Raises: DeviceUnavailable.
    """
    if artifact.provider != provider:
        raise DeviceUnavailable(
            f"the engine was built with {artifact.provider}, here is {provider}",
            remedy=f"{_AGAIN} here, or install the version that it was built with",
        )
    if artifact.targets and gpu.capability not in artifact.targets:
        raise DeviceUnavailable(
            f"the engine was built for {', '.join(artifact.targets)}; {gpu.name} is {gpu.capability}",
            remedy=f"build it with --target-archs {gpu.capability}, or run it on such a GPU",
        )
    if not artifact.targets and artifact.gpu != gpu.name:
        raise DeviceUnavailable(
            f"the engine was built on {artifact.gpu}, here is {gpu.name}", remedy=f"{_AGAIN} here"
        )


def _manifest(path: Path) -> dict[str, Any]:
    file = manifest_of(path)
    try:
        manifest = read_json(file)
    except FileNotFoundError:
        raise CompileError(
            f"{path} has no manifest {file.name} beside it", remedy=f"copy both files, or {_AGAIN}"
        ) from None
    except (OSError, ValueError) as error:
        raise CompileError(f"{file} cannot be read: {error}", remedy=_AGAIN) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise CompileError(f"{file} has schema {schema}, this version reads {SCHEMA}", remedy=_AGAIN)
    return manifest


def _artifact(path: Path, manifest: Mapping[str, Any]) -> EngineArtifact:
    hints = get_type_hints(EngineArtifact)
    kept = {name: record_of(hints[name], manifest[name]) for name in _KEPT}
    return EngineArtifact(content=path, sha256=manifest["network_sha256"], format=FORMAT, **kept)
