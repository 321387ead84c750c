"""Compile the network for the device: an engine next to its ONNX file if the backend builds one, else the ONNX file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from practise_backends.errors import EnvironmentProblem
from practise_backends.interfaces import Backend, Progress
from practise_backends.runtimes.catalog import engine_suffixes
from practise_backends.terms import Artifact, Conditions
from practise_deploy.outcome import DeployedModel
from practise_deploy.run import file_digest

_LISTED_LAYERS = 10  # most layers in another precision that a message lists


def compile_network(
    backend: Backend,
    model: Path,
    conditions: Conditions,
    progress: Progress,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> DeployedModel:
    """Compile a network; if the backend's artefacts are separate files, write one next to it.

    shapes: of inputs that are open besides the batch.

    Raises: CompileError, DeviceUnavailable; EnvironmentProblem where it cannot be written.
    """
    suffix = backend.capabilities.engine_suffix
    artifact = backend.compile(model, conditions, shapes=shapes, progress=progress)
    try:
        files = backend.save(artifact, model.with_suffix(suffix)) if suffix else ()
    except OSError as error:
        file = model.with_suffix(suffix)
        raise EnvironmentProblem(f"cannot write {file}: {error.strerror}", remedy="choose another --out") from None
    engines = [model.with_suffix(end) for end in engine_suffixes()]
    for stale in {*engines, *(engine.with_name(f"{engine.name}.json") for engine in engines)}.difference(files):
        stale.unlink(missing_ok=True)  # of an earlier build, of another network or for another device
    return _compiled(artifact, files[0] if files else model, files)


def precision_problems(compiled: DeployedModel, least_percent: float) -> list[str]:
    """Why the requested precision is not reached; empty if it is."""
    if least_percent <= 0:
        return []
    requirement = f"asked for {compiled.precision} in at least {least_percent:g}% of the arithmetic layers"
    if compiled.precision_share is None:
        return [
            f"{requirement}; which layers compute in it cannot be read from {compiled.path}: --min-precision-share 0 waives it"
        ]
    if 100 * compiled.precision_share >= least_percent:
        return []
    names = list(compiled.others.items())
    listed = ", ".join(f"{name or 'unnamed'} in {layer_precision}" for name, layer_precision in names[:_LISTED_LAYERS])
    more = f" and {len(names) - _LISTED_LAYERS} more" if len(names) > _LISTED_LAYERS else ""
    return [f"{requirement}, found {100 * compiled.precision_share:.1f}%: {listed}{more}"]


def _compiled(artifact: Artifact, path: Path, files: tuple[Path, ...]) -> DeployedModel:
    return DeployedModel(
        path=path.name,
        sha256=file_digest(path),
        bytes=path.stat().st_size,
        format=artifact.format,
        precision=artifact.precision,
        precision_share=artifact.precision_share,
        others=dict(artifact.others),
        layers=len(artifact.layers) or None,
        targets=artifact.targets,
        provider=artifact.provider,
        files_sha256={file.name: file_digest(file) for file in files if file != path},
        notes=artifact.notes,
    )
