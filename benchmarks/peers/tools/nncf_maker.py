"""NNCF's post-training quantisation with its own defaults."""

import json
import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
import onnxruntime

place, file = Path(sys.argv[1]), Path(sys.argv[2])
images = np.load(place / "calibration.npy")
dataset = nncf.Dataset([{"input": image[None]} for image in images])
onnx.save(nncf.quantize(onnx.load(place / "original.onnx"), dataset, subset_size=len(images)), file)
print(json.dumps({"nncf": nncf.__version__, "onnxruntime": onnxruntime.__version__}))
