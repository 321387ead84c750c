"""A network of a fixed batch takes any batch, where it computes the same then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.batching import with_any_batch

CHANNELS, CLASSES = 4, 3


def node(operator: str, inputs: Sequence[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(operator, list(inputs), [output], **attributes)


def network(path: Path, tail: Sequence[NodeProto], batch: int | str = 1, shape: Sequence[int] = ()) -> Path:
    """A convolution and a pool, `hidden` of [batch, 4, 1, 1], then the tail, which ends in `logits`."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "matrix": rng.normal(size=(CHANNELS, CLASSES)).astype(np.float32),
        "baked": np.array([batch if isinstance(batch, int) else 1, -1], dtype=np.int64),
        "flattened": np.array([batch if isinstance(batch, int) else 1, CHANNELS], dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
    }
    body = [
        node("Conv", ["input", "kernel"], "features", pads=[1] * 4),
        node("Relu", ["features"], "positive"),
        node("GlobalAveragePool", ["positive"], "hidden"),
    ]
    graph = helper.make_graph(
        [*body, *tail],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, *(shape or [CLASSES])])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


FLAT = [node("Flatten", ["hidden"], "flat"), node("MatMul", ["flat", "matrix"], "logits")]
EXPORTED = [
    node("Reshape", ["hidden", "flattened"], "flat", allowzero=1),
    node("MatMul", ["flat", "matrix"], "logits"),
]  # what torch's exporter makes of a flatten
BAKED = [node("Reshape", ["hidden", "baked"], "flat"), node("MatMul", ["flat", "matrix"], "logits")]
BAKED_LAST = [node("Reshape", ["hidden", "baked"], "logits")]
FIRST_IMAGE = [
    node("Flatten", ["hidden"], "flat"),
    node("ReduceMean", ["flat", "first"], "mean", keepdims=1),
    node("Sub", ["flat", "mean"], "apart"),
    node("MatMul", ["apart", "matrix"], "logits"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "copies"
    found.mkdir()
    return found


def run(path: Path, x: np.ndarray) -> np.ndarray:
    backend, conditions = OrtBackend(), Conditions()
    return backend.open(backend.compile(path, conditions), conditions).run({"input": x})["logits"]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tail", [FLAT, EXPORTED], ids=["flatten", "reshape to a constant"])
def test_convolutional_network_of_a_fixed_batch_takes_any(
    tmp_path: Path, folder: Path, batch: int, tail: list[NodeProto]
):
    path = network(tmp_path / "model.onnx", tail, batch)
    before = path.read_bytes()
    copy = with_any_batch(path, folder)
    assert copy == folder / "model.onnx"
    assert path.read_bytes() == before
    x = np.random.default_rng(1).normal(size=(4 * batch, 3, 6, 6)).astype(np.float32)
    each = np.concatenate([run(path, x[at : at + batch]) for at in range(0, len(x), batch)])
    assert np.allclose(run(copy, x), each, atol=1e-5)
    assert run(copy, x[:1]).shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("tail", "shape"),
    [(BAKED, [CLASSES]), (BAKED_LAST, [CHANNELS]), (FIRST_IMAGE, [CLASSES])],
    ids=["reshape of all the rest", "the same at the end", "images that see each other"],
)
def test_network_that_holds_its_batch_is_given_back_unchanged(
    tmp_path: Path, folder: Path, tail: list[NodeProto], shape: list[int]
):
    path = network(tmp_path / "model.onnx", tail, 1, shape)
    before = path.read_bytes()
    assert with_any_batch(path, folder) == path
    assert path.read_bytes() == before


def test_network_that_takes_any_batch_is_not_copied_for_nothing(tmp_path: Path, folder: Path):
    path = network(tmp_path / "model.onnx", FLAT, "N")
    assert with_any_batch(path, folder) == path
