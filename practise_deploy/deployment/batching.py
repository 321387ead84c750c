"""A network of a fixed batch as one that takes any batch, for measuring throughput."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from practise_backends.errors import BackendError
from practise_backends.rounds.feeds import random_feeds
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.network.onnx_import.file import images_of

_TRIED = 3
_TOLERANCE = 1e-3


def with_any_batch(path: Path, folder: Path) -> Path:
    """A copy in `folder` whose first dimension is free; the file itself where such a copy computes something else.

    Most convolutional networks fix the batch only in the shapes of inputs, outputs and the final flatten. The copy is tested:
    a batch of three must give the same outputs as three single runs.
    """
    model = onnx.load(path)
    inputs = images_of(model)
    if all(dimension.dim_value <= 0 for value in inputs for dimension in value.type.tensor_type.shape.dim[:1]):
        return path
    _free_reshapes(model.graph, inputs)
    for value in (*inputs, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].dim_param = "batch"
    del model.graph.value_info[:]
    copy = folder / path.name
    copy.write_bytes(model.SerializeToString())
    return copy if _same(path, copy) else path


def _free_reshapes(graph: onnx.GraphProto, inputs: Sequence[onnx.ValueInfoProto]) -> None:
    """A Reshape to a constant shape that begins with the batch leaves that dimension open."""
    batch = next(
        (value.type.tensor_type.shape.dim[0].dim_value for value in inputs if value.type.tensor_type.shape.dim), 0
    )
    shapes = {
        initializer.name: onnx.numpy_helper.to_array(initializer)
        for initializer in graph.initializer
        if len(initializer.dims) == 1
    }
    for node in graph.node:
        shape = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and len(shape) and shape[0] == batch and -1 not in shape:
            name = f"{node.output[0]}_any_batch"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, *shape[1:]], dtype=np.int64), name))
            node.input[1] = name


def _same(path: Path, copy: Path) -> bool:
    """Whether the copy computes for several images what the network computes for each."""
    backend, conditions = OrtBackend(), Conditions()
    try:
        single, batched = (backend.open(backend.compile(file, conditions), conditions) for file in (path, copy))
        batch = single.inputs[0].shape[0]
        feeds = random_feeds(batched.inputs, _TRIED * batch)
        together = batched.run(feeds)
        for start in range(0, _TRIED * batch, batch):
            expected = single.run({name: array[start : start + batch] for name, array in feeds.items()})
            for name, reference in expected.items():
                actual = together[name][start : start + batch]
                if actual.shape != reference.shape or not np.allclose(reference, actual, _TOLERANCE, _TOLERANCE):
                    return False
    except (BackendError, IndexError, KeyError):
        return False
    return True
