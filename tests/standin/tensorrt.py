"""A stand-in for the package `tensorrt` on a machine without a GPU: engines hold the ONNX file, and ONNX Runtime computes them.

It has the names and signatures of TensorRT 11's Python API that a backend uses, reads and writes device memory by address
(on `driver.c`, that memory lies on the host), and tells its layers by the inspector. It proves nothing about TensorRT; it
lets everything around it run, `tests/gpu` above all: see `tests/gpu/without_a_gpu.sh`.
"""

from __future__ import annotations

import ctypes
import json
import pickle
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime

__version__ = "11.0.standin"

TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DataType = Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "UINT8", "BOOL"])
ProfilingVerbosity = Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED", "NONE"])
MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE"])
BuilderFlag = Enum("BuilderFlag", ["TF32"])
LayerInformationFormat = Enum("LayerInformationFormat", ["ONELINE", "JSON"])
NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})

_TYPES = {"float": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64", "uint8": "UINT8"}
_SAID = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}
_STEPS = 3


class ILogger:
    """To be inherited from, with a method `log`."""


class IProgressMonitor:
    """To be inherited from."""


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content or b"timings"


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IBuilderConfig:
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
    builder_optimization_level = 3
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profile: IOptimizationProfile | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool_size > 0

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag in BuilderFlag

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        return True


class INetworkDefinition:
    model: onnx.ModelProto | None = None


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED, "weakly typed"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        monitor, model = config.progress_monitor, network.model
        assert model is not None
        monitor.phase_start("Building Engine", None, _STEPS)
        go_on = all(monitor.step_complete("Building Engine", step) for step in range(_STEPS))
        monitor.phase_finish("Building Engine")
        dynamic = {value.name for value in model.graph.input if min(_shape(value)) < 0}
        profiled = set() if config.profile is None else set(config.profile.shapes)
        if not go_on or not dynamic <= profiled:
            self._logger.log("Severity.ERROR", "no optimization profile has been defined")
            return None
        shapes = {} if config.profile is None else config.profile.shapes
        return pickle.dumps((model.SerializeToString(), shapes))


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        self._network.model = onnx.load_from_string(model)
        return True

    def parse_from_file(self, model: str) -> bool:
        self._network.model = onnx.load(model)
        return True


class Runtime:
    engines: type[ICudaEngine]

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            content, shapes = pickle.loads(serialized_engine)
        except pickle.UnpicklingError:
            self._logger.log("Severity.ERROR", "IRuntime::deserializeCudaEngine: Error Code 1: Serialization")
            return None
        return self.engines(content, shapes)


class ICudaEngine:
    def __init__(self, content: bytes, profile: dict[str, Any]) -> None:
        self._model = onnx.load_from_string(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # many engines are open at once
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.profile = profile
        self._inputs = {value.name: value for value in self._model.graph.input}
        self._outputs = {value.name: value for value in self._model.graph.output}
        self.tensors = {**self._inputs, **self._outputs}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _shape(self.tensors[name])

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[_type(self.tensors[name].type.tensor_type.elem_type)]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._model)


Runtime.engines = ICudaEngine


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        given = self._engine.get_tensor_shape(name)
        least, _, most = self._engine.profile.get(name, (given, given, given))
        fits = len(shape) == len(given) and all(
            low <= side <= high for low, side, high in zip(least, shape, most, strict=True)
        )
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        (batch,) = {shape[0] for shape in self._shapes.values()}
        return tuple(batch if side < 0 else side for side in self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle > 0
        feeds = {name: self._at(name).copy() for name in self._shapes}
        names = [output.name for output in self._engine.session.get_outputs()]
        for name, found in zip(names, self._engine.session.run(names, feeds), strict=True):
            self._at(name)[...] = found
        return True

    def _at(self, name: str) -> np.ndarray:
        """The memory of a tensor, as an array."""
        shape = self.get_tensor_shape(name)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self._engine.tensors[name].type.tensor_type.elem_type))
        raw = (ctypes.c_ubyte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[name])
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)


class EngineInspector:
    """A layer for each node; one that only reads dequantised values computes in int8."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON
        return json.dumps({"Layers": list(self._layers()), "Bindings": []})

    def _layers(self) -> Iterator[dict[str, Any]]:
        graph = onnx.shape_inference.infer_shapes(self._model).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {value.name: _type(value.type.tensor_type.elem_type) for value in values}
        dequantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
        for node in graph.node:
            first = node.input[0] if node.input else ""
            said = "Int8" if first in dequantised else _SAID.get(types.get(first, ""), "")
            yield {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [{"Name": first, "Datatype": said}],
                "Outputs": [],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(side.dim_value if side.HasField("dim_value") else -1 for side in value.type.tensor_type.shape.dim)


def _type(number: int) -> str:
    return _TYPES.get(onnx.TensorProto.DataType.Name(number).lower(), "")
