"""A user's ONNX file from beginning to end: built, verified, measured, exported, and put where the original was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from safetensors.torch import load_file

from practise_backends.results.bundle import read_kit
from practise_deploy.embedded.digits import IMAGES, WEIGHTS, make_digits_network
from samples.exporting import Export
from samples.onnx_files import quiet

Cli = Callable[..., Any]
INPUT, OUTPUT = "serving/pictures:0", "0|class scores"
QUICK = ("--iterations", 2, "--batch-size", 16, "--measure-budget-s", 0.3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded network as somebody else's file."""
    network = make_digits_network()
    network.load_state_dict(load_file(WEIGHTS))
    model = renamed(Export(False, 13, "batch").of(network.eval(), (1, 1, 28, 28)))
    model.metadata_props.add(key="mean", value="[0.1307]")
    model.metadata_props.add(key="std", value="[0.3081]")
    model.metadata_props.add(key="owner", value="somebody else")
    model.producer_name, model.doc_string = "a tool of theirs", "reads digits"
    path = tmp_path_factory.mktemp("theirs") / "digits of theirs.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, with names for its ends that no program would choose."""
    names = {"pixels": INPUT, "scores": OUTPUT}
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def in_nhwc(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, for images whose channels come last, as TensorFlow has them."""
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    for node in inner.graph.node:
        node.input[:] = ["channels first" if name == INPUT else name for name in node.input]
    inner.graph.node.insert(
        0, helper.make_node("Transpose", [INPUT], ["channels first"], perm=[0, 3, 1, 2], name="to channels first")
    )
    inner.graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, 1, ["n", 28, 28, 1]))
    del inner.graph.value_info[:]
    return inner


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arrays, path = np.load(IMAGES), tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, images=arrays["fit_images"][:40], labels=arrays["fit_labels"][:40])
    return path


def scores(file: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), quiet(), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: pixels})[0]


def held_out() -> tuple[np.ndarray, np.ndarray]:
    arrays = np.load(IMAGES)
    pixels = (arrays["held_out_images"][:, None].astype(np.float32) / 255 - 0.1307) / 0.3081
    return pixels, arrays["held_out_labels"]


def test_file_is_built_and_put_where_the_original_was(cli: Cli, digits: Path, data: Path):
    built = cli("build", digits, "--data", data, "--drop", 2, "--max-drop", "none", "--out", "run", *QUICK)
    assert built.code == 0, built.err
    before, after = onnx.load(digits), onnx.load("run/model.onnx")
    assert [*after.graph.input] == [*before.graph.input] and [*after.graph.output] == [*before.graph.output]
    assert [*after.metadata_props] == [*before.metadata_props] and [*after.opset_import] == [*before.opset_import]
    assert (after.producer_name, after.doc_string, after.ir_version) == (
        "a tool of theirs",
        "reads digits",
        before.ir_version,
    )
    assert len(after.graph.node) < len(before.graph.node)
    assert Path("run/original.onnx").read_bytes() == digits.read_bytes()
    pixels, labels = held_out()
    for count in (1, 3):
        assert scores(Path("run/model.onnx"), pixels[:count]).shape == (count, 10)
    right = (scores(Path("run/model.onnx"), pixels).argmax(1) == labels).mean()
    assert right > 0.8, "two of nine blocks of a network that reads 98% are gone, and it was refitted on few images"
    verified = cli("verify", "--out", "run", "--json")
    assert verified.code == 0, verified.err
    measured = cli("bench", "run", "--measure-budget-s", 0.3, "--no-footprint", "--json")
    assert measured.code == 0, measured.err
    compared = cli("compare", digits, "run/model.onnx", "--measure-budget-s", 0.3, "--json")
    assert compared.code == 0, compared.err
    again = cli("export", "--out", "run", "--json")
    assert again.code == 0 and again.document["path"] == "model.onnx", again.err
    assert onnx.load("run/model.onnx") == after
    packed = cli("kit", "run", "--kit", "kit")
    assert packed.code == 0, packed.err
    kit = read_kit(Path("kit"))
    networks = [onnx.load(Path("kit") / network.file) for network in kit.networks]
    assert len(kit.cuts) == 7 and {network.graph.input[0].name for network in networks} == {INPUT}


def test_file_is_built_in_the_precision_that_is_chosen(cli: Cli, digits: Path, data: Path):
    given = ("--data", data, "--precision", "auto", "--min-speedup", 1.8, "--max-drop", "none", "--out", "run")
    built = cli("build", digits, *given, *QUICK)
    assert built.code == 0, built.err
    assert "times as fast as the original in fp32" in built.out
    model = onnx.load("run/model.onnx")
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [INPUT, OUTPUT]
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    pixels, labels = held_out()
    assert (scores(Path("run/model.onnx"), pixels).argmax(1) == labels).mean() > 0.8


@pytest.mark.slow
def test_file_for_channels_last_is_built(cli: Cli, digits: Path, data: Path, tmp_path: Path):
    path = tmp_path / "last.onnx"
    path.write_bytes(in_nhwc(onnx.load(digits)).SerializeToString())
    built = cli("build", path, "--data", data, "--drop", 1, "--max-drop", "none", "--batch", 2, "--out", "run", *QUICK)
    assert built.code == 0, built.err
    assert [*onnx.load("run/model.onnx").graph.input] == [*onnx.load(path).graph.input]
    pixels, labels = held_out()
    assert (scores(Path("run/model.onnx"), pixels.transpose(0, 2, 3, 1).copy()).argmax(1) == labels).mean() > 0.8
    assert cli("verify", "--out", "run").code == 0


def test_blocks_of_a_file_are_listed_by_the_names_in_it(cli: Cli, digits: Path):
    said = cli("inspect", digits, "--json")
    assert said.code == 0, said.err
    names = [block["name"] for block in said.document["blocks"]]
    assert "/layer1/layer1.0" in names
    shown = cli("inspect", digits)
    assert "mean (0.1307,) stands in the file's metadata" in " ".join((shown.out + shown.err).split())
