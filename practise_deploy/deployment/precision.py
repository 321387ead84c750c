"""A network in fewer bits: precision lives in the ONNX file, since TensorRT 11 and RTX take it from nowhere else.

fp16: every weight, and the input and the output too. int8: QDQ, per channel, ranges from the tiny set. TensorRT reads
symmetric int8 with biases in float; ONNX Runtime's processors multiply unsigned activations with signed weights, and its
integer convolutions take integer biases. A network in the other's form runs, but slowly (measured on EfficientNet-Lite0 with
ONNX Runtime: half the time of float32 in its own form, more than twice in TensorRT's).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter

from practise_backends.choices import Precision
from practise_backends.errors import lacks_memory
from practise_backends.files import temporary_folder
from practise_deploy.deployment.float_operators import GIVE_FLOAT, kept_in_float
from practise_deploy.deployment.integer_forms import for_integers
from practise_deploy.deployment.verify import feeds_of, filled
from practise_deploy.errors import InputError, first_line
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import batches
from practise_deploy.network.graph.onnx_graph import quiet
from practise_deploy.network.onnx_import.file import images_of

SYMMETRIC = ("Conv", "Gemm", "Add")
_SCALES_BY_CHANNEL = 13
FLOAT_PRODUCTS: dict[str, Any] = {
    "QDQKeepRemovableActivations": True,
    "OpTypesToExcludeOutputQuantization": list(GIVE_FLOAT),
}
_IN_FLOAT = ("InstanceNormalization", "GroupNormalization")
_CALIBRATED = 256  # images at most, since each is a run of the whole network

Feeds = dict[str, npt.NDArray[Any]]


def in_precision(
    model: onnx.ModelProto, precision: Precision, images: FitImages | None, *, symmetric: bool
) -> onnx.ModelProto:
    """The network in fp32, fp16 or int8. symmetric: int8 as TensorRT reads it, else as ONNX Runtime is fast at.

    images: for the ranges of int8; None takes noise, where only the speed matters, which ranges do not change.
    """
    if precision == Precision.FP16:
        return to_fp16(model)
    return to_int8(model, images, symmetric=symmetric) if precision == Precision.INT8 else model


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16, input and output included."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return convert_float_to_float16(copy, keep_io_types=False, op_block_list=[])


def to_int8(model: onnx.ModelProto, images: FitImages | None, *, symmetric: bool) -> onnx.ModelProto:
    """The network with int8 weights and activations, but for what `float_operators` names; ranges are the least and largest values over the images.

    Shapes: model's input (batch, channels, height, width), a dynamic batch is fed one image at a time.
    Raises: InputError where ONNX Runtime's quantiser cannot take it.
    """
    try:
        with quiet():
            recent = _of_recent_opset(model)
            return _quantised(recent if symmetric else for_integers(recent), images, symmetric=symmetric)
    except Exception as error:  # whatever an operator makes it raise
        if lacks_memory(error):
            raise
        raise InputError(
            f"the network cannot be converted to int8: ONNX Runtime's quantiser says: {first_line(error)}",
            remedy="give --precision fp32",
        ) from error


def _quantised(model: onnx.ModelProto, images: FitImages | None, *, symmetric: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with temporary_folder() as folder:
        original, shaped, quantised = (folder / f"{name}.onnx" for name in ("plain", "shaped", "quantised"))
        onnx.save(_with_names(model), original)
        quant_pre_process(original, shaped, skip_optimization=True, skip_symbolic_shape=True)
        in_float = kept_in_float(onnx.load(shaped).graph)
        quantize_static(
            shaped,
            quantised,
            _reader(_noise(model) if images is None else _samples(images, model)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[node.name for node in in_float],
            op_types_to_quantize=list(SYMMETRIC) if symmetric else _operators(model),
            extra_options=_symmetric() if symmetric else FLOAT_PRODUCTS,
        )
        return onnx.load(quantised)


def operators_in_float(model: onnx.ModelProto, *, symmetric: bool) -> Counter[str]:
    """How many operators of which kind `to_int8` keeps in float."""
    graph = model.graph if symmetric else for_integers(_of_recent_opset(model)).graph
    return Counter(node.op_type for node in kept_in_float(graph))


def _with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with a name for every operator, its own or that of its first output: the quantiser knows them by it."""
    taken = {node.name for node in model.graph.node}
    if "" not in taken and len(taken) == len(model.graph.node):
        return model
    named, seen = onnx.ModelProto(), set[str]()
    named.CopyFrom(model)
    for node in named.graph.node:
        if not node.name or node.name in seen:
            node.name = f"{node.op_type} of {node.output[0]}"
        seen.add(node.name)
    return named


def _of_recent_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in an opset whose integers may have a scale for each channel; an older file's operators are converted by onnx."""
    (opset,) = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    return model if opset >= _SCALES_BY_CHANNEL else onnx.version_converter.convert_version(model, _SCALES_BY_CHANNEL)


def _operators(model: onnx.ModelProto) -> list[str] | None:
    """The operators to quantise: None for all; the quantiser claims group and instance norms too, but fails on them."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    if not any(node.op_type in _IN_FLOAT for node in model.graph.node):
        return None
    return sorted({*QDQRegistry, *QLinearOpsRegistry}.difference(_IN_FLOAT))


def _symmetric() -> dict[str, Any]:
    """Zero points of 0, float biases, and no range on an output whose consumer has one."""
    return {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": list(SYMMETRIC),
    }


def _samples(images: FitImages, model: onnx.ModelProto) -> Iterator[Feeds]:
    """Batches of at most `_CALIBRATED` images, sampled at random since files are sorted by class; the last is filled with copies."""
    value = images_of(model)[0]
    batch, drawn = _shape(value)[0], images.subsample(_CALIBRATED, seed=0)
    for part in batches(len(drawn), batch):
        feeds = feeds_of(drawn.batch(part), value.name, drawn.preprocessing)
        yield {name: np.ascontiguousarray(filled(array, batch)) for name, array in feeds.items()}


def _noise(model: onnx.ModelProto) -> Iterator[Feeds]:
    """One batch of Gaussian noise; whole numbers are 0 or 1."""
    rng = np.random.default_rng(0)
    feeds: Feeds = {}
    for value in images_of(model):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.standard_normal(_shape(value))
        feeds[value.name] = (drawn if dtype.kind == "f" else drawn > 0).astype(dtype)
    yield feeds


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """An input's shape, with a dynamic batch as 1; some exporters write -1 for it."""
    return tuple(max(1, dimension.dim_value) for dimension in value.type.tensor_type.shape.dim)


def _reader(feeds: Iterator[Feeds]) -> Any:
    """The batches as ONNX Runtime's calibration data reader."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feeds | None:
            return next(feeds, None)

    return Reader()
