"""An engine's inputs and outputs: their memory on both sides, for the shapes that are fed."""

from __future__ import annotations

from typing import Any

import numpy as np

from practise_backends.errors import CompileError, MeasureError
from practise_backends.runtimes.tensorrt.cuda import Array, Buffer, Cuda
from practise_backends.runtimes.tensorrt.package import TensorRtPackage
from practise_backends.terms import Tensors, TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def tensor_specs(
    engine: Any, package: TensorRtPackage
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and the outputs of an engine, or of the network that it is built from.

    Raises: CompileError where one is of a type that numpy does not have.
    """
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for at in range(engine.num_io_tensors):
        name = engine.get_tensor_name(at)
        spec = TensorSpec(
            name=name,
            shape=tuple(engine.get_tensor_shape(name)),
            dtype=_dtype(name, engine.get_tensor_dtype(name)),
        )
        is_input = engine.get_tensor_mode(name) == package.module.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


class Bindings:
    """Memory for one set of shapes; bound anew where other shapes come."""

    def __init__(
        self, context: Any, cuda: Cuda, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        self._context, self._cuda = context, cuda
        self._inputs, self._outputs = inputs, outputs
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._buffers: dict[str, Buffer] = {}
        self._hosts: dict[str, Array] = {}

    def take(self, tensors: Tensors) -> bool:
        """Put these tensors into page-locked memory; whether memory had to be bound anew.

        Raises: MeasureError where they do not fit the engine.
        """
        self._check(tensors)
        shapes = {spec.name: tensors[spec.name].shape for spec in self._inputs}
        fresh = shapes != self._shapes
        if fresh:
            self._bind(shapes)
        for name in shapes:
            np.copyto(self._hosts[name], tensors[name], casting="no")
        return fresh

    def copy_in(self) -> None:
        """All inputs to the device, in the stream."""
        for spec in self._inputs:
            self._cuda.copy_in(self._buffers[spec.name], self._hosts[spec.name])

    def copy_out(self) -> None:
        """All outputs to the host, in the stream."""
        for spec in self._outputs:
            self._cuda.copy_out(self._hosts[spec.name], self._buffers[spec.name])

    def results(self) -> dict[str, Array]:
        """The outputs as they lie on the host, copied."""
        return {spec.name: self._hosts[spec.name].copy() for spec in self._outputs}

    def free(self) -> None:
        """Give the device's memory back."""
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers, self._hosts, self._shapes = {}, {}, {}

    def _check(self, tensors: Tensors) -> None:
        for spec in self._inputs:
            if spec.name not in tensors:
                raise MeasureError(
                    f"the engine's input '{spec.name}' is not fed",
                    remedy=f"feed it; fed now: {sorted(tensors)}",
                )
            if str(tensors[spec.name].dtype) != spec.dtype:
                raise MeasureError(
                    f"input '{spec.name}' is {tensors[spec.name].dtype}, the engine takes {spec.dtype}",
                    remedy=f"convert it to {spec.dtype}",
                )

    def _bind(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Tell the context the shapes, and give it memory for them."""
        self.free()
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise MeasureError(
                    f"the engine does not take input '{name}' of shape {shape}",
                    remedy="feed a shape within the profile that it was built with, or build it with a wider one (--max-batch)",
                )
        for spec in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                raise MeasureError(
                    f"the shape of '{spec.name}' depends on the values that are fed: {shape}",
                    remedy="export the network so that its outputs' shapes follow from its inputs' shapes",
                )
            host = self._cuda.pinned(shape, np.dtype(spec.dtype))
            buffer = self._cuda.allocate(host.nbytes)
            self._context.set_tensor_address(spec.name, buffer.address)
            self._hosts[spec.name], self._buffers[spec.name] = host, buffer
        self._shapes = shapes


def _dtype(name: str, dtype: Any) -> str:
    dtype_name = str(dtype).rpartition(".")[2]
    if dtype_name not in _DTYPES:
        raise CompileError(
            f"the engine's '{name}' is of type {dtype_name}, which numpy does not have",
            remedy="export with float32 or float16 inputs and outputs",
        )
    return _DTYPES[dtype_name]
