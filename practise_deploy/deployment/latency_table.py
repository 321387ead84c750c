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
from practise_backends.errors import BackendError
from practise_backends.files import read_text
from practise_backends.parsing import parsed
from practise_backends.results import documents
from practise_backends.terms import SCHEMA, Conditions, Interval, LatencyTable
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.settings import flag_of


def write_table(table: LatencyTable, path: Path) -> tuple[Path, Path]:
    """A table as a portable file, and its raw samples beside it as .npz; gives both paths.

    Raises: InputError where the path is that of the samples; EnvironmentProblem where it cannot be written.
    """
    with _written_to(path):
        return documents.write_table(table, path)


def check_place(path: Path) -> None:
    """Refuse at once a place that a table could not be written to after minutes of measuring.

    Raises: as `write_table`.
    """
    with _written_to(path):
        check_places(path, documents.samples_beside(path))


@contextmanager
def _written_to(path: Path) -> Iterator[None]:
    try:
        yield
    except BackendError as error:
        raise InputError(error.message, remedy=error.remedy) from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}", remedy="choose another place") from None


def read_table(path: Path) -> LatencyTable:
    """A table that was written here or on another device; its raw samples stay where they are.

    Raises: InputError where the file is no latency table of this schema.
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
    """What no measurement can have given."""
    for place, found in _intervals(table):
        if not (found.low <= found.estimate <= found.high and 0 < found.confidence < 1):
            yield f"{place} is no interval around its estimate"
    for place, least in (("baseline_ms", table.baseline_ms.low), ("aa_ratio", table.aa_ratio.low)):
        if least <= 0:
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
    """Every interval of a record and of the records inside it, with its place."""
    if isinstance(value, Interval):
        yield place, value
    elif is_dataclass(value):
        for one in fields(value):
            yield from _intervals(getattr(value, one.name), f"{place}.{one.name}".lstrip("."))
    elif isinstance(value, tuple):
        for at, each in enumerate(value):
            yield from _intervals(each, f"{place}.{at}")


def table_schema() -> str:
    """The JSON Schema of a table's file; docs/latency-table.schema.json holds it."""
    found = TypeAdapter(LatencyTable).json_schema(mode="serialization")
    found["properties"].pop("samples")  # they lie beside the table
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(found, indent=1) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a plan needs a table to be of. input_shape: with the batch. here: fingerprint of the device at hand, empty
    where it is not. ahead: the GPUs that it is built ahead for, of which the table alone says how fast they are.
    """

    blocks: tuple[str, ...]
    input_shape: tuple[int, ...]
    backend: str
    conditions: Conditions
    structure_sha256: str
    here: str
    ahead: tuple[str, ...] = ()

    def is_at_hand(self, table: LatencyTable) -> bool:
        """Whether the table is of this device and backend, so that a plan can be measured."""
        return table.device.fingerprint == self.here and table.backend == self.backend


def check_table(table: LatencyTable, wanted: Wanted, path: Path) -> None:
    """Refuse a table of another network, another input or, for the same backend, other conditions.

    Raises: InputError.
    """
    own, told = set(wanted.blocks), {saving.block for saving in table.savings}
    strangers = sorted(told - own)
    if strangers or not told:
        raise InputError(
            f"{path} was measured on another network ({table.network}): this one has no droppable block "
            f"'{strangers[0] if strangers else ''}'",
            remedy="give the table of this network",
        )
    if own - told:
        raise InputError(
            f"{path} lacks block '{min(own - told)}' of this network",
            remedy="measure the table with this version again",
        )
    if tuple(table.input_shape) != tuple(wanted.input_shape):
        raise InputError(
            f"{path} was measured with input {list(table.input_shape)}, this network has {list(wanted.input_shape)}",
            remedy="use the --batch and --input-size that the table was measured with",
        )
    _check_device(table, wanted, path)
    if table.structure_sha256 and table.structure_sha256 != wanted.structure_sha256:
        raise InputError(
            f"{path} was measured on another network ({table.network}): its blocks differ from this one's",
            remedy="give the table of this network",
        )
    _check_conditions(table, wanted, path)


def _check_device(table: LatencyTable, wanted: Wanted, path: Path) -> None:
    """What is built ahead was measured by the same backend, on one of the GPUs that it is for."""
    if wanted.ahead and table.backend != wanted.backend:
        raise InputError(
            f"{path} was measured with backend '{table.backend}', this build is for {wanted.backend}",
            remedy=f"measure it on the device with --backend {wanted.backend}",
        )
    capability = table.device.facts.get("compute_capability")
    if wanted.ahead and capability and capability not in wanted.ahead:
        raise InputError(
            f"{path} was measured on {table.device.name} ({capability}), this build is for {', '.join(wanted.ahead)}",
            remedy="give the table of such a GPU",
        )


def _check_conditions(table: LatencyTable, wanted: Wanted, path: Path) -> None:
    """Another precision is another network; what else is asked of a run says something of the same backend alone."""
    same = table.backend == wanted.backend
    for name in ("precision", *(("threads", "clock", "cuda_graph") if same else ())):
        theirs, ours = getattr(table.conditions, name), getattr(wanted.conditions, name)
        if theirs != ours:
            flag = flag_of(name)
            how = f"{'give' if theirs else 'leave out'} {flag}" if isinstance(theirs, bool) else f"give {flag} {theirs}"
            raise InputError(
                f"{path} was measured with {name} {theirs}, this build is for {name} {ours}",
                remedy=f"{how}, or the table of that",
            )
