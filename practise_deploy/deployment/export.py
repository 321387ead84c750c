"""The student as an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx

from practise_deploy.errors import InputError, first_line
from practise_deploy.outcome import ExportedModel
from practise_deploy.run import write_atomically


def write_onnx(
    model: onnx.ModelProto, path: Path, *, dynamic_batch: bool, in_float: Mapping[str, int] | None = None
) -> ExportedModel:
    """Write a network, checked, atomically. in_float: how many operators of which kind an int8 network keeps in float.

    Raises: InputError where it is no valid ONNX.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise InputError(
            f"the exported network is not valid ONNX ({path.name}): {first_line(error)}",
            remedy="give --precision fp32, or replace the operator that is named by one that ONNX has",
        ) from None
    content = model.SerializeToString()
    write_atomically(path, content)
    return ExportedModel(
        path=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        opset=max(opset.version for opset in model.opset_import if not opset.domain),
        nodes=len(model.graph.node),
        dynamic_batch=dynamic_batch,
        in_float=dict(in_float or {}),
    )
