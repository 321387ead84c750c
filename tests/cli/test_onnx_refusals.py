"""ONNX files that cannot be taken: one clear message, the documented exit code, no traceback, nothing written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from cli.test_bad_input import Cli, Job, refused
from networks import tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.network.graph import onnx_graph
from practise_deploy.network.onnx_import import translate as translation
from practise_deploy.network.onnx_import.nodes import attributes_of
from practise_deploy.network.onnx_import.translator import Translator
from samples.exporting import Export
from samples.onnx_files import ints, model_of, noise


def node(kind: str, *inputs: str, to: str = "result", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs) or ["images"], [to], name=f"my {kind}", **attributes)


def small(*nodes: onnx.NodeProto, **how: Any) -> onnx.ModelProto:
    """A network of these nodes; a single Relu by default."""
    return model_of(nodes or (node("Relu"),), how.pop("weights", {}), shape=how.pop("shape", (3, 16, 16)), **how)


def unchecked(*nodes: onnx.NodeProto, domain: str = "", outputs: list[onnx.ValueInfoProto] | None = None) -> onnx.ModelProto:  # fmt: skip
    """The same, of nodes that ONNX Runtime need not know."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 16, 16]) for name in ("images", "result")]
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], outputs or ends[1:])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def with_input(kind: int, *sides: int | str) -> onnx.ModelProto:
    model = unchecked(helper.make_node("Cast", ["images"], ["result"], to=1))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", kind, sides))
    return model


def with_two_inputs() -> onnx.ModelProto:
    model = unchecked(node("Add", "images", "mask"))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 3, 16, 16]))
    return model


def quantised(operator: str) -> onnx.ModelProto:
    weights = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    nodes = [node("QuantizeLinear", "images", "s", "z", to="q"), node("DequantizeLinear", "q", "s", "z")]
    if operator == "QLinearConv":
        weights |= {"w": np.ones((2, 3, 1, 1), np.uint8)}
        nodes = [helper.make_node("QLinearConv", ["images", "s", "z", "w", "s", "z", "s", "z"], ["result"])]
        model = unchecked(*nodes)
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        return model
    return small(*nodes, weights=weights)


def looped(kind: str) -> onnx.ModelProto:
    body = helper.make_graph([], "body", [], [])
    how = {"num_scan_inputs": 1} if kind == "Scan" else {}
    return unchecked(helper.make_node(kind, ["images"], ["result"], name="my loop", body=body, **how))


def sequence() -> onnx.ModelProto:
    output = helper.make_tensor_sequence_value_info("result", TensorProto.FLOAT, None)
    return unchecked(node("SequenceConstruct", "images", "images"), outputs=[output])


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "quantised by pairs": (lambda: quantised("QDQ"), ("quantised already", "QuantizeLinear", "--precision int8")),
    "quantised by operators": (lambda: quantised("QLinearConv"), ("quantised already", "QLinearConv")),
    "an operator of somebody's own": (
        lambda: unchecked(node("Swish", domain="somebody"), domain="somebody"),
        ("somebody.Swish", "my Swish", "not ONNX's own", "standard operators"),
    ),
    "an operator of ONNX Runtime": (
        lambda: unchecked(node("FusedConv", domain="com.microsoft"), domain="com.microsoft"),
        ("com.microsoft.FusedConv", "before ONNX Runtime optimised it"),
    ),
    "two inputs": (with_two_inputs, ("the array 'images' is 16x16x3 for a sample", "takes 3x16x16", "an array of that shape for every input")),
    "integers": (lambda: with_input(TensorProto.UINT8, "n", 3, 16, 16), ("uint8 with 4 axes", "export the network in float32")),
    "halves": (lambda: with_input(TensorProto.FLOAT16, "n", 3, 16, 16), ("float16 with 4 axes", "--precision fp16")),
    "three axes": (lambda: with_input(TensorProto.FLOAT, 3, 16, 16), ("the array 'images' is 16x16x3 for a sample", "takes 16x16")),
    "a sequence": (sequence, ("'result'", "is a sequence, not a tensor")),
    "Loop": (lambda: looped("Loop"), ("the loop Loop (node 'my loop')", "written out")),
    "Scan": (lambda: looped("Scan"), ("the loop Scan (node 'my loop')", "written out")),
    "the mean of all images": (lambda: small(node("ReduceMean", axes=[0], keepdims=1, to="m"), node("Sub", "images", "m")), ("ReduceMean 'my ReduceMean'", "it mixes the images")),
    "images in another order": (lambda: small(node("Slice", "images", "s", "e", "a", "t"), weights={"s": ints(-1), "e": ints(-(2**63)), "a": ints(0), "t": ints(-1)}), ("Slice 'my Slice'", "some of the images")),
    "random numbers": (lambda: small(node("RandomNormalLike", to="r"), node("Add", "images", "r")), ("RandomNormalLike 'my RandomNormalLike'", "draws random numbers")),
    "training": (lambda: small(helper.make_node("Dropout", ["images", "r", "t"], ["result"], name="my Dropout"), weights={"r": np.array(0.5, np.float32), "t": np.array(True)}), ("Dropout 'my Dropout'", "training mode")),
    "an operator that nobody knows": (lambda: small(node("Hardmax")), ("the node Hardmax 'my Hardmax'", "no counterpart in torch", "FILE.py:FUNCTION")),
    "a weight that is missing": (lambda: unchecked(node("Add", "images", "gone")), ("'gone'", "nowhere defined")),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def save(model: onnx.ModelProto) -> Path:
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


