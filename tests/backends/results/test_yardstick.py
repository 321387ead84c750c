"""The network that the doctor measures against itself, and the self-test on this machine."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from practise_backends.results.doctor import SELF_TEST_NETWORK, self_test
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions


def yardstick(convolutions: int = 3) -> onnx.ModelProto:
    """The network of the self-test: 3x3 convolutions whose weights are made on loading, so the file is tiny."""
    shape = (1, 32, 56, 56)
    names = ["image", *(f"hidden{at}" for at in range(1, convolutions)), "features"]
    weight = helper.make_tensor("value", TensorProto.FLOAT, [1], [1 / 288])
    nodes = []
    for at in range(convolutions):
        nodes += [
            helper.make_node("ConstantOfShape", ["weight_shape"], [f"weight{at}"], value=weight),
            helper.make_node("Conv", [names[at], f"weight{at}"], [f"sum{at}"], pads=[1] * 4),
            helper.make_node("Relu", [f"sum{at}"], [names[at + 1]]),
        ]
    graph = helper.make_graph(
        nodes,
        "yardstick",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor("weight_shape", TensorProto.INT64, [4], [32, 32, 3, 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="practise-backends")


def test_the_shipped_yardstick_is_the_one_that_is_built_here() -> None:
    shipped = SELF_TEST_NETWORK.read_bytes()
    assert shipped == yardstick().SerializeToString(deterministic=True)
    assert len(shipped) < 4096
    onnx.checker.check_model(shipped, full_check=True)


def test_the_yardstick_computes_means_of_its_image() -> None:
    backend = OrtBackend()
    engine = backend.open(backend.compile(SELF_TEST_NETWORK, Conditions()), Conditions())
    image = np.ones((1, 32, 56, 56), dtype=np.float32)
    found = engine.run({"image": image})["features"]
    assert found[0, :, 20:-20, 20:-20] == pytest.approx(np.ones((32, 16, 16)), abs=1e-5)


def test_the_self_test_measures_the_yardstick_against_itself() -> None:
    found = self_test("ort", 1.0)
    assert found.ratio.low <= found.ratio.estimate <= found.ratio.high
    widest = max(abs(found.ratio.low - 1), abs(found.ratio.high - 1))
    assert found.visible_percent == pytest.approx(100 * widest)
    assert found.rounds >= 30
