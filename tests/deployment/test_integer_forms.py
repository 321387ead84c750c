"""Forms that ONNX Runtime computes in integers: the same numbers, and no operator of weights in float."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from practise_deploy.deployment.integer_forms import for_integers
from practise_deploy.deployment.precision import to_int8
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.tracing.trace import trace
from samples.lessons import images

SHAPE = (1, 3, 8, 8)


def exported(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    return to_onnx(trace(network.eval(), shape)[0], shape)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


class Perceptron(nn.Module):
    """Products of fixed shape, with values a hundred times the others between them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 64), nn.Linear(64, 8)
        self.shared = nn.Linear(8, 8)
        self.shared.bias = self.narrow.bias
        with torch.no_grad():
            self.narrow.weight[0] *= 100

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(x.shape[0], 24, 8)
        for _ in range(2):
            tokens = self.norm(tokens + self.narrow(torch.relu(self.wide(tokens))))
        return self.shared(tokens).mean(1)


def test_products_of_fixed_shape_are_integers_and_are_given_in_float(tmp_path):
    torch.manual_seed(0)
    model = exported(Perceptron())
    assert "[24" not in str(model.graph.input) and sum(node.op_type == "MatMul" for node in model.graph.node) == 5
    quantised = to_int8(model, images(16, SHAPE), symmetric=False)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert optimised["MatMulIntegerToFloat"] == 5 and not optimised["MatMul"] + optimised["Gemm"]


def test_products_for_integers_change_no_number_and_leave_shared_ones_where_they_are():
    model = exported(Perceptron())
    apart = for_integers(model)
    onnx.checker.check_model(apart, full_check=True)
    x = torch.randn(SHAPE).numpy()
    first, second = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": x}
        )[0]
        for each in (model, apart)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    assert any(tensor.dims == [1, 1, 64] for tensor in apart.graph.initializer)


def test_product_of_two_axes_becomes_a_layer_with_its_bias():
    weight, bias = np.eye(4, 3, dtype=np.float32), np.arange(3, dtype=np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["input", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["logits"])],
            "g",
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3])],
            [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    (node,) = for_integers(model).graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Gemm", ["input", "w", "b"], ["logits"])
    assert model.graph.node[0].op_type == "MatMul"


def padded(
    mode: str = "constant", value: float = 0.0, *, amounts: str = "pads", **attributes: object
) -> onnx.ModelProto:
    """A convolution whose input is padded by amounts that constants give, or the image's size."""
    given = np.array([0, 0, 1, 0, 0, 0, 2, 3], np.int64)
    nodes = [
        helper.make_node("Shape", ["input"], ["size"]),
        helper.make_node("Concat", ["size", "size"], ["of the image"], axis=0),
        helper.make_node("Constant", [], ["first"], value=numpy_helper.from_array(given[:4], "")),
        helper.make_node("Concat", ["first", "last"], ["pads"], axis=0),
        helper.make_node("Pad", ["input", amounts, "value"], ["wide"], mode=mode),
        helper.make_node("Conv", ["wide", "w"], ["logits"], **attributes),
    ]
    constants = {
        "last": given[4:],
        "value": np.array(value, np.float32),
        "w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 0, 0, 2], "strides": [2, 1]}, {"auto_pad": "VALID"}])
def test_padding_that_a_file_computes_becomes_the_convolutions_own(attributes):
    model = padded(**attributes)
    changed = for_integers(model)
    assert [node.op_type for node in changed.graph.node] == ["Shape", "Concat", "Conv"], "what nothing read stays"
    assert len(model.graph.node) == 6
    assert [tensor.name for tensor in changed.graph.initializer] == ["w"]
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_allclose(run(model, x), run(changed, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        padded("reflect"), padded(value=1.0), padded(auto_pad="SAME_UPPER"),
        padded(amounts="of the image"),
    ],
)  # fmt: skip
def test_padding_that_is_no_zeros_or_depends_on_the_image_stays(model):
    assert "Pad" in [node.op_type for node in for_integers(model).graph.node]
