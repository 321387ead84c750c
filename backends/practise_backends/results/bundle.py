"""The kit: networks that were written elsewhere, to be measured on this device; the table goes home as JSON.

A kit is a folder: `kit.json`, the networks, which share one file of weights, and the tool that measures them. It holds the
original, the network without every single block (a class that is split needs them all), and the sets of the design.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from practise_backends.choices import Precision
from practise_backends.errors import BackendError
from practise_backends.files import regular_file
from practise_backends.flags import Flag, nearest, option_flags
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.options import Measuring, flags_of
from practise_backends.parsing import read_json, record_of
from practise_backends.results.table import measure_table
from practise_backends.results.table_design import Cut, Design
from practise_backends.terms import LatencyTable

KIT_SCHEMA = 2
MANIFEST, TABLE = "kit.json", "latency.json"
_AGAIN = "copy the whole kit again, or make it again: practise-deploy kit"

Dropped = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KitNetwork:
    """The network without some blocks. file: within the kit, with `/`."""

    dropped: Dropped
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What `kit.json` says.

    input_shape: with the batch, which the networks have fixed. asked: how to measure where nothing else is asked on the device.
    design: drawn where the kit was made, since another version of numpy may draw another. sha256: of every file that is
    measured, by its name. weights: where they are from. plan: the command that takes the table. made_by: the program and its version.
    """

    schema: int = KIT_SCHEMA
    network: str
    structure_sha256: str
    input_shape: tuple[int, ...]
    precision: Precision
    weights: str
    asked: Measuring
    cuts: tuple[Cut, ...]
    design: Design
    networks: tuple[KitNetwork, ...]
    sha256: dict[str, str]
    plan: str
    made_by: str

    def without(self, folder: Path) -> Callable[[Dropped], Path]:
        """Where the network without some blocks lies, for a kit in that folder."""
        files = {network.dropped: folder / network.file for network in self.networks}
        return lambda dropped: files[dropped]


def networks_of(cuts: Sequence[Cut], design: Design) -> tuple[Dropped, ...]:
    """What a kit leaves out, each once: nothing, every block alone, and what the design measures together."""
    single = ((cut.block,) for cut in cuts)
    return tuple(dict.fromkeys(((), *single, *(variant.dropped for variant in design.variants()))))


def measure_kit(
    kit: Kit, folder: Path, setup: MeasurementSetup, progress: Progress | None = None
) -> LatencyTable:
    """The table that `practise-deploy latency` would have measured here.

    Raises: CompileError, MeasureError.
    """
    table = measure_table(kit.network, kit.cuts, kit.without(folder), setup, progress, kit.design)
    return replace(table, structure_sha256=kit.structure_sha256)


def read_kit(folder: Path) -> Kit:
    """The kit in a folder, whole: every network is there and is the one that was written.

    Raises: BackendError.
    """
    kit = _checked(_document(folder), folder / MANIFEST)
    for name, sha256 in kit.sha256.items():
        _check_file(folder, name, sha256)
    return kit


def _document(folder: Path) -> dict[str, Any]:
    """What `kit.json` holds, of this schema."""
    path = folder / MANIFEST
    if folder.is_file():
        raise BackendError(
            f"{folder} is a file; a kit is a folder", remedy=f"a network: practise-measure bench {folder}"
        )
    if not folder.is_dir():
        raise BackendError(f"there is no folder {folder}", remedy="check the path")
    if not path.is_file():
        raise BackendError(
            f"{folder} is no kit: it holds no {MANIFEST}",
            remedy="give the folder that practise-deploy kit has written",
        )
    try:
        regular_file(path, folder)
    except ValueError as error:
        raise BackendError(f"{path} {error}", remedy=_AGAIN) from None
    try:
        document = read_json(path)
        schema = document["schema"]
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}", remedy="check its permissions") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError):
        raise BackendError(
            f"{path} is damaged: it is no JSON document with a schema", remedy=_AGAIN
        ) from None
    except ValueError as error:
        raise BackendError(f"{path} is damaged: {error}", remedy=_AGAIN) from None
    if schema != KIT_SCHEMA:
        raise BackendError(
            f"{path} has schema {schema!r}; this version reads {KIT_SCHEMA}",
            remedy="install the practise_backends wheel that lies in the kit",
        )
    return dict(document)


