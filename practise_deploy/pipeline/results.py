"""The files of a finished run: the release, its report, its raw samples, and the manifest that vouches for them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from practise_backends.files import why_no_file
from practise_backends.parsing import read_json
from practise_backends.terms import Arrays, Device
from practise_deploy.errors import InputError, reason
from practise_deploy.outcome import Release
from practise_deploy.report.page import render_html, render_markdown
from practise_deploy.run import UNREADABLE, Run, file_digest, read_arrays, to_json, write_arrays
from practise_deploy.settings import Settings
from practise_deploy.terms import SCHEMA

if TYPE_CHECKING:
    from practise_deploy.images.tiny_set import TinySet

_AGAIN = "build again with --out on the same folder"
_SMALLEST = 1e-100
_DRAWN = {"rounds_ms": ("f", 2), "engines": ("U", 1)}
"""The samples that are drawn: the kind of their type, and their dimensions."""
_LIBRARIES = ("practise-deploy", "practise-backends", "torch", "torchvision", "onnx", "onnxruntime", "numpy")


def write_results(run: Run, release: Release, settings: Settings, images: TinySet) -> None:
    """Write all that a build found out."""
    images_sha256 = {"fit": images.fit.digest(), "held_out": images.held_out.digest()}
    latency, bench = release.latency.samples, {} if release.bench is None else release.bench.samples
    write_arrays(run.folder / "samples.npz", {**_under("latency", latency), **_under("bench", bench)})
    run.write("release.json", to_json(release))
    run.write("report.md", render_markdown(release))
    run.write("report.html", render_html(release))
    run.write("manifest.json", manifest(release, settings, run.folder, images_sha256))


def unchanged(file: Path) -> Path:
    """A file of a run folder, which the manifest beside it vouches for; where there is no manifest, there is nothing to hold it against.

    Raises: InputError where it is not the file that the build wrote.
    """
    manifest_file = file.parent / "manifest.json"
    if not manifest_file.is_file() or not file.is_file():
        return file
    try:
        hashes = read_json(manifest_file)["files_sha256"]
        written = hashes.get(file.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{manifest_file} is damaged", remedy=_AGAIN) from None
    if written is not None and written != file_digest(file):
        raise InputError(
            f"{file} is not the file that the build wrote: its sha256 is not that of manifest.json",
            remedy=f"{_AGAIN}, which computes again what was changed",
        )
    return file


def network_file(path: Path, name: str) -> Path:
    """The file itself, or a run's file of that name, unchanged since its build.

    Raises: InputError.
    """
    inside = os.path.isdir(path)  # False for an invalid name, where Path.is_dir may raise
    problem = why_no_file(path / name if inside else path)
    if problem:
        raise InputError(
            f"{path} holds no {name}" if inside else problem,
            remedy="give the folder of a finished build, or the path of an ONNX file",
        )
    return unchanged(path / name) if inside else path


def read_release(folder: Path) -> Release:
    """The release that a run folder holds, with its raw samples where they are at hand.

    Raises: InputError where there is none, or where it is damaged or of another version of this program.
    """
    release = _read(unchanged(folder / "release.json"))
    samples = _samples(unchanged(folder / "samples.npz"))
    latency, bench = (
        {key.removeprefix(f"{name}/"): value for key, value in samples.items() if key.startswith(f"{name}/")}
        for name in ("latency", "bench")
    )
    measured = None if release.bench is None else replace(release.bench, samples=bench)
    return replace(release, latency=replace(release.latency, samples=latency), bench=measured)


def _read(file: Path) -> Release:
    """A release without its samples."""
    try:
        document = read_json(file)
    except FileNotFoundError:
        raise InputError(f"{file.parent} holds no release.json", remedy="give the folder of a finished build") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}", remedy=_AGAIN) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{file} has schema {schema}, this version reads schema {SCHEMA}", remedy=_AGAIN)
    release = _checked(document, file)
    if problem := next(_impossible(release, document), ""):
        raise InputError(f"{file} is damaged: {problem}", remedy=_AGAIN)
    return release


def _checked(document: dict[str, Any], file: Path) -> Release:
    """The record that the JSON describes; a null where a number must be was no number when it was written."""
    adapter = TypeAdapter(Release)
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        problems = error.errors()
        lost = [one["loc"] for one in problems if one["type"] == "float_type" and one["input"] is None]
    for place in lost:
        _put(document, place, float("nan"))
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise InputError(f"{file} was written by another version of this program", remedy=_AGAIN) from None
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file} is damaged: {where}: {first['msg']}", remedy=_AGAIN) from None


def _impossible(release: Release, document: dict[str, Any]) -> Iterator[str]:
    """Figures that no build can have written, and that nobody can draw."""
    if min(release.network.preprocessing.size) < 1:
        yield "network.preprocessing.size: an image has a height and a width"
    for figure in _beyond_drawing(np.array([*_numbers(document)], np.float64)):
        yield f"it holds the figure {figure:g}"


def _numbers(value: Any) -> Iterator[float]:
    """Every number of a document."""
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)):
        yield value


def _beyond_drawing(figures: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Those that are so large, or so near to 0, that arithmetic with them overflows or comes to nothing."""
    sizes = np.abs(figures)
    return figures[np.isfinite(figures) & (sizes > 0) & ((sizes < _SMALLEST) | (sizes > 1 / _SMALLEST))]


def _put(document: Any, place: tuple[int | str, ...], value: float) -> None:
    for part in place[:-1]:
        document = document[part]
    document[place[-1]] = value


def _samples(file: Path) -> Arrays:
    """The raw samples; none where there is no such file."""
    try:
        arrays = read_arrays(file) if os.path.lexists(file) else {}
        _check_samples(arrays)
        return arrays
    except UNREADABLE as error:
        raise InputError(f"{file} is damaged: {error}", remedy=f"remove it, or {_AGAIN}") from None


def _check_samples(arrays: Arrays) -> None:
    """Refuse rounds and names of engines that no measurement can have given.

    Raises: ValueError.
    """
    for name, array in arrays.items():
        expected = _DRAWN.get(name.rpartition("/")[2])
        if expected and (array.dtype.kind, array.ndim) != expected:
            raise ValueError(f"'{name}' is of {array.dtype}, in {array.ndim} dimensions")
        if array.dtype.kind == "f" and (figures := _beyond_drawing(array)).size:
            raise ValueError(f"'{name}' holds the figure {figures[0]:g}")


def _under(name: str, arrays: Arrays) -> Arrays:
    return {f"{name}/{key}": value for key, value in arrays.items()}


def manifest(release: Release, settings: Settings, folder: Path, images_sha256: dict[str, str]) -> str:
    """What went into a run and what came out of it: versions, device, seeds, settings, hashes."""
    content = {
        "schema": 1,
        "command": release.command,
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "device": _device(release.measured_on.device),
        "weights_sha256": release.network.sha256,
        "images_sha256": images_sha256,
        "files_sha256": {file.name: file_digest(file) for file in sorted(folder.iterdir()) if _belongs(file)},
        "seconds": release.seconds,
    }
    return json.dumps(content, indent=1)


def _device(device: Device) -> dict[str, object]:
    return {"name": device.name, "fingerprint": device.fingerprint, "facts": device.facts, "versions": device.versions}


def _belongs(file: Path) -> bool:
    """Files that a reader takes for what the build found out; the pages can be rendered again."""
    return file.is_file() and file.suffix in {".onnx", ".engine", ".npz", ".json"} and file.name != "manifest.json"
