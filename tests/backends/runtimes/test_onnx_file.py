"""The reader of ONNX files, against the `onnx` package; random feeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from practise_backends.errors import CompileError, MeasureError
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes.onnx_file import read_network
from practise_backends.runtimes.precision import share_of_fp32
from practise_backends.terms import TensorSpec


def spec(shape: tuple[int, ...], dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def test_the_graph_is_read_as_onnx_reads_it(make_network: Callable) -> None:
    model: onnx.ModelProto = make_network(3)
    found = read_network(model.SerializeToString())
    assert [(node.op, node.inputs, node.outputs) for node in found.nodes] == [
        (node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node
    ]
    assert [(weight.name, weight.dtype) for weight in found.weights] == [(f"weight{at}", "float32") for at in range(3)]
    assert found.inputs == (spec((-1, 4, 8, 8), name="image"),)
    assert found.outputs == (spec((-1, 4, 8, 8), name="features"),)
    assert found.weight_files == ()


def test_weights_listed_among_the_inputs_are_not_inputs(make_network: Callable) -> None:
    model: onnx.ModelProto = make_network(1)
    model.graph.input.append(helper.make_tensor_value_info("weight0", TensorProto.FLOAT, [4, 4, 3, 3]))
    assert [each.name for each in read_network(model.SerializeToString()).inputs] == ["image"]


def share(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto) -> float:
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", wide[:1], wide[1:], list(weights))
    found = share_of_fp32(read_network(helper.make_model(graph).SerializeToString())).share
    assert found is not None
    return found


def test_share_of_fp32_is_read_from_the_layers() -> None:
    matmul = helper.make_node("MatMul", ["x", "w"], ["y"])
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.eye(4, dtype=np.float16)))
    wide, narrow = (numpy_helper.from_array(np.eye(4, dtype=kind), "w") for kind in ("f4", "f2"))
    quantised = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    casts = [
        helper.make_node("Cast", ["x"], ["w"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["w", "w"], ["y"]),
    ]
    assert share([matmul], wide) == 1.0
    assert share([matmul], narrow) == 0.0
    assert share([constant, matmul]) == 0.0
    assert share(quantised) == 0.0
    assert share(casts) == 0.0
    assert share([helper.make_node("MatMul", ["x", "x"], ["y"])]) == 1.0
    assert share([helper.make_node("QLinearMatMul", ["x"], ["y"])]) == 0.0
    assert share([helper.make_node("Relu", ["x"], ["y"])]) == 1.0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_network_or_a_compile_error(content: bytes) -> None:
    try:
        read_network(content)
    except CompileError as error:
        assert error.remedy


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_a_network_cut_short_is_a_network_or_a_compile_error(cut: int) -> None:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    content = helper.make_model(helper.make_graph(nodes, "g", wide[:1], wide[1:], [weight])).SerializeToString()
    try:
        read_network(content[: cut % len(content)])
    except CompileError as error:
        assert error.remedy


def test_inputs_that_do_not_fit_the_memory_are_refused_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("practise_backends.rounds.feeds.available_memory", lambda: 2**20)
    random_feeds([spec((1, 2**16)), spec((1, 2**16), name="y")])
    with pytest.raises(MeasureError, match="takes 2 MiB of memory, of which 1 MiB are free"):
        random_feeds([spec((1, 2**17)), spec((1, 2**17), name="y")])


def test_feeds_fill_the_batch_and_the_named_shapes() -> None:
    inputs = [spec((-1, 3, -1, -1)), spec((-1, 5), "int64", "tokens"), spec((7,), "bool", "mask")]
    feeds = random_feeds(inputs, batch=2, seed=1, shapes={"x": (2, 3, 16, 16)})
    assert {name: (array.shape, str(array.dtype)) for name, array in feeds.items()} == {
        "x": ((2, 3, 16, 16), "float32"),
        "tokens": ((2, 5), "int64"),
        "mask": ((7,), "bool"),
    }
    again = random_feeds(inputs, batch=2, seed=1, shapes={"x": (2, 3, 16, 16)})
    other = random_feeds(inputs, batch=2, seed=2, shapes={"x": (2, 3, 16, 16)})
    assert np.array_equal(feeds["x"], again["x"])
    assert not np.array_equal(feeds["x"], other["x"])


@pytest.mark.parametrize(
    ("inputs", "batch", "shapes", "said"),
    [
        ([spec((-1, 3, -1, -1))], 1, {}, "dynamic dimensions"),
        ([spec((1, 3))], 2, {}, "batch of 2"),
        ([spec((-1, 3))], 1, {"x": (1, 4)}, "does not fit"),
        ([spec((-1, 3))], 1, {"x": (1, 3, 1)}, "does not fit"),
        ([spec((-1, 3))], 1, {"z": (1, 3)}, "no input 'z'"),
        ([spec((1,), "string")], 1, {}, "type string"),
        ([spec((-1, 3, -1, -1))], 1, {"x": (1, 3, 2**20, 2**20)}, "more than 2147483648 numbers"),
        ([spec((-1, 4))], 2**62, {}, "more than 2147483648 numbers"),
        ([spec((1,), name="y"), spec((1, 2**63 - 1, 2**40), "uint8")], 1, {}, "input 'x' of shape"),
        ([spec((1,) * 65)], 1, {}, "65 dimensions"),
    ],
)
def test_feeds_that_cannot_be_settled_are_refused_with_a_remedy(
    inputs: list[TensorSpec], batch: int, shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(MeasureError, match=said) as found:
        random_feeds(inputs, batch, 0, shapes)
    assert found.value.remedy