@pytest.fixture(scope="module")
def resnet() -> onnx.ModelProto:
    return Export(False, 13).of(tiny_resnet(), (1, 3, 16, 16))


Saved = Callable[[onnx.ModelProto], Path]


@pytest.mark.parametrize("name", MODELS)
def test_file_that_cannot_be_taken(cli: Cli, job: Job, saved: Saved, name: str):
    make, words = MODELS[name]
    path = saved(make())
    refused(cli("build", path, *job[1:]), 2, "net.onnx", *words)


def test_no_file(cli: Cli, job: Job):
    refused(cli("build", "nowhere.onnx", *job[1:]), 2, "no such file: nowhere.onnx", "give the path of an ONNX file")


@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x08\x08"])
def test_file_that_is_no_onnx(cli: Cli, job: Job, tmp_path: Path, content: bytes):
    (tmp_path / "net.onnx").write_bytes(content)
    refused(
        cli("build", tmp_path / "net.onnx", *job[1:]), 2, "net.onnx cannot be read as ONNX", "an ONNX exporter wrote"
    )


def test_file_that_is_cut_off(cli: Cli, job: Job, saved: Saved, resnet: onnx.ModelProto):
    path = saved(resnet)
    path.write_bytes(path.read_bytes()[:-1000])
    refused(cli("build", path, *job[1:]), 2, "net.onnx cannot be read as ONNX")


def test_weights_that_are_in_no_file_beside_it(cli: Cli, job: Job, tmp_path: Path, resnet: onnx.ModelProto):
    path = tmp_path / "net.onnx"
    model = onnx.ModelProto()
    model.CopyFrom(resnet)
    onnx.save_model(model, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    (tmp_path / "net.weights").unlink()
    refused(
        cli("build", path, *job[1:]),
        2,
        "net.onnx cannot be read as ONNX",
        "net.weights",
        "the file of its weights beside it",
    )


def test_file_that_is_too_large(
    cli: Cli, job: Job, saved: Saved, resnet: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
):
    path = saved(resnet)
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1000)
    refused(cli("build", path, *job[1:]), 2, "net.onnx takes", "less than 2 GiB", "a smaller network")


@pytest.mark.parametrize("in_a_node", [False, True])
def test_size_is_of_all_weights_also_those_in_nodes(in_a_node: bool):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "weight")
    held = [] if in_a_node else [tensor]
    nodes = [helper.make_node("Constant", [], ["weight"], value=tensor)] if in_a_node else []
    model = helper.make_model(helper.make_graph(nodes, "graph", [], [], held))
    onnx_graph.check_size(model, "net")
    large = model.graph.node[0].attribute[0].t if in_a_node else model.graph.initializer[0]
    large.dims[:] = [2**20, 2**10]
    with pytest.raises(InputError, match=r"net takes 4\.0 GiB"):
        onnx_graph.check_size(model, "net")


