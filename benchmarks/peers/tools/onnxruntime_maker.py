"""ONNX Runtime's static quantisation with its own defaults."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """One image at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._feeds = iter({"input": image[None]} for image in images)

    def get_next(self) -> dict | None:
        return next(self._feeds, None)


place, file = Path(sys.argv[1]), Path(sys.argv[2])
quant_pre_process(place / "original.onnx", place / "prepared.onnx")
quantize_static(place / "prepared.onnx", file, Reader(np.load(place / "calibration.npy")))
print(json.dumps({"onnxruntime": onnxruntime.__version__}))
