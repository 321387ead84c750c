"""Does the translated network compute what ONNX Runtime computes of the file? If not, from which node on?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, fx

from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.errors import InputError
from practise_deploy.network.onnx_import.file import readable
from practise_deploy.network.onnx_import.translate import Translation

_TOLERANCE = 1e-3
"""Root mean square of the difference over that of the values. Measured on networks that are the same: 1e-6 to 1e-4."""
_LEAST = 1e-6
"""A difference of float32 values that are of the order of 1, such as a probability: one below is none."""
_Values = dict[str, npt.NDArray[np.generic]]


def check_translation(translation: Translation, images: Tensor) -> None:
    """Compare the outputs of both on some images, and refuse a translation that computes something else.

    Shapes: images [n, channels, height, width], at least as many as the file is for.
    Raises: InputError, which names the first node where they part; BackendError where ONNX Runtime does not run the file.
    """
    file = translation.file
    names = [output.name for output in file.model.graph.output]
    expected = _by_runtime(translation, file.model, images)
    with torch.inference_mode():
        result = translation.network(images)
    results = result if isinstance(result, tuple) else (result,)
    for name, tensor in zip(names, results, strict=True):
        if not _same(expected[name], tensor.numpy()):
            raise InputError(
                f"{file.path} computes something else in torch than in ONNX Runtime: its output '{name}' differs{_first(translation, images[: file.batch or 1])}",
                remedy="give the network's Python as FILE.py:FUNCTION, or export it again with another opset",
            )


def _by_runtime(translation: Translation, model: onnx.ModelProto, images: Tensor) -> _Values:
    """The outputs of a model of the file, image by image where it is for a fixed number."""
    file = translation.file
    conditions, backend = Conditions(batch=file.batch or 1), OrtBackend()
    engine = backend.open(backend.compile(model.SerializeToString(), conditions), conditions, optimise=False)
    feeds, step = translation.feeds(images), file.batch or len(images)
    runs = [
        engine.run({name: array[at : at + step] for name, array in feeds.items()})
        for at in range(0, len(images) - step + 1, step)
    ]
    return {name: np.concatenate([np.atleast_1d(run[name]) for run in runs]) for name in runs[0]}


def _first(translation: Translation, images: Tensor) -> str:
    """The first node that gives something else, as the end of a sentence; empty where each gives the same."""
    model, _ = readable(translation.file)
    traced = onnx.ModelProto()
    traced.CopyFrom(model)
    taken = set(translation.values.values()) & {name for node in model.graph.node for name in node.output}
    outputs = {output.name for output in model.graph.output}
    traced.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(taken - outputs))
    expected = _by_runtime(translation, traced, images)
    recorder = _Recorder(translation.network, translation.values)
    with torch.inference_mode():
        recorder.run(images)
    for node in model.graph.node:
        for name in node.output:
            if name in recorder.found and name in expected and not _same(expected[name], recorder.found[name].numpy()):
                return f", from the node {node.op_type} '{node.name or name}' on"
    return ""


class _Recorder(fx.Interpreter):
    """Runs the network and keeps the values that the file names."""

    def __init__(self, network: fx.GraphModule, values: Mapping[str, str]) -> None:
        super().__init__(network)
        self.values, self.found = values, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n.name in self.values and isinstance(result, Tensor):
            self.found[self.values[n.name]] = result
        return result


def _same(expected: npt.NDArray[np.generic], actual: npt.NDArray[np.generic]) -> bool:
    """Whether two arrays are the same but for the order in which sums were taken."""
    if expected.shape != actual.shape:
        return False
    first, second = expected.astype(np.float64), actual.astype(np.float64)
    scale = float(np.sqrt(np.square(first).mean())) if first.size else 0.0
    difference = float(np.sqrt(np.square(first - second).mean())) if first.size else 0.0
    return difference <= _TOLERANCE * scale or difference < _LEAST
