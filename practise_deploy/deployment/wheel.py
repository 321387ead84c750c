"""The device half as a reproducible wheel, built from the installed package."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import practise_backends
from practise_backends.errors import EnvironmentProblem

NAME = "practise-backends"
_WHEEL = "Wheel-Version: 1.0\nGenerator: practise-deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_MODE = 0o100644 << 16


def device_wheel() -> tuple[str, bytes]:
    """The name and the content of a wheel of `practise_backends`.

    Raises: EnvironmentProblem where it is not installed as a package.
    """
    version, metadata = _metadata()
    place = f"practise_backends-{version}.dist-info"
    files = dict(_sources()) | {f"{place}/{name}": text.encode() for name, text in metadata.items()}
    record = f"{place}/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    return f"practise_backends-{version}-py3-none-any.whl", _zipped(files)


def _metadata() -> tuple[str, dict[str, str]]:
    """The version and the metadata files that pip reads; an egg has PKG-INFO instead of METADATA."""
    try:
        package = distribution(NAME)
    except PackageNotFoundError:
        package = None
    metadata = package and (package.read_text("METADATA") or package.read_text("PKG-INFO"))
    points = package and package.read_text("entry_points.txt")
    if not package or not metadata or not points:
        raise EnvironmentProblem(
            f"{NAME} is not installed as a package, which the kit takes its tool from",
            remedy="pip install -e ./backends -e .",
        )
    return _version(package), {"METADATA": metadata, "entry_points.txt": points, "WHEEL": _WHEEL}


def _version(package: Distribution) -> str:
    """The version, escaped for a wheel's file name."""
    return package.version.replace("-", "_")


def _sources() -> Iterator[tuple[str, bytes]]:
    """Every file of the package, by its name in the wheel, in a fixed order."""
    package = Path(practise_backends.__file__).parent
    for file in sorted(package.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("."):
            yield f"{package.name}/{file.relative_to(package).as_posix()}", file.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    """A zip of the files, without timestamps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _MODE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
