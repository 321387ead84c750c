"""The smallest whole inputs of every kind, made once by the product itself and copied for every mutation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file

NETWORKS = """
import torch
from torch import nn


class Unit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


def tiny():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Unit(4), Unit(4), Unit(4),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
        )
"""
NETWORK = "nets.py:tiny"
SIDE = 16
QUICK = ("--measure-budget-s", "0.05", "--sessions", "2", "--input-size", str(SIDE), "--quiet")
SMALL = (*QUICK, "--drop", "1", "--iterations", "5", "--batch-size", "8", "--max-drop", "none")
Run = Callable[..., None]
"""Runs practise-deploy with these arguments in the folder of the bases."""


def make_bases(folder: Path, run: Run) -> None:
    """Write every base into a folder, which is the working directory of `run`."""
    make_inputs(folder)
    run("latency", NETWORK, *QUICK, "--out", "measured", "--output", "table.json")
    run("kit", NETWORK, *QUICK, "--out", "measured", "--kit", "kit")
    run("build", NETWORK, *SMALL, "--data", "tiny.npz", "--out", "run", "--latency-table", "table.json")
    shutil.rmtree(folder / "measured")
    _onnx_files(folder)
    _weights(folder)
    _settings(folder)


def make_inputs(folder: Path) -> None:
    """What a user has: a network, and images in every form."""
    (folder / "nets.py").write_text(NETWORKS)
    _images(folder)


def _images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)
    lines = []
    for number, image in enumerate(pixels):
        for place, suffix in ((folder / "photos", "png"), (folder / "classes" / "ab"[number % 2], "jpg")):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:02}.{suffix}")
        lines.append(f"photos/{number:02}.png\t{number % 2}")
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    (folder / "names.txt").write_text("".join(f"class {number}\n" for number in range(10)))
    np.savez(folder / "tiny.npz", images=pixels, labels=np.arange(16) % 10)


def _onnx_files(folder: Path) -> None:
    """Plain, with its weights beside it, with a dynamic batch, and one of many operators and kinds of attributes."""
    place = folder / "onnx"
    place.mkdir()
    plain = onnx.load(folder / "run" / "original.onnx")
    onnx.save(plain, place / "plain.onnx")
    onnx.save(plain, place / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    dynamic = onnx.load(place / "plain.onnx")
    for value in (*dynamic.graph.input, *dynamic.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(dynamic, place / "dynamic.onnx")
    onnx.save(_many_attributes(), place / "attributes.onnx")


def _many_attributes() -> onnx.ModelProto:
    tensor = numpy_helper.from_array
    rng = np.random.default_rng(0)
    weights = [
        tensor(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "kernel"),
        tensor(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        tensor(np.array([1, 1, 2, 2], np.float32), "scales"),
        tensor(np.array([1, -1]), "shape"),
    ]
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, ["resized"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)],
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Sigmoid"))
    }
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=tensor(np.array(True))),
        helper.make_node("Pad", ["x", "pads"], ["padded"], mode="reflect"),
        helper.make_node("Conv", ["padded", "kernel"], ["conv"], kernel_shape=[3, 3], strides=[2, 2], dilations=[1, 1]),
        helper.make_node("Resize", ["conv", "", "scales"], ["resized"], mode="nearest"),
        helper.make_node("If", ["yes"], ["branch"], **branches),
        helper.make_node("LeakyRelu", ["branch"], ["leaky"], alpha=0.1),
        helper.make_node("Reshape", ["leaky", "shape"], ["y"], allowzero=0),
    ]
    graph = helper.make_graph(
        nodes,
        "attributes",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, None])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def state_dict(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the tiny network."""
    names: dict[str, object] = {}
    exec(compile((folder / "nets.py").read_text(), "nets.py", "exec"), names)
    return dict(names["tiny"]().state_dict())  # type: ignore[operator]


def _weights(folder: Path) -> None:
    weights = state_dict(folder)
    torch.save(weights, folder / "plain.pth")
    torch.save(weights, folder / "older.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "model": {f"module.{k}": v for k, v in weights.items()}}, folder / "checkpoint.pth")
    save_file(weights, folder / "plain.safetensors")


def _settings(folder: Path) -> None:
    asked = {"network": NETWORK, "data": "tiny.npz", "input_size": SIDE, "drop": 1, "iterations": 5, "batch_size": 8,
             "measure_budget_s": 0.05, "sessions": 2, "max_drop": "none", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2],
             "out": "other", "latency_table": "table.json", "seed": 1, "frontier": False}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(asked, indent=1))
    (folder / "settings.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in asked.items()))
