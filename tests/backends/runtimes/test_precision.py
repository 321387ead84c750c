"""In which type a network computes on ONNX Runtime, read from the graph as the runtime optimised it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.conftest import chain
from practise_backends.errors import CompileError
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions

INT8 = Conditions(precision="int8")


def quantised(*, both: bool) -> onnx.ModelProto:
    """Two convolutions between quantised tensors; the second one computes in float unless both are asked for."""

    def pair(tensor: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{tensor}_q"]),
            helper.make_node("DequantizeLinear", [f"{tensor}_q", "scale", "zero"], [f"{tensor}_d"]),
        ]

    def weight(name: str) -> list[onnx.NodeProto]:
        return [helper.make_node("DequantizeLinear", [f"{name}_8", "scale", "zero_8"], [name])]

    nodes = [
        *pair("x"), *weight("a"), helper.make_node("Conv", ["x_d", "a"], ["h"], name="first"),
        *pair("h"), *(weight("b") if both else [helper.make_node("Sigmoid", ["h_d"], ["s"])]),
        helper.make_node("Conv", ["h_d" if both else "s", "b"], ["y_"], name="second"),
        *pair("y_"), helper.make_node("Identity", ["y__d"], ["y"]),
    ]  # fmt: skip
    ones = np.ones((4, 4, 1, 1))
    constants = {
        "scale": np.float32(0.1), "zero": np.uint8(0), "zero_8": np.int8(0),
        "a_8": ones.astype(np.int8), "b_8": ones.astype(np.int8), **({} if both else {"b": ones.astype(np.float32)}),
    }  # fmt: skip
    used = {name for node in nodes for name in node.input}
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", wide[:1], wide[1:],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items() if name in used],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_integers_are_found_where_the_runtime_runs_its_quantised_operators() -> None:
    found = OrtBackend().compile(quantised(both=True).SerializeToString(), INT8)
    assert (found.precision, found.precision_share, dict(found.others)) == ("int8", 1.0, {})


def test_a_layer_left_in_float_is_named() -> None:
    found = OrtBackend().compile(quantised(both=False).SerializeToString(), INT8)
    assert found.precision_share == 0.5
    assert list(found.others.values()) == ["float32"]


def test_a_float_network_is_not_taken_for_an_integer_one() -> None:
    found = OrtBackend().compile(chain(3).SerializeToString(), INT8)
    assert found.precision_share == 0.0
    assert OrtBackend().compile(chain(3).SerializeToString(), Conditions()).precision_share == 1.0


def test_half_precision_which_the_cpu_would_compute_in_float_is_refused() -> None:
    with pytest.raises(CompileError, match="float32 on the CPU"):
        OrtBackend().compile(chain(3).SerializeToString(), Conditions(precision="fp16"))
