"""The layers that an engine consists of, and in which type each computes.

Two sources: the engine inspector's JSON, which takes a GPU, and the builder's message `Layers:`, which does not.
The message is undocumented: a line that does not read so is left out, and without any the share is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from practise_backends.parsing import parsed
from practise_backends.runtimes.precision import Share

HEADING = "Layers:"

_TYPES = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}
_WORDS = {  # how formats of the inspector of TensorRT 10 name a type
    "fp32": "Float",
    "fp16": "Half",
    "bf16": "BFloat16",
    "bfloat16": "BFloat16",
    "int8": "Int8",
    "fp8": "FP8",
    "float": "Float",
    "half": "Half",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
}
_MOVES = ("kgen", "reformat", "shuffle", "signal", "wait", "shape_call", "noop")

_LINE = re.compile(r"Name: (?P<name>[^,]*), LayerType: (?P<kind>[^,]*), (?P<rest>.*)")
_PART = re.compile(
    r"(Inputs|Constants|Outputs): \[(.*?)\](?=, (?:Constants|Outputs|TacticName|StreamId|Metadata)\b|$)"
)
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLayer:
    """One layer of an engine. inputs, outputs: their types (`Half`); nodes: the ONNX nodes that it came from."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def layers_of_message(message: str) -> tuple[FusedLayer, ...]:
    """The layers of the builder's message that starts with `Layers:`."""
    return tuple(_of_lines(message.splitlines()))


def layers_of_inspector(text: str) -> tuple[FusedLayer, ...]:
    """The layers of the engine inspector's JSON; empty where the engine was built without details."""
    try:
        entries = parsed(text).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_of_entry(entry) for entry in entries if isinstance(entry, dict))


def share_in(precision: str, arithmetic: Sequence[str], layers: Sequence[FusedLayer]) -> Share:
    """The share of the arithmetic nodes whose layer takes its first input in that precision.

    arithmetic: names of the ONNX nodes that multiply (Conv, Gemm, MatMul); one that no layer names counts as none.
    """
    types = {node: _type_of(node, layers) for node in arithmetic}
    if not any(types.values()):
        return Share(share=None, others={})
    others = {node: kind or "unknown" for node, kind in types.items() if kind != _TYPES[precision]}
    return Share(share=1 - len(others) / len(types), others=others)


def _of_lines(lines: Sequence[str]) -> Iterator[FusedLayer]:
    for line in lines:
        if (match := _LINE.fullmatch(line)) is None:
            continue
        parts = dict(_PART.findall(match["rest"]))
        yield FusedLayer(
            name=match["name"],
            kind=match["kind"],
            inputs=tuple(_TYPE.findall(parts.get("Inputs", ""))),
            outputs=tuple(_TYPE.findall(parts.get("Outputs", ""))),
            nodes=tuple(_NODE.findall(match["rest"])),
        )


def _of_entry(entry: Mapping[str, Any]) -> FusedLayer:
    return FusedLayer(
        name=str(entry.get("Name", "")),
        kind=str(entry.get("LayerType", "")),
        inputs=_types(entry.get("Inputs", ())),
        outputs=_types(entry.get("Outputs", ())),
        nodes=tuple(_NODE.findall(str(entry.get("Metadata", "")))),
    )


def _types(tensors: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The types of an inspector's tensors: a key of its own, or a word of the format's description."""
    types = []
    for tensor in tensors:
        description = str(
            tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format") or ""
        )
        words = (_WORDS.get(word.lower()) for word in re.findall(r"\w+", description))
        types.append(next((word for word in words if word), description))
    return tuple(types)


def _type_of(node: str, layers: Sequence[FusedLayer]) -> str:
    """The type in which a node is computed; empty where no layer tells.

    A node may be in several layers, since casts and copies around it carry its name too. The layer that is named after
    it computes it; else the one that does more than move.
    """
    containing = [layer for layer in layers if node in layer.nodes and layer.inputs]
    named = [layer for layer in containing if re.match(rf"{re.escape(node)}(?!\d)", layer.name)]
    working = [layer for layer in containing if layer.kind.lower() not in _MOVES]
    return next((layer.inputs[0] for layer in named or working or containing), "")
