"""How a file says that its images are to be scaled: in its metadata, or by what it does with them first."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from practise_deploy.network.onnx_import.file import OnnxFile

_BYTES_ABOVE = 2.0
"""A mean or a deviation above this is one of pixels from 0 to 255."""


@dataclass(frozen=True, slots=True)
class StatedInput:
    """What a file says about its input, in timm's form, and in words."""

    config: Mapping[str, Any]
    notes: tuple[str, ...]


def stated_input(file: OnnxFile) -> StatedInput:
    """What the metadata say, else what a normalisation within the network implies; nothing where there is neither."""
    metadata = {entry.key: entry.value for entry in file.model.metadata_props}
    config: dict[str, Any] = {}
    notes: list[str] = []
    if "imgsz" in metadata and "stride" in metadata:  # Ultralytics' own keys
        size = _numbers(metadata["imgsz"])
        if len(size) == 2 and file.shape[1] is None:
            config["input_size"] = (file.shape[0] or 3, int(size[0]), int(size[1]))
        channels = file.shape[0] or 3
        config |= {"mean": (0.0,) * channels, "std": (1.0,) * channels, "crop_mode": "squash", "crop_pct": 1.0}
        notes.append(
            "scaled as Ultralytics' metadata in the file imply: pixels over 255; squashed to the input, not padded"
        )
    for name in ("mean", "std"):
        if values := _numbers(metadata.get(name, "")):
            config[name] = tuple(values)
            notes.append(f"{name} {tuple(values)} stands in the file's metadata")
    if "mean" not in config and "std" not in config and (found := _normalisation(file)) is not None:
        scaled, where = found
        channels = file.shape[0] or 3
        config |= {"mean": (0.0,) * channels, "std": (1 / 255 if scaled else 1.0,) * channels}
        span = "0 to 255" if scaled else "0 to 1"
        notes.append(f"the network normalises its images itself (node {where}): it is given pixels from {span}")
    return StatedInput(config, tuple(notes))


def _numbers(text: str) -> list[float]:
    """The numbers of a list in text; none where it is no such list."""
    try:
        values = ast.literal_eval(text)
        return [float(value) for value in values]
    except (ValueError, SyntaxError, TypeError):
        return []


def _normalisation(file: OnnxFile) -> tuple[bool, str] | None:
    """Whether the network takes bytes, where it scales and shifts its images first, and the last node that does; None where none does."""
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in file.model.graph.initializer}
    for node in file.model.graph.node:
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is not None:
                constants[node.output[0]] = onnx.numpy_helper.to_array(value)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in file.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    value, last = file.inputs[0].name, ""
    scale: Any = 1.0
    shift: Any = 0.0
    while len(readers.get(value, [])) == 1:
        node = readers[value][0]
        constant = next((constants[name] for name in node.input if name in constants), None)
        if node.op_type == "Transpose" or (node.op_type == "Cast" and constant is None):
            value = node.output[0]
            continue
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or constant is None or constant.size not in (1, 3, 4):
            break
        number = constant.reshape(-1).astype(np.float64)
        if node.op_type in ("Mul", "Div"):
            factor = number if node.op_type == "Mul" else 1 / number
            scale, shift = scale * factor, shift * factor
        else:
            shift = shift + (number if node.op_type == "Add" else -number)
        value, last = node.output[0], node.name or node.output[0]
    if not last or not np.all(scale):
        return None
    return bool(max(np.abs(shift / scale).max(), np.abs(1 / scale).max()) > _BYTES_ABOVE), last
