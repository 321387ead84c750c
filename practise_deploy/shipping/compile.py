"""The network as the device runs it: an engine beside its ONNX file where the backend builds one, else the ONNX file itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from practise_backends.terms import Artifact, Backend, Conditions, Progress
from practise_deploy.terms import Compiled

ENGINES = (".engine", ".engine.json")
_SAID = 10  # layers in another precision that a sentence names


def compile_network(backend: Backend, model: Path, conditions: Conditions, progress: Progress) -> Compiled:
    """Compile a network; where the backend's artefacts are files of their own, write one beside it.

    Raises: CompileError, DeviceUnavailable; OSError.
    """
    made: Any = backend
    suffix = getattr(backend, "suffix", "")
    path = model.with_suffix(suffix) if suffix else model
    _remove_engines(model)
    artifact = made.compile(model, conditions, progress=progress) if suffix else backend.compile(model, conditions)
    if suffix:
        made.save(artifact, path)
    return _compiled(artifact, path)


def is_whole(compiled: Compiled, folder: Path) -> bool:
    """Whether the files are still what was compiled."""
    files = {compiled.path: compiled.sha256, **compiled.beside}
    return all((folder / name).is_file() and _sha256(folder / name) == sha256 for name, sha256 in files.items())


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


def _remove_engines(model: Path) -> None:
    """Engines of an earlier build are of another network or for another device."""
    for name in ENGINES:
        model.with_name(model.stem + name).unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _compiled(artifact: Artifact, path: Path) -> Compiled:
    beside = [path.with_name(path.stem + name) for name in ENGINES]
    return Compiled(
        path=path.name,
        sha256=_sha256(path),
        bytes=path.stat().st_size,
        format=artifact.format,
        precision=artifact.precision,
        precision_share=artifact.precision_share,
        others=dict(artifact.others),
        layers=len(getattr(artifact, "layers", ())) or None,
        targets=tuple(getattr(artifact, "targets", ())),
        provider=getattr(artifact, "provider", ""),
        beside={file.name: _sha256(file) for file in beside if file.is_file() and file != path},
        notes=artifact.notes,
    )