def test_module_that_is_too_large(cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1000)
    said = cli("build", *job)
    assert said.code == 2 and "less than 2 GiB can be measured" in said.err
    assert not list(Path().rglob("model.onnx"))


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--input-size", 32), ("takes inputs of 16x16, not 32x32", "leave --input-size out")),
        (("--layout", "nhwc"), ("has 16 values where --layout nhwc", "leave --layout out")),
        (("--mean", "0.5", "--std", "0.5"), ("takes 3 channels, not 1", "3 numbers each")),
        (("--weights", "w.pth"), ("has its weights in it", "leave --weights out")),
        (("--batch", 4), ("is for 1 image at a time, which a batch of 4 (--batch) contradicts", "give --batch 1")),
        (
            ("--dynamic-batch",),
            ("is for 1 image at a time, which --dynamic-batch contradicts", "leave --dynamic-batch out"),
        ),
    ],
    ids=["size", "layout", "channels", "weights", "batch", "free batch"],
)
def test_setting_that_contradicts_the_file(cli: Cli, job: Job, saved: Saved, resnet: onnx.ModelProto, flags: Any, words: tuple[str, ...]):  # fmt: skip
    refused(cli("build", saved(resnet), *job[1:], *flags), 2, "net.onnx", *words)


def test_free_sides_are_assumed_and_said(cli: Cli, saved: Saved):
    path = saved(Export(False, 13, "sides").of(tiny_resnet(), (1, 3, 16, 16)))
    said = cli("inspect", path)
    assert said.code == 0, said.err
    assert "takes images of any size; it is planned and measured with 224x224" in said.out + said.err
    chosen = cli("inspect", path, "--input-size", "16x24")
    assert chosen.code == 0 and "measured with 16x24" in chosen.out + chosen.err


def test_free_channels_are_assumed_and_said(cli: Cli, saved: Saved):
    path = saved(
        model_of(
            [node("Conv", "images", "w", to="x"), node("Add", "x", "images")],
            {"w": noise(3, 3, 1, 1)},
            shape=("c", 16, 16),
        )
    )
    said = cli("inspect", path)
    assert said.code == 0 and "leaves its channels open; 3 are assumed" in " ".join((said.out + said.err).split())


def test_wrong_translation_names_the_first_node(cli: Cli, job: Job, saved: Saved, monkeypatch: pytest.MonkeyPatch):
    def wrong(t: Translator, node: onnx.NodeProto) -> fx.Node:
        assert not attributes_of(node)
        return t.call(torch.neg, t.value(node.input[0]))

    monkeypatch.setitem(translation.OPERATIONS, "Tanh", wrong)
    nodes = [node("Relu", to="a"), node("Tanh", "a", to="b"), node("Sigmoid", "b", to="c"), node("Neg", "c")]
    said = cli("build", saved(small(*nodes)), *job[1:])
    refused(
        said,
        2,
        "computes something else in torch than in ONNX Runtime",
        "'result'",
        "node Tanh 'my Tanh'",
        "FILE.py:FUNCTION",
    )


def test_package_that_is_missing_is_named(cli: Cli, job: Job, saved: Saved, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx2torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    path = saved(small(node("LRN", size=3)))
    refused(
        cli("build", path, *job[1:]),
        3,
        "the operator LRN needs the package onnx2torch",
        'pip install "practise-deploy[onnx]"',
    )


def test_network_without_blocks_says_so(cli: Cli, job: Job, saved: Saved):
    weights = {"w": noise(4, 3, 3, 3), "v": noise(10, 4)}
    nodes = [
        node("Conv", "images", "w", to="a"),
        node("GlobalAveragePool", "a", to="b"),
        node("Flatten", "b", to="c"),
        node("Gemm", "c", "v", transB=1),
    ]
    refused(cli("build", saved(small(*nodes, weights=weights)), *job[1:]), 2, "net.onnx")
