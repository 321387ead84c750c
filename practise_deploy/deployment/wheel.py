"""The device half as a wheel, made from what is installed here: the same bytes for the same code."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import practise_backends
from practise_deploy.errors import EnvironmentProblem

NAME = "practise-backends"
_WHEEL = "Wheel-Version: 1.0\nGenerator: practise-deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_BEGAN = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_MODE = 0o100644 << 16


def device_wheel() -> tuple[str, bytes]:
    """The name and the content of a wheel of `practise_backends`.

    Raises: EnvironmentProblem where it is not installed as a package.
    """
    version, told = _metadata()
    place = f"practise_backends-{version}.dist-info"
    files = dict(_sources()) | {f"{place}/{name}": text.encode() for name, text in told.items()}
    record = f"{place}/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    return f"practise_backends-{version}-py3-none-any.whl", _zipped(files)


def _metadata() -> tuple[str, dict[str, str]]:
    """The version, and what pip reads of the installed package; an egg calls its METADATA otherwise."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        found = None
    metadata = found and (found.read_text("METADATA") or found.read_text("PKG-INFO"))
    points = found and found.read_text("entry_points.txt")
    if not found or not metadata or not points:
        raise EnvironmentProblem(
            f"{NAME} is not installed as a package, which the kit takes its tool from",
            remedy="pip install -e ./backends -e .",
        )
    return _version(found), {"METADATA": metadata, "entry_points.txt": points, "WHEEL": _WHEEL}


def _version(found: Distribution) -> str:
    """As a wheel's name may hold it."""
    return found.version.replace("-", "_")


def _sources() -> Iterator[tuple[str, bytes]]:
    """Every file of the package, by its name in the wheel, in a fixed order."""
    package = Path(practise_backends.__file__).parent
    for file in sorted(package.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("."):
            yield f"{package.name}/{file.relative_to(package).as_posix()}", file.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    """A zip of them, with nothing of today in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _BEGAN)
            entry.external_attr = _MODE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
