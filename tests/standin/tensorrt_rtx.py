"""A stand-in for `tensorrt_rtx`: what it has besides `tensorrt`. Unlike the package it builds for the stand-in's SM90."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import tensorrt as plain
from tensorrt import *  # noqa: F403 - the same names

__version__ = "1.7.standin"

ComputeCapability = Enum("ComputeCapability", ["NONE", "CURRENT", "SM86", "SM89", "SM90"])
CudaGraphStrategy = Enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])


class IBuilderConfig(plain.IBuilderConfig):
    num_compute_capabilities = 0

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        return compute_capability in ComputeCapability


class Builder(plain.Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()


class ICudaEngine(plain.ICudaEngine):
    def create_runtime_config(self) -> Any:
        return SimpleNamespace(cuda_graph_strategy=CudaGraphStrategy.DISABLED)

    def create_execution_context(self, runtime_config: Any = None) -> plain.IExecutionContext:
        assert runtime_config.cuda_graph_strategy in CudaGraphStrategy
        return plain.IExecutionContext(self)


class Runtime(plain.Runtime):
    engines = ICudaEngine
