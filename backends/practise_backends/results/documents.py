"""Records as JSON documents, and their raw samples as .npz next to them: one writer for both packages."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from practise_backends.errors import BackendError
from practise_backends.files import write_file
from practise_backends.terms import Arrays, LatencyTable


def to_json(record: object, **records: object) -> str:
    """A record as JSON; arrays, its own and those of records inside it, stay out; what is no number is null.

    records: further records, which become keys of the document.
    """
    further = {name: as_document(other) for name, other in records.items()}
    return json.dumps(numbers(as_document(record) | further), indent=1, allow_nan=False)


def as_document(value: Any) -> Any:
    """A record as dictionaries, lists and numbers."""
    if dataclasses.is_dataclass(value):
        skip = array_fields(value)
        return {
            f.name: as_document(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.name not in skip
        }
    if isinstance(value, dict):
        return {str(key): as_document(element) for key, element in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_document(element) for element in value]
    return str(value) if isinstance(value, Path) else value


def numbers(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): numbers(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def array_fields(record: object) -> list[str]:
    """The fields that hold arrays, which a document leaves to an .npz file."""
    return [f.name for f in dataclasses.fields(cast(Any, record)) if f.type in (Arrays, "Arrays")]


def npz_of(arrays: Arrays) -> bytes:
    """Arrays as the content of one .npz."""
    with tempfile.SpooledTemporaryFile(max_size=1 << 28) as buffer:
        np.savez(buffer, **cast(Any, arrays))
        buffer.seek(0)
        return buffer.read()


def samples_path(table: Path) -> Path:
    """Where the raw samples of a table's file lie.

    Raises: BackendError where that is the table's own place.
    """
    samples = table.with_suffix(".npz")
    if samples == table:
        raise BackendError(
            f"{table}: the table is JSON, its samples are .npz",
            remedy="name the table, for instance table.json",
        )
    return samples


def write_table(table: LatencyTable, path: Path) -> tuple[Path, Path]:
    """A table as a portable file, and its raw samples beside it as .npz; gives both paths.

    Raises: BackendError where the path is that of the samples; OSError.
    """
    samples = samples_path(path)
    write_file(samples, npz_of(table.samples))
    write_file(path, to_json(table))
    return path, samples
