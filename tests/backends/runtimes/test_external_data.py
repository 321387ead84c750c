"""Weights beside a network's file: regular files of its folder, or the network is refused before anything opens them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from practise_backends.errors import CompileError
from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.sessions import Candidate, opened
from practise_backends.runtimes.external_data import external_weights, read_with_weights, size_of
from practise_backends.runtimes.onnx_file import read_network
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, StoppingRule


def away(name: str, location: str) -> onnx.TensorProto:
    """A tensor whose data lies in a file."""
    found = numpy_helper.from_array(np.zeros((4, 4), np.float32), name)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    found.external_data.add(key="location", value=location)
    return found


def network(location: str) -> onnx.ModelProto:
    """A product with a weight that lies there."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "g", values[:1], values[1:], [away("w", location)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for a network, with weights in the folder around it that are none of its own."""
    (tmp_path / "w.bin").write_bytes(bytes(64))
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "random").symlink_to("/dev/urandom")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../w.bin", "outside"),
        ("folder/../../w.bin", "outside"),
        ("out/w.bin", "outside"),
        ("random", "outside"),
        ("/dev/stdin", "absolute"),
        ("folder/../pipe", "no regular file"),
        ("folder", "no regular file"),
        ("w\0.bin", "no name of a file"),
        ("gone.bin", "cannot be read"),
    ],
)
def test_weights_elsewhere_are_refused_before_they_are_opened(place: Path, location: str, said: str) -> None:
    path = place / "n.onnx"
    onnx.save(network(location), path)
    bench = MeasurementSetup(backend=OrtBackend(), conditions=Conditions(), stopping_rule=StoppingRule(budget_s=0.1))
    for refuse in (
        lambda: OrtBackend().compile(path, Conditions()),
        lambda: size_of(path),
        lambda: opened({"n": Candidate(model=path, sessions=1)}, bench).__enter__(),
    ):
        with pytest.raises(CompileError, match=said) as found:
            refuse()
        assert found.value.remedy and found.value.exit_code == 2


@pytest.mark.parametrize("name", ["pipe", "random", "folder"])
def test_network_that_is_no_regular_file_is_not_opened(place: Path, name: str) -> None:
    for refuse in (lambda: OrtBackend().compile(place / name, Conditions()), lambda: size_of(place / name)):
        with pytest.raises(CompileError, match=f"{name} is (no regular file|a folder)"):
            refuse()


def test_weights_of_a_linked_network_may_lie_beside_the_link_or_where_it_leads(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    onnx.save(network("w.bin"), blobs / "1")
    (blobs / "2").write_bytes(bytes(64))
    (snapshot / "n.onnx").symlink_to(blobs / "1")
    (snapshot / "w.bin").symlink_to(blobs / "2")
    found, _ = read_with_weights(snapshot / "n.onnx")
    assert external_weights(snapshot / "n.onnx", found) == (snapshot / "w.bin",)


def _in_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph([], "branch", [], [], [tensor])
    return _with_nodes(helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph))


def _in_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return _with_nodes(helper.make_node("Constant", [], ["y"], value=tensor))


def _in_attribute_list(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return _with_nodes(helper.make_node("Own", [], ["y"], domain="own", tensors=[tensor]))


def _in_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    found = _with_nodes()
    found.graph.sparse_initializer.add(values=tensor)
    return found


def _in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    found = _with_nodes()
    found.functions.add(name="f", node=[helper.make_node("Constant", [], ["y"], value=tensor)])
    return found


def _in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    found = _with_nodes()
    found.training_info.add(initialization=helper.make_graph([], "t", [], [], [tensor]))
    return found


def _with_nodes(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [], []))


@pytest.mark.parametrize(
    "hidden", [_in_branch, _in_constant, _in_attribute_list, _in_sparse, _in_function, _in_training]
)
def test_every_place_of_a_network_is_searched_for_weights(hidden: Callable[..., onnx.ModelProto]) -> None:
    assert read_network(hidden(away("w", "../w.bin")).SerializeToString()).weight_files == ("../w.bin",)


def test_deeply_nested_network_is_read_or_refused() -> None:
    content = b""
    for _ in range(2000):  # graph { node { attribute { g
        for field in (6, 5, 1):
            content = bytes([field << 3 | 2]) + _varint(len(content)) + content
    assert read_network(bytes([7 << 3 | 2]) + _varint(len(content)) + content).weight_files == ()


def _varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + _varint(number >> 7)
