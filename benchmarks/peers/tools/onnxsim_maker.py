"""onnxsim's structured pruning by weights and activations (Wanda), and the ridge that it offers for what is left."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxsim

place, file, share = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
original = onnx.load(place / "original.onnx")
batches = [{"input": image[None]} for image in np.load(place / "calibration.npy")]
pruned = onnxsim.apply_structured_wanda_pruning(original, calibration_data=batches, sparsity=share)
onnx.save(onnxsim.apply_pruning_finetune(original, pruned, calibration_data=batches), file)
print(json.dumps({"onnxsim": onnxsim.__version__}))
