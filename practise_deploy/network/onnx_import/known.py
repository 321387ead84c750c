"""What of an ONNX graph is known before any image: constants, and what depends on the number of images alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
BATCHES = (2, 3)
"""Numbers of images that a graph is looked at with: what is the same for both does not depend on it."""
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


class Untranslatable(Exception):
    """Why a node has no counterpart here; the message says what of it."""


class KnownValues:
    """The values known so far. constants: the same for any number of images. sizes: for each of `BATCHES`.

    shapes_of: gives the shapes of a value that is computed from the images, for each of `BATCHES`.
    """

    def __init__(
        self, initializers: Mapping[str, Array], opset: int, shapes_of: Callable[[str], Sequence[Shape]]
    ) -> None:
        self.constants = dict(initializers)
        self.sizes: dict[str, tuple[Array, ...]] = {}
        self._opset = opset
        self._shapes_of = shapes_of

    def __contains__(self, name: str) -> bool:
        return not name or name in self.constants or name in self.sizes

    def of_batches(self, name: str) -> tuple[Array, ...]:
        """A known value for each of `BATCHES`."""
        return self.sizes.get(name) or (self.constants[name],) * len(BATCHES)

    def can_fold(self, node: onnx.NodeProto) -> bool:
        """Whether a node's values are known once those of its inputs are."""
        if node.op_type in _RANDOM:
            raise Untranslatable("it draws random numbers")
        has_graph = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        return node.op_type in ("Shape", "Size") or (all(name in self for name in node.input) and not has_graph)

    def fold(self, node: onnx.NodeProto) -> None:
        """Compute a node's values; they are constants where they are the same for all of `BATCHES`."""
        results = [self._evaluated(node, number) for number in range(len(BATCHES))]
        for name, *arrays in zip(node.output, *results, strict=False):
            same = all(np.array_equal(arrays[0], array, equal_nan=array.dtype.kind == "f") for array in arrays[1:])
            if same:
                self.constants[name] = arrays[0]
            else:
                self.sizes[name] = tuple(arrays)

    def rename(self, names: Mapping[str, str]) -> None:
        """Know values by further names. names: the further one of each."""
        for name, further in names.items():
            if name in self.sizes:
                self.sizes[further] = self.sizes[name]
            else:
                self.constants[further] = self.constants[name]

    def one_image(self, name: str) -> Array:
        """What a value that depends on the number of images holds for each of them.

        Raises: Untranslatable where it is not one image's repeated.
        """
        arrays = self.sizes[name]
        one = arrays[0][: len(arrays[0]) // BATCHES[0]] if arrays[0].ndim else arrays[0]
        for array, batch in zip(arrays, BATCHES, strict=True):
            if not array.ndim or not np.array_equal(array, np.concatenate([one] * batch)):
                raise Untranslatable(f"its input '{name}' depends on the number of images")
        return one

    def _evaluated(self, node: onnx.NodeProto, number: int) -> list[Array]:
        """A node's values for one of `BATCHES`, by the reference implementation of ONNX."""
        if node.op_type in ("Shape", "Size") and node.input[0] not in self:
            shape = self._shapes_of(node.input[0])[number]
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            part = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
            return [np.array(part if node.op_type == "Shape" else np.prod(shape), dtype=np.int64)]
        feeds = {name: self.of_batches(name)[number] for name in node.input if name}
        return [np.asarray(result) for result in evaluator(node, self._opset).run(None, feeds)]


def evaluator(node: onnx.NodeProto, opset: int) -> ReferenceEvaluator:
    """What computes a single node."""
    of_any_type = [onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(node.input) if name]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", of_any_type, outputs)
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))
