"""An ONNX file's graph and inputs, read from its protobuf bytes without the `onnx` package.

Source: the protobuf encoding guide, and the field numbers of onnx/onnx.proto3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from practise_backends.errors import CompileError
from practise_backends.files import why_no_file
from practise_backends.terms import TensorSpec

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
_HOLDS: dict[str, dict[int, str]] = {  # which fields of a message hold tensors, or what holds some
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
ARITHMETIC = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

Value = int | memoryview
Field = tuple[int, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of the main graph; `cast_to` is the target of a Cast, or empty."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    cast_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A constant tensor."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The main graph of an ONNX file: subgraphs and local functions are not read.

    weight_files: what any tensor of the whole file, theirs too, names as the place of its data; sorted.
    """

    nodes: tuple[Node, ...]
    weights: tuple[Weight, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weight_files: tuple[str, ...] = ()


def content_of(model: bytes | Path) -> bytes:
    """The bytes of a network, given as such or as its file.

    Raises: CompileError where it is no regular file, which might never end, or cannot be read.
    """
    if isinstance(model, bytes):
        return model
    if problem := why_no_file(model):
        raise CompileError(problem, remedy="give the path of a network's file")
    try:
        return model.read_bytes()
    except OSError as error:
        raise CompileError(
            f"{model} cannot be read: {error.strerror}", remedy="check its permissions"
        ) from error


def read_network(content: bytes) -> Network:
    """Read the main graph of an ONNX file.

    Raises: CompileError where the bytes are not an ONNX network.
    """
    try:
        graphs = [value for number, value in _fields(memoryview(content)) if number == 7]
        if not graphs:
            raise ValueError("it holds no graph")
        network = _network(list(_fields(_message(graphs[0]))))
        return dataclasses.replace(network, weight_files=_weight_files(content))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise CompileError(
            f"these {len(content)} bytes are not an ONNX network: {error}",
            remedy="give a file that an ONNX exporter wrote",
        ) from error


def label_of(model: bytes | Path) -> str:
    """What to call a network in a message."""
    return str(model) if isinstance(model, Path) else "the network given as bytes"


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch that a network was exported with; None where the first dimension of an input is dynamic.

    A fixed batch is the first dimension of the first input that is not a scalar (1 where all are).
    """
    firsts = [spec.shape[0] for spec in inputs if spec.shape]
    return None if -1 in firsts else next(iter(firsts), 1)


def _network(graph: Sequence[Field]) -> Network:
    """The records of one GraphProto."""
    weights = [_weight(_message(value)) for number, value in graph if number == 5]
    nodes = []
    for number, value in graph:
        if number == 1:
            node, constant = _node(_message(value))
            nodes.append(node)
            weights.extend(constant)
    constants = {weight.name for weight in weights}
    inputs = [_spec(_message(value)) for number, value in graph if number == 11]
    return Network(
        nodes=tuple(nodes),
        weights=tuple(weights),
        inputs=tuple(spec for spec in inputs if spec.name not in constants),
        outputs=tuple(_spec(_message(value)) for number, value in graph if number == 12),
    )


def _node(message: memoryview) -> tuple[Node, list[Weight]]:
    """One NodeProto, and the weight that it is when it is a Constant."""
    fields = list(_fields(message))
    op = "".join(_texts(fields, 4))
    outputs = _texts(fields, 2)
    attributes = [dict(_fields(_message(value))) for number, value in fields if number == 5]
    tensors = [_weight(_message(attribute[5])) for attribute in attributes if 5 in attribute]
    weights = [dataclasses.replace(tensor, name=outputs[0]) for tensor in tensors if op == "Constant"]
    targets = [
        attribute.get(3) for attribute in attributes if op == "Cast" and _text(attribute.get(1)) == "to"
    ]
    cast_to = _DTYPES.get(targets[0], "") if targets and isinstance(targets[0], int) else ""
    name = "".join(_texts(fields, 3))
    return Node(op=op, inputs=_texts(fields, 1), outputs=outputs, name=name, cast_to=cast_to), weights


def _weight(message: memoryview) -> Weight:
    """One TensorProto, without its data."""
    name, dtype = "", ""
    for number, value in _fields(message):
        if number == 2 and isinstance(value, int):
            dtype = _DTYPES.get(value, f"type {value}")
        elif number == 8:
            name = _text(value)
    return Weight(name=name, dtype=dtype)


def _weight_files(content: bytes) -> tuple[str, ...]:
    """Every file that a tensor names, wherever in the network it is."""
    files = set()
    todo = [("model", memoryview(content))]
    while todo:
        kind, message = todo.pop()
        for number, value in _fields(message):
            inner = _HOLDS[kind].get(number)
            if inner is not None:
                todo.append((inner, _message(value)))
        if kind == "entry":
            entry = dict(_fields(message))
            files.update([_text(entry.get(2))] if _text(entry.get(1)) == "location" else [])
    return tuple(sorted(files))


def _spec(message: memoryview) -> TensorSpec:
    """One ValueInfoProto that holds a tensor."""
    fields = dict(_fields(message))
    holder = dict(_fields(_message(fields.get(2, memoryview(b"")))))
    tensor = dict(_fields(_message(holder.get(1, memoryview(b"")))))
    element = tensor.get(1, 0)
    dtype = _DTYPES.get(element, f"type {element}") if isinstance(element, int) else ""
    dims = _fields(_message(tensor.get(2, memoryview(b""))))
    shape = tuple(_dimension(_message(value)) for number, value in dims if number == 1)
    return TensorSpec(name=_text(fields.get(1)), shape=shape, dtype=dtype)


def _dimension(message: memoryview) -> int:
    """One dimension; -1 where it is dynamic."""
    value = dict(_fields(message)).get(1, -1)
    return value if isinstance(value, int) and value < 2**63 else -1


def _texts(fields: Sequence[Field], field_number: int) -> tuple[str, ...]:
    """The strings of a repeated field."""
    return tuple(_text(value) for number, value in fields if number == field_number)


def _text(value: Value | None) -> str:
    """A string field; absent is empty."""
    return str(value, "utf-8") if isinstance(value, memoryview) else ""


def _message(value: Value) -> memoryview:
    """A field that must hold a message."""
    if isinstance(value, int):
        raise ValueError("a number stands where a message belongs")
    return value


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of one protobuf message, in order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _size(message, at, wire)
        if at + size > len(message):
            raise ValueError("it is cut short")
        yield number, message[at : at + size]
        at += size


def _size(message: memoryview, at: int, wire: int) -> tuple[int, int]:
    """The bytes that a field's value takes, and where it begins."""
    if wire == 2:
        return _varint(message, at)
    if wire in (1, 5):
        return (8 if wire == 1 else 4), at
    raise ValueError("it is not in protobuf's encoding")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A variable-length number, and where the next byte lies."""
    value, shift = 0, 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if shift > 63:
            raise ValueError("it is not in protobuf's encoding")
    return value | message[at] << shift, at + 1
