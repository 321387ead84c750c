"""The files of a finished run: the release, its report, its raw samples, and the manifest that vouches for them."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

from practise_backends.terms import Device
from practise_deploy.report.page import render_html, render_markdown
from practise_deploy.settings import Settings
from practise_deploy.store import Run, to_json, write_arrays
from practise_deploy.terms import Arrays, Release

_LIBRARIES = ("practise-deploy", "practise-backends", "torch", "torchvision", "onnx", "onnxruntime", "numpy")


def write_results(run: Run, release: Release, settings: Settings, images_sha256: dict[str, str]) -> None:
    """Write all that a build found out. images_sha256: of the fit and the held-out part."""
    latency, bench = release.latency.samples, release.bench.samples
    write_arrays(run.folder / "samples.npz", {**_under("latency", latency), **_under("bench", bench)})
    run.write("manifest.json", manifest(release, settings, run.folder, images_sha256))
    run.write("release.json", to_json(release))
    run.write("report.md", render_markdown(release))
    run.write("report.html", render_html(release))


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
        "device": _device(release.bench.device),
        "weights_sha256": release.network.sha256,
        "images_sha256": images_sha256,
        "files_sha256": {file.name: _sha256(file) for file in sorted(folder.iterdir()) if _belongs(file)},
        "seconds": release.seconds,
    }
    return json.dumps(content, indent=1)


def _device(device: Device) -> dict[str, object]:
    return {"name": device.name, "fingerprint": device.fingerprint, "facts": device.facts, "versions": device.versions}


def _belongs(file: Path) -> bool:
    """Files that are whole before the manifest is written."""
    return (
        file.is_file()
        and file.suffix in {".onnx", ".npz", ".json"}
        and file.name not in ("manifest.json", "release.json")
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