def _checked(document: dict[str, Any], path: Path) -> Kit:
    """The record that a document describes, with a file for every network that may be measured."""
    try:
        kit = _kit_of(document)
        _check_parts(kit)
        lacks = [names for names in networks_of(kit.cuts, kit.design) if names not in _files_of(kit)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackendError(f"{path} is damaged: {_reason(error)}", remedy=_AGAIN) from None
    if lacks:
        what = f"the network without {', '.join(lacks[0])}" if lacks[0] else "the original network"
        raise BackendError(f"{path} lacks {what}", remedy=_AGAIN)
    return kit


def _check_parts(kit: Kit) -> None:
    """Refuse parts that do not fit each other, before minutes of measuring end in their contradiction.

    Raises: ValueError.
    """
    class_of = {cut.block: cut.latency_class for cut in kit.cuts}
    firsts, twins = kit.design.firsts, kit.design.twins
    if not kit.input_shape or min(kit.input_shape) < 1:
        raise ValueError(f"the input shape {list(kit.input_shape)} is none")
    if not class_of or set(class_of.values()) != set(firsts) or not set(twins) <= set(firsts):
        raise ValueError("the design does not measure every latency class of the blocks")
    measured = {*firsts.items(), *twins.items()}
    misplaced = [name for key, name in measured if class_of.get(name) != key]
    misplaced += [name for names in kit.design.sets for name in names if name not in class_of]
    if misplaced:
        raise ValueError(f"the design measures '{misplaced[0]}', which is no block of its class")


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _files_of(kit: Kit) -> dict[Dropped, str]:
    """The networks with a vouched-for file, by what they leave out."""
    return {network.dropped: network.file for network in kit.networks if network.file in kit.sha256}


def _kit_of(document: dict[str, Any]) -> Kit:
    kit: Kit = record_of(Kit, document | {"asked": {}})
    for name in (*kit.sha256, *(network.file for network in kit.networks)):
        _check_inside(name)
    return replace(kit, asked=_measuring(document["asked"]))


def _measuring(document: dict[str, Any]) -> Measuring:
    """How to measure, every value read as its flag would be."""
    values = {name: value for name, value in document.items() if name != "options" and value is not None}
    return Measuring(
        **_read(values, flags_of(Measuring), "unknown"),
        options=_read(document.get("options", {}), option_flags(), "unknown option"),
    )


def _read(values: dict[str, Any], flags: Sequence[Flag], unknown: str) -> dict[str, Any]:
    """Values by the names of flags, each as its flag reads it."""
    by_name = {flag.name: flag for flag in flags}
    for name in sorted(set(values) - set(by_name)):
        near = nearest(name, by_name)
        raise ValueError(
            f"'asked' holds the {unknown} {name!r}" + (f"; did you mean {near!r}?" if near else "")
        )
    return {name: by_name[name].read(value) for name, value in values.items()}


def _check_inside(name: str) -> None:
    """A file of the kit, and of nowhere else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} does not lie within the kit")


def _check_file(folder: Path, name: str, sha256: str) -> None:
    """Refuse a file that is missing, that is none of the kit's, or another than the one that was written."""
    path, total = folder / name, hashlib.sha256()
    try:
        with regular_file(path, folder).open("rb") as file:
            while part := file.read(1 << 20):
                total.update(part)
    except OSError as error:
        raise BackendError(
            f"cannot read {path}, which the kit needs: {error.strerror}", remedy=_AGAIN
        ) from None
    except ValueError as error:
        raise BackendError(f"{path}, which the kit needs, {error}", remedy=_AGAIN) from None
    if total.hexdigest() != sha256:
        raise BackendError(
            f"{path} is not the file that the kit was made with: its sha256 differs", remedy=_AGAIN
        )
