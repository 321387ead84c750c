"""Small ONNX files, and what ONNX Runtime computes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from practise_deploy.network.onnx_import.file import OnnxFile, images_of, read_onnx
from practise_deploy.network.onnx_import.translate import Translation, translate

Array = np.ndarray
Weights = Mapping[str, Array]


def noise(*shape: int, seed: int = 0) -> Array:
    """Seeded normal noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    """int64 numbers, as shapes and axes are."""
    return np.array(values, np.int64)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Weights,
    *,
    opset: int = 17,
    shape: Sequence[int | str] = (3, 8, 8),
    batch: int | str = "n",
) -> onnx.ModelProto:
    """A network from 'images' to 'result'. Shapes: shape of one image as the file has it."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, *shape])
    result = helper.make_empty_tensor_value_info("result")
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "graph", [images], [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    kind = {"tensor(float)": TensorProto.FLOAT, "tensor(int64)": TensorProto.INT64, "tensor(bool)": TensorProto.BOOL}
    sides = [batch if at == 0 else side for at, side in enumerate(output.shape)]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("result", kind[output.type], sides))
    return model


def quiet() -> onnxruntime.SessionOptions:
    """One thread, nothing optimised, nothing said."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def computed(model: onnx.ModelProto, images: Array) -> list[Array]:
    """What ONNX Runtime computes; image by image where the file is for one. Shapes: images as the file has them."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet(), providers=["CPUExecutionProvider"])
    batch = images_of(model)[0].type.tensor_type.shape.dim[0].dim_value or len(images)
    name = images_of(model)[0].name
    runs = [session.run(None, {name: images[at : at + batch]}) for at in range(0, len(images), batch)]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def read(model: onnx.ModelProto, folder: Path, layout: str | None = None) -> OnnxFile:
    """The model, written and read as a user's file."""
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return read_onnx(path, layout)


def translated(model: onnx.ModelProto, folder: Path, size: tuple[int, int] | None = None) -> Translation:
    """The network of a model in torch. size: height and width where the file leaves them open."""
    file = read(model, folder)
    channels, height, width = file.shape
    height, width = (height, width) if size is None else size
    assert channels is not None and height is not None and width is not None
    return translate(file, (channels, height, width))


def in_torch(translation: Translation, images: Array) -> Array:
    """What the translated network computes. Shapes: images as the file has them."""
    pixels = torch.from_numpy(images)
    pixels = pixels.permute(0, 3, 1, 2) if translation.file.layout == "nhwc" else pixels
    with torch.inference_mode():
        return translation.network(pixels).numpy()
