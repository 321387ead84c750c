"""A network in fewer bits computes nearly the same, and is written as TensorRT reads it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from networks import tiny_mobilenet, tiny_resnet
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.precision import in_precision, to_fp16, to_int8
from practise_deploy.errors import InputError
from practise_deploy.network.graph.onnx_graph import as_deployed, to_onnx, with_splices, without_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.terms import Block
from samples.lessons import MOBILENET, RESNET, images

NETWORKS = {"resnet": (tiny_resnet, RESNET), "mobilenet": (tiny_mobilenet, MOBILENET)}


@pytest.fixture(params=list(NETWORKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def exported(name: str, batch: int = 1, *, dynamic: bool = False) -> onnx.ModelProto:
    make, shape = NETWORKS[name]
    traced, _ = trace(make(), (batch, *shape[1:]))
    return to_onnx(traced, (batch, *shape[1:]), dynamic_batch=dynamic)


def outputs(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """By ONNX Runtime's plain operators, image by image."""
    backend = OrtBackend()
    artifact = backend.compile(model.SerializeToString(), Conditions())
    engine = backend.open(artifact, Conditions(), optimise=False)
    kind = engine.inputs[0].dtype
    found = [engine.run({engine.inputs[0].name: pixels[at : at + 1].astype(kind)}) for at in range(len(pixels))]
    return np.concatenate([next(iter(each.values())) for each in found]).astype(np.float64)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square of the difference over that of the first."""
    return float(np.sqrt(np.square(first - second).mean() / np.square(first).mean()))


def test_half_precision_types_every_tensor_and_keeps_the_outputs(name: str):
    model = exported(name)
    half = to_fp16(model)
    kinds = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {TensorProto.FLOAT16}
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT  # the original is left as it is
    pixels = images(8, NETWORKS[name][1]).batch(slice(None)).numpy()
    assert 0 < apart(outputs(model, pixels), outputs(half, pixels)) < 0.01


@pytest.mark.parametrize("dynamic", [False, True])
def test_int8_is_symmetric_with_biases_in_float_and_keeps_the_outputs(name: str, dynamic: bool):
    model, fit = exported(name, dynamic=dynamic), images(24, NETWORKS[name][1])
    quantised = to_int8(model, fit, symmetric=True)
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    scales = [node for node in quantised.graph.node if node.op_type == "DequantizeLinear"]
    assert scales
    for node in scales:
        zero = numpy_helper.to_array(constants[node.input[2]])
        assert zero.dtype == np.int8 and not zero.any()
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    dequantised = {node.output[0] for node in scales}
    assert all(set(node.input[:2]) <= dequantised for node in convolutions)
    assert all(constants[node.input[2]].data_type == TensorProto.FLOAT for node in convolutions if len(node.input) > 2)
    pixels = fit.batch(slice(None)).numpy()
    assert 0 < apart(outputs(model, pixels), outputs(quantised, pixels)) < 0.15


def test_ranges_come_from_the_images_whatever_the_batch():
    fit = images(6, RESNET)
    one, four = (to_int8(exported("resnet", batch), fit, symmetric=True) for batch in (1, 4))
    found = [
        sorted(
            float(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer
            if tensor.name.endswith("_scale") and not tensor.dims
        )
        for model in (one, four)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@lru_cache
def cuts(name: str) -> tuple[onnx.ModelProto, tuple[Block, ...]]:
    make, shape = NETWORKS[name]
    traced, _ = trace(make(), (1, *shape[1:]))
    blocks = droppable(find_blocks(traced, (1, *shape[1:])))
    return with_splices(traced, blocks, (1, *shape[1:])), blocks


@pytest.mark.parametrize("symmetric", [True, False], ids=["TensorRT's form", "ONNX Runtime's form"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_block_left_out_of_a_converted_network_leaves_what_converting_the_smaller_one_gives(
    name: str, precision: str, symmetric: bool
):
    cut, blocks = cuts(name)
    whole = in_precision(as_deployed(cut), precision, None, symmetric=symmetric)
    for dropped in ([], blocks[:1], blocks[1:3], blocks[-1:]):
        left = without_blocks(whole, dropped)
        wanted = in_precision(without_blocks(cut, dropped), precision, None, symmetric=symmetric)
        onnx.checker.check_model(left)
        assert kinds_of(left) == kinds_of(wanted)


def kinds_of(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each kind a network has; names for one value are none."""
    return Counter(node.op_type for node in model.graph.node if node.op_type != "Identity")


def test_integers_of_onnx_runtime_multiply_unsigned_activations(name: str):
    quantised = to_int8(exported(name), images(8, NETWORKS[name][1]), symmetric=False)
    found = OrtBackend().compile(quantised.SerializeToString(), Conditions(precision="int8"))
    assert (found.precision_share, dict(found.others)) == (1.0, {})
    zeros = {node.input[2] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    kinds = {tensor.data_type for tensor in quantised.graph.initializer if tensor.name in zeros}
    assert kinds == {TensorProto.UINT8}


def test_file_of_an_old_opset_is_converted_with_a_free_batch_of_minus_one(tmp_path):
    """Scales by channel exist since opset 13; some exporters write -1 for a free dimension."""
    network, shape = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), (1, 3, 16, 16)
    path = tmp_path / "old.onnx"
    torch.onnx.export(network, (torch.zeros(shape),), str(path), dynamo=False, opset_version=11, input_names=["x"])
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    quantised = to_int8(model, images(8, shape), symmetric=False)
    assert [each.version for each in quantised.opset_import if not each.domain] == [13]
    found = OrtBackend().compile(quantised.SerializeToString(), Conditions(precision="int8"))
    assert (found.precision_share, dict(found.others)) == (1.0, {})


def test_norms_that_the_quantiser_fails_on_stay_in_float():
    norm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    shape = (1, 3, 16, 16)
    model = to_onnx(trace(norm, shape)[0], shape, dynamic_batch=False)
    found = to_int8(model, None, symmetric=False)
    ends = {name: node.op_type for node in found.graph.node for name in node.output}
    (inner,) = (node for node in found.graph.node if node.op_type == "InstanceNormalization")
    assert [ends.get(name) for name in inner.input[1:]] == [None, None]  # its own scale and bias: no integers
    assert kinds_of(found)["QuantizeLinear"] >= 2


def test_network_that_the_quantiser_cannot_take_is_refused_with_its_words(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise KeyError("Duplicate definition of name (conv)")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", refuse)
    with pytest.raises(InputError, match=r"cannot be converted to int8: .*Duplicate definition") as refused:
        to_int8(exported("resnet"), None, symmetric=True)
    assert "--precision fp32" in refused.value.remedy
