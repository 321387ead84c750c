"""Latency tables as portable files: written on one device, planned with on another. Needs no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from practise_backends.cli.commands import check_places
from practise_backends.errors import EnvironmentProblem
from practise_backends.files import read_text
from practise_backends.parsing import parsed
from practise_backends.results import documents
from practise_backends.terms import SCHEMA, Conditions, Interval, LatencyTable
from practise_deploy.errors import InputError
from practise_deploy.settings import flag_of


def write_table(table: LatencyTable, path: Path) -> tuple[Path, Path]:
    """Write a table as a portable file and its raw samples next to it as .npz; gives both paths.

    Raises: InputError where the path is that of the samples; EnvironmentProblem where it cannot be written.
    """
    with _written_to(path):
        return documents.write_table(table, path)


def check_place(path: Path) -> None:
    """Refuse a path that cannot be written to before minutes of measuring.

    Raises: as `write_table`.
    """
    with _written_to(path):
        check_places(path, documents.samples_path(path))


@contextmanager
def _written_to(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}", remedy="choose another place") from None


def read_table(path: Path) -> LatencyTable:
    """Read a table that was written on this or another device, without its raw samples.

    Raises: InputError where the file is not a latency table of this schema.
    """
    try:
        text = read_text(path)
        schema = parsed(text).get("schema")
    except OSError as error:
        raise InputError(f"cannot read the latency table {path}: {error.strerror}", remedy="check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise InputError(
            f"{path} is no latency table: it does not hold one JSON object",
            remedy="make one with: practise-deploy latency",
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path} is no latency table: {error}", remedy="make one with: practise-deploy latency"
        ) from None
    if schema is None:
        raise InputError(
            f"{path} is no latency table: it states no schema", remedy="make one with: practise-deploy latency"
        )
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}; this version reads {SCHEMA}", remedy="measure it again with this version"
        )
    try:
        table = TypeAdapter(LatencyTable).validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(
            f"{path} is no whole latency table: {where or 'the document'}: {problem['msg'].lower()}",
            remedy="make one with: practise-deploy latency",
        ) from None
    if contradiction := next(_contradictions(table), ""):
        raise InputError(
            f"{path} is no latency table that a measurement gave: {contradiction}", remedy="measure it again"
        )
    return table


def _contradictions(table: LatencyTable) -> Iterator[str]:
    """Contradictions that no measurement can produce."""
    for place, interval in _intervals(table):
        if not (interval.low <= interval.estimate <= interval.high and 0 < interval.confidence < 1):
            yield f"{place} is no interval around its estimate"
    for place, lower_bound in (("baseline_ms", table.baseline_ms.low), ("aa_ratio", table.aa_ratio.low)):
        if lower_bound <= 0:
            yield f"{place} is not above 0"
    for place, size in (("resolution_ms", table.resolution_ms), ("session_percent", table.session_percent)):
        if size < 0:
            yield f"{place} is below 0"
    for block, times in Counter(saving.block for saving in table.savings).items():
        if times > 1:
            yield f"block '{block}' is there {times} times"
    for saving in table.savings:
        if saving.reduction_percent.high > 100:
            yield f"without block '{saving.block}' more than all of the latency is saved"


def _intervals(value: object, place: str = "") -> Iterator[tuple[str, Interval]]:
    """Every interval of a record and its nested records, with its path."""
    if isinstance(value, Interval):
        yield place, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _intervals(getattr(value, field.name), f"{place}.{field.name}".lstrip("."))
    elif isinstance(value, tuple):
        for index, element in enumerate(value):
            yield from _intervals(element, f"{place}.{index}")


def table_schema() -> str:
    """The JSON Schema of a table's file, as in docs/latency-table.schema.json."""
    schema = TypeAdapter(LatencyTable).json_schema(mode="serialization")
    schema["properties"].pop("samples")  # stored in a file next to the table
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRequirements:
    """What a table must match to plan with it. input_shape: with the batch. device_fingerprint: of the local device, empty if
    it is not available. target_archs: the GPUs that the engine is cross-built for, whose speed only the table knows.
    """

    blocks: tuple[str, ...]
    input_shape: tuple[int, ...]
    backend: str
    conditions: Conditions
    structure_sha256: str
    device_fingerprint: str
    target_archs: tuple[str, ...] = ()

    def is_local(self, table: LatencyTable) -> bool:
        """Whether the table is of the local device and backend, so that a plan can be measured."""
        return table.device.fingerprint == self.device_fingerprint and table.backend == self.backend


def check_table(table: LatencyTable, requirements: TableRequirements, path: Path) -> None:
    """Refuse a table of another network, another input or, for the same backend, other conditions.

    Raises: InputError.
    """
    network_blocks, table_blocks = set(requirements.blocks), {saving.block for saving in table.savings}
    unknown = sorted(table_blocks - network_blocks)
    if unknown or not table_blocks:
        raise InputError(
            f"{path} was measured on another network ({table.network}): this one has no droppable block "
            f"'{unknown[0] if unknown else ''}'",
            remedy="give the table of this network",
        )
    if network_blocks - table_blocks:
        raise InputError(
            f"{path} lacks block '{min(network_blocks - table_blocks)}' of this network",
            remedy="measure the table with this version again",
        )
    if tuple(table.input_shape) != tuple(requirements.input_shape):
        raise InputError(
            f"{path} was measured with input {list(table.input_shape)}, this network has {list(requirements.input_shape)}",
            remedy="use the --batch and --input-size that the table was measured with",
        )
    _check_device(table, requirements, path)
    if table.structure_sha256 and table.structure_sha256 != requirements.structure_sha256:
        raise InputError(
            f"{path} was measured on another network ({table.network}): its blocks differ from this one's",
            remedy="give the table of this network",
        )
    _check_conditions(table, requirements, path)


def _check_device(table: LatencyTable, requirements: TableRequirements, path: Path) -> None:
    """The table of a cross-built engine must be of the same backend and one of its target GPUs."""
    if requirements.target_archs and table.backend != requirements.backend:
        raise InputError(
            f"{path} was measured with backend '{table.backend}', this build is for {requirements.backend}",
            remedy=f"measure it on the device with --backend {requirements.backend}",
        )
    capability = table.device.facts.get("compute_capability")
    if requirements.target_archs and capability and capability not in requirements.target_archs:
        raise InputError(
            f"{path} was measured on {table.device.name} ({capability}), this build is for {', '.join(requirements.target_archs)}",
            remedy="give the table of such a GPU",
        )


def _check_conditions(table: LatencyTable, requirements: TableRequirements, path: Path) -> None:
    """The precision must match; threads, clock and CUDA graph must match within one backend."""
    same = table.backend == requirements.backend
    for name in ("precision", *(("threads", "clock", "cuda_graph") if same else ())):
        theirs, ours = getattr(table.conditions, name), getattr(requirements.conditions, name)
        if theirs != ours:
            flag = flag_of(name)
            how = f"{'give' if theirs else 'leave out'} {flag}" if isinstance(theirs, bool) else f"give {flag} {theirs}"
            raise InputError(
                f"{path} was measured with {name} {theirs}, this build is for {name} {ours}",
                remedy=f"{how}, or the table of that",
            )
