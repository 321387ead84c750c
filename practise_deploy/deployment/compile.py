"""The network as the device runs it: an engine beside its ONNX file where the backend builds one, else the ONNX file itself."""

from __future__ import annotations

from pathlib import Path

from practise_backends.runtimes.tensorrt.shipped import SUFFIX, manifest_of
from practise_backends.terms import Artifact, Backend, Conditions, Progress
from practise_deploy.errors import EnvironmentProblem
from practise_deploy.outcome import Compiled
from practise_deploy.run import file_digest

_SAID = 10  # layers in another precision that a sentence names


def compile_network(backend: Backend, model: Path, conditions: Conditions, progress: Progress) -> Compiled:
    """Compile a network; where the backend's artefacts are files of their own, write one beside it.

    Raises: CompileError, DeviceUnavailable; EnvironmentProblem where it cannot be written.
    """
    suffix = getattr(backend, "suffix", "")
    path = model.with_suffix(suffix) if suffix else model
    told = {"progress": progress} if suffix else {}  # only what builds for seconds has some
    artifact = backend.compile(model, conditions, **told)
    files = _written(backend, artifact, path)
    for stale in {model.with_suffix(SUFFIX), manifest_of(model.with_suffix(SUFFIX))}.difference(files):
        stale.unlink(missing_ok=True)  # of an earlier build, of another network or for another device
    return _compiled(artifact, path, files)


def precision_problems(compiled: Compiled, least_percent: float) -> list[str]:
    """Why the precision that was asked for is not kept; none where it is."""
    if least_percent <= 0:
        return []
    asked = f"asked for {compiled.precision} in at least {least_percent:g}% of the arithmetic layers"
    if compiled.precision_share is None:
        return [
            f"{asked}; which layers compute in it cannot be read from {compiled.path}: --min-precision-share 0 waives it"
        ]
    if 100 * compiled.precision_share >= least_percent:
        return []
    names = list(compiled.others.items())
    said = ", ".join(f"{name or 'unnamed'} in {kind}" for name, kind in names[:_SAID])
    more = f" and {len(names) - _SAID} more" if len(names) > _SAID else ""
    return [f"{asked}, found {100 * compiled.precision_share:.1f}%: {said}{more}"]


def _written(backend: Backend, artifact: Artifact, path: Path) -> tuple[Path, ...]:
    """The artefact's files; none where the network's own file is what the device runs.

    Raises: EnvironmentProblem.
    """
    save = getattr(backend, "save", None)
    if save is None:
        return ()
    try:
        files: tuple[Path, ...] = save(artifact, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}", remedy="choose another --out") from None
    return files


def _compiled(artifact: Artifact, path: Path, files: tuple[Path, ...]) -> Compiled:
    return Compiled(
        path=path.name,
        sha256=file_digest(path),
        bytes=path.stat().st_size,
        format=artifact.format,
        precision=artifact.precision,
        precision_share=artifact.precision_share,
        others=dict(artifact.others),
        layers=len(getattr(artifact, "layers", ())) or None,
        targets=tuple(getattr(artifact, "targets", ())),
        provider=getattr(artifact, "provider", ""),
        beside={file.name: file_digest(file) for file in files if file != path},
        notes=artifact.notes,
    )
