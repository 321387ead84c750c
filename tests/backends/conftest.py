"""Tiny ONNX networks, built in the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

NetworkMaker = Callable[..., onnx.ModelProto]


@pytest.fixture
def make_network() -> NetworkMaker:
    """`make_network(convolutions, input_name=, shape=)`: a chain of 3x3 convolutions of ones over nine."""
    return chain


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    """A chain of two convolutions in a file."""
    path = tmp_path / "two.onnx"
    onnx.save(chain(2), path)
    return path


def chain(
    convolutions: int, input_name: str = "image", shape: tuple[int | str, ...] = ("N", 4, 8, 8)
) -> onnx.ModelProto:
    """The network itself; its weights are constant, so its outputs are known."""
    weight = np.full((4, 4, 3, 3), 1 / 36, dtype=np.float32)
    names = [input_name, *(f"hidden{at}" for at in range(convolutions - 1)), "features"]
    nodes = [
        helper.make_node("Conv", [names[at], f"weight{at}"], [names[at + 1]], pads=[1] * 4)
        for at in range(convolutions)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, f"weight{at}") for at in range(convolutions)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
