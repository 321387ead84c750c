"""How a file says that its images are scaled: by its metadata, or by what it does with them first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from practise_deploy.images.tiny_set import normalise
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.onnx_import.file import described
from practise_deploy.network.onnx_import.input_scaling import stated_input
from practise_deploy.settings import Settings
from practise_deploy.terms import Preprocessing

Step = tuple[str, list[float]]


def model_of(*steps: Step, **metadata: str) -> onnx.ModelProto:
    """A network that does these things with its images, and then convolves them."""
    value, nodes, weights = "images", [], [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "kernel")]
    for number, (operator, constant) in enumerate(steps):
        array = np.array(constant, np.float32).reshape(1, -1, 1, 1) if len(constant) > 1 else np.float32(constant[0])
        weights.append(numpy_helper.from_array(np.asarray(array), f"c{number}"))
        nodes.append(helper.make_node(operator, [value, f"c{number}"], [f"v{number}"], name=f"step {number}"))
        value = f"v{number}"
    nodes += [
        helper.make_node("Conv", [value, "kernel"], ["maps"], name="first"),
        helper.make_node("Relu", ["maps"], ["scores"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 3, 16, 16]), ("scores", ["n", 4, 14, 14]))
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "net", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    for key, text in metadata.items():
        made.metadata_props.add(key=key, value=text)
    return made


def stated(*steps: Step, **metadata: str):
    return stated_input(described(Path("net.onnx"), model_of(*steps, **metadata)))


@pytest.mark.parametrize(
    ("steps", "largest"),
    [
        ([("Sub", [123.7, 116.3, 103.5]), ("Div", [58.4, 57.1, 57.4])], 255),
        ([("Mul", [1 / 255]), ("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], 255),
        ([("Div", [255.0])], 255),
        ([("Sub", [127.5]), ("Mul", [1 / 127.5])], 255),
        ([("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], 1),
        ([("Mul", [2.0]), ("Add", [-1.0])], 1),
    ],
)
def test_normalisation_in_the_network_says_which_pixels_it_is_given(steps: list[Step], largest: int):
    found = stated(*steps)
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    prepared = Preprocessing(
        channels=3, size=(1, 1), resize=1, mean=found.config["mean"], std=found.config["std"], interpolation="bilinear", augment="none"
    )  # fmt: skip
    assert float(normalise(white, prepared)[0, 0]) == pytest.approx(largest)
    assert f"step {len(steps) - 1}" in found.notes[0] and f"0 to {largest}" in found.notes[0]


def test_network_that_says_nothing_has_its_scaling_assumed_and_says_so(tmp_path: Path):
    assert stated().config == {} and stated().notes == ()
    (tmp_path / "net.onnx").write_bytes(model_of().SerializeToString())
    notes = load_network(Settings(network=str(tmp_path / "net.onnx"))).summary.notes
    assert any(note.startswith("assumed: mean (0.485, 0.456, 0.406)") for note in notes)


def test_metadata_come_before_what_the_network_does():
    found = stated(("Div", [255.0]), mean="[0.5, 0.5, 0.5]", std="(0.25, 0.25, 0.25)")
    assert (found.config["mean"], found.config["std"]) == ((0.5,) * 3, (0.25,) * 3)
    assert stated(mean="not a list").config == {}
    ultralytics = stated(stride="32", imgsz="[320, 640]").config
    assert (ultralytics["std"], ultralytics["crop_pct"]) == ((1.0,) * 3, 1.0)


def test_constants_of_a_normalisation_are_not_trained(tmp_path: Path):
    steps = [("Sub", [123.7, 116.3, 103.5]), ("Div", [58.4, 57.1, 57.4])]
    (tmp_path / "net.onnx").write_bytes(model_of(*steps).SerializeToString())
    network = load_network(Settings(network=str(tmp_path / "net.onnx")))
    assert [name for name, _ in network.traced.named_parameters()] == ["first.weight"]


def test_channels_are_turned_round_where_the_network_takes_blue_first():
    pixels = torch.tensor([255, 128, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    prepared = Preprocessing(
        channels=3, size=(1, 1), resize=1, mean=(0.1, 0.2, 0.3), std=(1.0,) * 3, interpolation="bilinear", augment="none",
        channel_order="bgr",
    )  # fmt: skip
    found = normalise(pixels, prepared).flatten().tolist()
    assert found == pytest.approx([-0.1, 128 / 255 - 0.2, 0.7])
