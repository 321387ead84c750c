"""A network in fewer bits: precision lives in the ONNX file, since TensorRT 11 and RTX take it from nowhere else.

fp16: every weight, and the input and the output too. int8: QDQ with symmetric int8, per channel, biases left in float,
which is what both ONNX Runtime and TensorRT read; ranges from the tiny set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from practise_deploy.model.images import FitImages
from practise_deploy.model.values import batches

QUANTISED = ("Conv", "Gemm", "Add")
_CALIBRATED = 256  # images at most, since each is a run of the whole network


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16, input and output included."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return convert_float_to_float16(copy, keep_io_types=False, op_block_list=[])


def to_int8(model: onnx.ModelProto, images: FitImages) -> onnx.ModelProto:
    """The network with int8 convolutions, products and sums; ranges are the least and largest values over the images.

    Shapes: model's input (batch, channels, height, width), a dynamic batch is fed one image at a time.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(prefix="practise-") as folder:
        plain, shaped, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "shaped", "quantised"))
        onnx.save(model, plain)
        quant_pre_process(plain, shaped, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            shaped,
            quantised,
            _reader(_pixels(images, model)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
            },
        )
        return onnx.load(quantised)


def _pixels(images: FitImages, model: onnx.ModelProto) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Batches as the network takes them; the last one is filled up with copies."""
    given = model.graph.input[0]
    batch = given.type.tensor_type.shape.dim[0].dim_value or 1
    for part in batches(min(len(images), _CALIBRATED), batch):
        found = images.batch(part).numpy()
        padding = np.repeat(found[-1:], batch - len(found), axis=0)
        yield {given.name: np.ascontiguousarray(np.concatenate([found, padding]))}


def _reader(feeds: Iterator[dict[str, npt.NDArray[np.float32]]]) -> Any:
    """The batches as ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return next(feeds, None)

    return Reader()
